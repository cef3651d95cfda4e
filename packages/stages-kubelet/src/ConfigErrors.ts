/**
 * Tells what is wrong with files of the node's owner, once for as long as it
 * stays the same: they are read again at every start of the kubelet.
 */
import * as Effect from "effect/Effect"
import { Events } from "@kios/core/Events"
import type { Problem } from "./Kubeconfig.ts"

/** Tells the problems of a file; none when there are none any more. */
export type Teller = (file: string, problems: ReadonlyArray<Problem>) => Effect.Effect<void>

/**
 * Makes a teller with a memory of its own.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as ConfigErrors from "@kios/stages-kubelet/ConfigErrors"
 *
 * const twiceToldOnce = Effect.gen(function* () {
 *   const tell = yield* ConfigErrors.make
 *   yield* tell("/etc/kubernetes/node-ip", [{ line: 1, reason: "is no IP address" }])
 *   yield* tell("/etc/kubernetes/node-ip", [{ line: 1, reason: "is no IP address" }])
 * })
 * ```
 */
export const make: Effect.Effect<Teller, never, Events> = Effect.gen(function* () {
  const events = yield* Events
  const told = new Map<string, string>()
  return (file, problems) =>
    Effect.suspend(() => {
      const all = JSON.stringify(problems)
      if ((told.get(file) ?? "[]") === all) return Effect.void
      told.set(file, all)
      return Effect.forEach(
        problems,
        (problem) => events.publish({ kind: "config-error", file, ...problem }),
        { discard: true },
      )
    })
})
