/** Asks a process again and again whether it works. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { ask, type Liveness } from "../Liveness.ts"

/** What went wrong, in a line. */
export const wordsOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/** Milliseconds, of a clock that does not go back. */
export const milliseconds = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** Probes for ever, and tells of each: with why it failed, or undefined. */
export const probing = (
  liveness: Liveness,
  tell: (failure: string | undefined) => Effect.Effect<void>,
): Effect.Effect<never> =>
  Effect.gen(function* () {
    const began = yield* milliseconds
    // A probe that breaks is one that fails: what it asks may answer anything.
    const answer = yield* Effect.result(
      Effect.catchCauseIf(
        ask(liveness),
        (cause) => Cause.hasDies(cause),
        (cause) => Effect.fail(wordsOf(cause)),
      ),
    )
    yield* tell(Result.isSuccess(answer) ? undefined : answer.failure)
    return (yield* milliseconds) - began
  }).pipe(
    Effect.flatMap((took) => Effect.sleep(Math.max(0, Duration.toMillis(liveness.every) - took))),
    Effect.forever,
    Effect.delay(liveness.every),
  )
