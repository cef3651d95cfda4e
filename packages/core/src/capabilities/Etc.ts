import * as Context from "effect/Context"

/**
 * /etc, writable: the image's files below what the data partition or RAM keeps.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Etc } from "@kios/core/capabilities/Etc"
 *
 * const read = Etc.use((service) => Effect.succeed(service.persistent))
 * ```
 */
export class Etc extends Context.Service<
  Etc,
  {
    /** Whether what is written to /etc outlives a reboot. */
    readonly persistent: boolean
  }
>()("kios/Etc") {}
