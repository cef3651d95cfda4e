import * as Context from "effect/Context"

/**
 * /proc, /sys, /dev and what is mounted below them.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
 *
 * const read = PseudoFilesystems.use((service) => Effect.succeed(service.mounted))
 * ```
 */
export class PseudoFilesystems extends Context.Service<
  PseudoFilesystems,
  {
    /** Mount points that are there now. */
    readonly mounted: ReadonlyArray<string>
  }
>()("kios/PseudoFilesystems") {}
