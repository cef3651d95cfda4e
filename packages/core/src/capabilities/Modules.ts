import * as Context from "effect/Context"

/**
 * The kernel modules that the node needs are in.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Modules } from "@kios/core/capabilities/Modules"
 *
 * const read = Modules.use((service) => Effect.succeed(service.loaded))
 * ```
 */
export class Modules extends Context.Service<
  Modules,
  {
    /** Names of the modules that were loaded, in order. */
    readonly loaded: ReadonlyArray<string>
    /** Devices whose drivers were looked for, by their path in sysfs; none of them unless given. */
    readonly devices?: ReadonlySet<string>
  }
>()("kios/Modules") {}
