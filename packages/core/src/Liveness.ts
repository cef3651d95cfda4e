/**
 * How a process that runs is asked whether it still works: one that hangs does
 * not die by itself.
 *
 * A process is taken to hang when `failures` probes in a row have failed; one
 * that passes makes up for all before it. So that only the process is judged,
 * and neither init nor the machine:
 *
 *   - the time that a probe may take is counted in turns of init's own loop, a
 *     tenth at a time: while init itself does not run (a paused machine, a
 *     clock that jumps, a loop that is blocked) no more than a tenth goes by
 *   - a refusal counts no more than silence does: the process may just be busy
 *     with what it refuses for
 *   - one probe is under way at a time, so that a slow machine is not asked faster
 *     than it answers
 *
 * With the defaults a process that stops answering is being ended 20 to 25
 * seconds later. SIGTERM is followed by SIGCONT, so that one that was only
 * stopped (SIGSTOP) ends by itself; one that does not has its `stopTimeout`
 * before SIGKILL.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { httpGet } from "./internal/httpGet.ts"

/** When a process is asked, and how often in vain. */
export interface LivenessOptions {
  /** From one probe to the next (default 5 s). */
  readonly every?: Duration.Input
  /** How long a probe may take (default 5 s). */
  readonly timeout?: Duration.Input
  /** How many in a row have to fail (default 4). */
  readonly failures?: number
}

/** A question that is asked again and again, once the process is up. */
export interface Liveness {
  /** What is asked, for people: `GET http://127.0.0.1:10248/healthz`. */
  readonly description: string
  /** Asks once; fails with what is wrong, in a few words. */
  readonly probe: Effect.Effect<void, string>
  readonly every: Duration.Duration
  readonly timeout: Duration.Duration
  readonly failures: number
}

/**
 * Any Effect that succeeds when the process works.
 *
 * @example
 * ```ts
 * import * as Liveness from "@kios/core/Liveness"
 * import * as Effect from "effect/Effect"
 *
 * const answering = Liveness.make("its socket answers", Effect.fail("nobody is there"), { failures: 2 })
 * ```
 */
export const make = (
  description: string,
  probe: Effect.Effect<void, string>,
  options: LivenessOptions = {},
): Liveness => ({
  description,
  probe,
  every: Duration.fromInputUnsafe(options.every ?? "5 seconds"),
  timeout: Duration.fromInputUnsafe(options.timeout ?? "5 seconds"),
  failures: Math.max(1, options.failures ?? 4),
})

/**
 * Works as long as an HTTP server on this machine answers with 200.
 *
 * @example
 * ```ts
 * import * as Liveness from "@kios/core/Liveness"
 *
 * const healthz = Liveness.httpOk("http://127.0.0.1:10248/healthz", { every: "10 seconds" })
 * ```
 */
export const httpOk = (url: string, options: LivenessOptions = {}): Liveness =>
  make(
    `GET ${url}`,
    Effect.flatMap(httpGet(url), (status) =>
      status === 200 ? Effect.void : Effect.fail(`it answers with status ${status}`),
    ),
    options,
  )

const TICKS = 10

/**
 * Asks once, within the time that it may take; see the top of this file for how that is counted.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Liveness from "@kios/core/Liveness"
 *
 * const refused = Liveness.ask(Liveness.make("a question", Effect.fail("no")))
 * Effect.runSync(Effect.flip(refused)) // "no"
 * ```
 */
export const ask = ({ description, probe, timeout }: Liveness): Effect.Effect<void, string> => {
  const tick = Effect.sleep(Duration.millis(Duration.toMillis(timeout) / TICKS))
  const late = Effect.andThen(
    Effect.repeat(tick, { times: TICKS - 1 }),
    Effect.fail(`no answer to ${description} within ${Duration.format(timeout)}`),
  )
  return Effect.raceFirst(
    Effect.mapError(probe, (reason) => `${description}: ${reason}`),
    late,
  )
}
