/**
 * How a process is asked whether it is ready, instead of being given time.
 */
import * as Effect from "effect/Effect"
import { httpGet } from "./internal/httpGet.ts"

/** A question that succeeds when the process is ready and otherwise waits; it never fails. */
export interface Readiness {
  /** What is asked, for people: `GET http://127.0.0.1:10248/healthz`. */
  readonly description: string
  readonly await: Effect.Effect<void>
}

/**
 * Ready as soon as it runs.
 *
 * @example
 * ```ts
 * import * as Readiness from "@kios/core/Readiness"
 *
 * const question = Readiness.immediate.description // "process started"
 * ```
 */
export const immediate: Readiness = { description: "process started", await: Effect.void }

/**
 * Any Effect that succeeds once the process is ready.
 *
 * @example
 * ```ts
 * import * as Readiness from "@kios/core/Readiness"
 * import * as Effect from "effect/Effect"
 *
 * const socket = Readiness.make("its socket answers", Effect.sleep("10 millis"))
 * ```
 */
export const make = (description: string, await_: Effect.Effect<void>): Readiness => ({
  description,
  await: await_,
})

/**
 * Ready when an HTTP server on this machine answers with 200.
 *
 * Asks again 50 ms after each refusal; a single question takes at most
 * `attemptTimeout` milliseconds (default 2000).
 *
 * @example
 * ```ts
 * import * as Readiness from "@kios/core/Readiness"
 *
 * const healthz = Readiness.httpOk("http://127.0.0.1:10248/healthz")
 * ```
 */
export const httpOk = (url: string, attemptTimeout = 2000): Readiness => ({
  description: `GET ${url}`,
  await: httpGet(url).pipe(
    Effect.timeout(attemptTimeout),
    Effect.map((status) => status === 200),
    Effect.orElseSucceed(() => false),
    Effect.flatMap((ok) => (ok ? Effect.succeed(true) : Effect.as(Effect.sleep("50 millis"), false))),
    Effect.repeat({ until: (ok: boolean) => ok }),
    Effect.asVoid,
  ),
})
