/**
 * Tells when the kubeconfigs have come, changed or gone, and have been written
 * to the end.
 *
 * A file that is moved into place is whole at once. One that is written in
 * place is looked at when nobody has written to it for half a second; when it
 * then is not whole, it is given five seconds of quiet to become so, and what
 * is there after that counts. A file that is gone is given the same time to
 * come back.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type { KernelShape } from "@kios/core/Kernel"
import * as Membership from "./Membership.ts"

const QUIET = "500 millis"
const PATIENCE = "5 seconds"
// A net below inotify, whose queue may overflow and whose directory may be another one by now; the watch is renewed, too.
const RENEW = "30 seconds"

const NAMES = [Membership.KUBECONFIG, Membership.BOOTSTRAP_KUBECONFIG].map((file) =>
  file.slice(Membership.DIRECTORY.length + 1),
)

/**
 * Runs `settled` with the kubeconfigs as they stand, at first and whenever
 * they may have changed, for ever. Without inotify it looks every 30 seconds.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as KubeconfigWatch from "@kios/stages-kubelet/KubeconfigWatch"
 *
 * const tell = Kernel.use((kernel) =>
 *   KubeconfigWatch.follow(kernel, ({ own }) => Effect.logInfo(own.problem?.reason ?? "usable")),
 * )
 * ```
 */
export const follow = (
  kernel: KernelShape,
  settled: (found: Membership.Kubeconfigs) => Effect.Effect<void>,
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const changes = yield* Queue.sliding<void>(1)
    const changedWithin = (time: Duration.Input) =>
      Effect.map(Effect.timeoutOption(Queue.take(changes), time), Option.isSome)
    const quietFor = (time: Duration.Input) =>
      Effect.repeat(changedWithin(time), { while: (changed) => changed })
    const look = Membership.read(kernel)
    let seen = ""
    let refused = ""
    const watch = Effect.catch(
      kernel.watchDirectory(Membership.DIRECTORY, (name) => {
        if (NAMES.includes(name)) Queue.offerUnsafe(changes, undefined)
      }),
      (error) => {
        if (error.message === refused) return Effect.void
        refused = error.message
        return Effect.logWarning(`a kubeconfig is only looked for every ${RENEW}: ${error.message}`)
      },
    )
    const looking = Effect.gen(function* () {
      // First, so that nothing comes unseen between the look and the watch.
      yield* watch
      do {
        let found = yield* look
        if (JSON.stringify(found) === seen) continue
        do {
          yield* quietFor(QUIET)
          found = yield* look
        } while (!isWhole(found) && (yield* changedWithin(PATIENCE)))
        // Without inotify nobody told of what came meanwhile.
        found = yield* look
        seen = JSON.stringify(found)
        yield* settled(found)
      } while (yield* changedWithin(RENEW))
    })
    return yield* Effect.forever(Effect.scoped(looking))
  })

const isWhole = ({ bootstrap, own }: Membership.Kubeconfigs): boolean => {
  const there = [own, bootstrap].filter(({ text }) => text !== undefined)
  return there.length > 0 && there.every(({ whole }) => whole)
}
