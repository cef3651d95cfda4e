import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

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
    /** What sethostname(2) was given at the boot. */
    readonly name: string
    /** Looks again which name was chosen, sets it if it is another one, and gives the one that is set. Without it, the name stays. */
    readonly refresh?: Effect.Effect<string>
  }
>()("kios/Hostname") {}
