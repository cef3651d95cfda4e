import * as Context from "effect/Context"

/**
 * The loopback interface is up: 127.0.0.1 answers.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Loopback } from "@kios/core/capabilities/Loopback"
 *
 * const read = Loopback.use((service) => Effect.succeed(service.interface))
 * ```
 */
export class Loopback extends Context.Service<
  Loopback,
  {
    /** Its name. */
    readonly interface: string
  }
>()("kios/Loopback") {}
