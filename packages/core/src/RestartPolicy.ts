/**
 * How long a supervised process waits before it is started again.
 */
import * as Duration from "effect/Duration"
import { backOff, type Policy } from "./internal/SupervisorMachine.ts"

/**
 * Exponential back-off with jitter and a cap. A process is always started
 * again: a node that gives up on its runtime is a dead node.
 */
export interface RestartPolicy {
  /** Delay after the first death. */
  readonly initial: Duration.Input
  /** No delay is longer than this (before jitter). */
  readonly maximum: Duration.Input
  /** A process that was up for this long has its deaths forgotten. */
  readonly stableAfter: Duration.Input
}

/**
 * 100 ms, doubled up to 30 s, forgotten after a minute of being up.
 *
 * @example
 * ```ts
 * import * as RestartPolicy from "@kios/core/RestartPolicy"
 *
 * const patient: RestartPolicy.RestartPolicy = { ...RestartPolicy.standard, maximum: "5 minutes" }
 * ```
 */
export const standard: RestartPolicy = {
  initial: "100 millis",
  maximum: "30 seconds",
  stableAfter: "1 minute",
}

/**
 * The delay before start number `deaths` + 1.
 *
 * @param deaths how many times in a row the process died, 1 or more
 * @param random 0 to 1; jitter is 80 % to 120 %, so that processes that died together do not start together
 *
 * @example
 * ```ts
 * import * as Duration from "effect/Duration"
 * import * as RestartPolicy from "@kios/core/RestartPolicy"
 *
 * const third = Duration.toMillis(RestartPolicy.delay(RestartPolicy.standard, 3, 0.5)) // 400
 * ```
 */
export const delay = (policy: RestartPolicy, deaths: number, random: number): Duration.Duration =>
  Duration.millis(backOff(inMilliseconds(policy), deaths, random))

/**
 * The same policy, its durations in milliseconds.
 *
 * @example
 * ```ts
 * import * as RestartPolicy from "@kios/core/RestartPolicy"
 *
 * const { maximumMs } = RestartPolicy.inMilliseconds(RestartPolicy.standard) // 30000
 * ```
 */
export const inMilliseconds = (policy: RestartPolicy): Policy => ({
  initialMs: Duration.toMillis(Duration.fromInputUnsafe(policy.initial)),
  maximumMs: Duration.toMillis(Duration.fromInputUnsafe(policy.maximum)),
  stableAfterMs: Duration.toMillis(Duration.fromInputUnsafe(policy.stableAfter)),
})
