import * as Context from "effect/Context"

/**
 * How the previous boot ended, if it did not end in order.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { PreviousBoot } from "@kios/core/capabilities/PreviousBoot"
 *
 * const why = PreviousBoot.use(({ ended }) => Effect.succeed(ended[0] ?? "it was shut down"))
 * ```
 */
export class PreviousBoot extends Context.Service<
  PreviousBoot,
  {
    /** Why earlier boots ended, in words, oldest first. Empty: nothing is known to have gone wrong. */
    readonly ended: ReadonlyArray<string>
  }
>()("kios/PreviousBoot") {}
