import * as Context from "effect/Context"

/**
 * The kernel parameters of a Kubernetes node are set.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Sysctls } from "@kios/core/capabilities/Sysctls"
 *
 * const read = Sysctls.use((service) => Effect.succeed(service.missing))
 * ```
 */
export class Sysctls extends Context.Service<
  Sysctls,
  {
    /** Keys that this kernel does not have. */
    readonly missing: ReadonlyArray<string>
  }
>()("kios/Sysctls") {}
