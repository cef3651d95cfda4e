/**
 * PID 1's duty to orphans: a process whose parent died becomes init's child,
 * and stays a zombie until init waits for it.
 *
 * The danger is in waiting too much. libuv collects the status of each process
 * that {@link Kernel.spawn} started, by its pid; a plain `waitpid(-1)` would
 * race with it and lose exit codes. So, whenever a SIGCHLD arrives:
 *
 *   1. look at the next dead child without taking it (WNOWAIT)
 *   2. nobody: done
 *   3. one of ours: libuv has not been there yet; let the loop turn once and
 *      look again
 *   4. an orphan: take exactly that pid, and look again
 *
 * waitid(2), "Node.js as PID 1" in the project's notes.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Kernel } from "./Kernel.ts"

// How often in a row a dead child of ours may still be uncollected before the
// round ends; libuv needs one turn. The next SIGCHLD starts another round.
const MAX_TURNS = 64

/**
 * One round: reaps every orphan that is dead now and returns how many.
 * A failing wait is logged and ends the round; it never fails.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Reaper from "@kios/core/Reaper"
 *
 * const round = Effect.map(Reaper.reapAll, (orphans) => `reaped ${orphans}`)
 * ```
 */
export const reapAll: Effect.Effect<number, never, Kernel> = Effect.gen(function* () {
  const kernel = yield* Kernel
  let reaped = 0
  let turns = 0
  for (;;) {
    const dead = yield* kernel.peekDeadChild
    if (dead === undefined) return reaped
    if (dead.supervised) {
      if (++turns > MAX_TURNS) return reaped
      yield* turnOfTheLoop
      continue
    }
    yield* kernel.reap(dead.pid)
    reaped++
  }
}).pipe(
  Effect.catchTag("KernelError", (error) =>
    Effect.as(Effect.logError(`reaping orphans: ${error.message}`), 0),
  ),
)

// libuv collects in its own phase of the event loop, which a microtask would not let it reach.
const turnOfTheLoop = Effect.callback<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/**
 * Reaps on every SIGCHLD until the scope closes.
 *
 * @example
 * ```ts
 * import * as Reaper from "@kios/core/Reaper"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as Effect from "effect/Effect"
 *
 * const reaping = Reaper.run.pipe(Effect.provide(TestMachine.make().layer), Effect.scoped)
 * ```
 */
export const run: Effect.Effect<void, never, Kernel | Scope.Scope> = Effect.gen(function* () {
  const kernel = yield* Kernel
  const pending = yield* Latch.make(true)
  yield* kernel.onSignal(["SIGCHLD"], () => {
    pending.openUnsafe()
  })
  yield* pending.await.pipe(
    // Closed before looking: a child that dies during the round opens it again.
    Effect.andThen(pending.close),
    Effect.andThen(reapAll),
    Effect.forever,
    Effect.forkScoped,
  )
})

/**
 * {@link run} as a layer, for the life of init.
 *
 * @example
 * ```ts
 * import * as Reaper from "@kios/core/Reaper"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as Layer from "effect/Layer"
 *
 * const init = Layer.provide(Reaper.layer, TestMachine.make().layer)
 * ```
 */
export const layer: Layer.Layer<never, never, Kernel> = Layer.effectDiscard(run)
