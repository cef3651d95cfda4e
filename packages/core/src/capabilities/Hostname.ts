import * as Context from "effect/Context"

/**
 * The host name is set.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Hostname } from "@kios/core/capabilities/Hostname"
 *
 * const read = Hostname.use((service) => Effect.succeed(service.name))
 * ```
 */
export class Hostname extends Context.Service<
  Hostname,
  {
    /** What sethostname(2) was given. */
    readonly name: string
  }
>()("kios/Hostname") {}
