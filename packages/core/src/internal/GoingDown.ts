/**
 * The way down of PID 1, every step of it with a deadline: what hangs is left
 * behind, and the machine goes down without it.
 */
import * as Effect from "effect/Effect"
import type * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { split } from "../Cmdline.ts"
import type { Faults } from "../Death.ts"
import type { Kernel, RebootCommand } from "../Kernel.ts"
import type { KmsgShape } from "../Kmsg.ts"
import * as Teardown from "../Teardown.ts"

// What a release may take before the machine goes down without it.
const RELEASE_DEADLINE = "60 seconds"
const SYNC_DEADLINE = "30 seconds"

// With it, the kernel hands its log to pstore at every way down, and not only when it panics.
const ALWAYS_DUMP = "/sys/module/printk/parameters/always_kmsg_dump"

/**
 * Waits for an effect no longer than `duration`. The effect runs in a fiber of
 * its own: a plain timeout would wait for what cannot be interrupted, such as
 * the release of a resource, and that is what may hang.
 */
export const bounded = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  late: Effect.Effect<void>,
): Effect.Effect<void, never, R> =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkDetach(effect)
    yield* Fiber.await(fiber).pipe(Effect.asVoid, Effect.timeoutOrElse({ duration, orElse: () => late }))
  })

/** Releases what the stages acquired. */
export const release = (scope: Scope.Closeable, kmsg: KmsgShape): Effect.Effect<void> =>
  bounded(
    Scope.close(scope, Exit.void),
    RELEASE_DEADLINE,
    kmsg.write(
      "err",
      `error shutdown: stages were not released within ${RELEASE_DEADLINE}, going down without them`,
    ),
  )

/** Ends every process that is left and unmounts everything. */
export const endAndUnmount = (kmsg: KmsgShape): Effect.Effect<void, never, Kernel> =>
  bounded(
    Effect.andThen(Teardown.endProcesses(), Teardown.unmountAll),
    RELEASE_DEADLINE,
    kmsg.write("err", `error shutdown: not everything was unmounted within ${RELEASE_DEADLINE}`),
  )

/** What `panic=` says; the kubelet overwrites kernel.panic, so that file comes second. */
const panicSeconds = (kernel: Kernel["Service"]): Effect.Effect<number> =>
  Effect.gen(function* () {
    const cmdline = yield* Effect.orElseSucceed(kernel.readText("/proc/cmdline"), () => "")
    const sysctl = yield* Effect.orElseSucceed(kernel.readText("/proc/sys/kernel/panic"), () => "")
    const asked = split(cmdline.trim()).findLast(([key]) => key === "panic")?.[1]
    return [asked, sysctl].map((text) => Number.parseInt(text ?? "", 10)).find(Number.isInteger) ?? 10
  })

/**
 * sync(2); the kernel's log kept for the next boot, if there is something to
 * tell; the wait that kernel.panic asks for after a failure; reboot(2). Does not
 * return, and dies when the machine does not go down: the kernel's own panic,
 * which comes when PID 1 ends, is what is left then.
 */
export const down = (
  kernel: Kernel["Service"],
  kmsg: KmsgShape,
  command: RebootCommand,
  { failed, faults }: { readonly failed: boolean; readonly faults: Faults },
): Effect.Effect<never> =>
  Effect.gen(function* () {
    yield* bounded(
      kernel.sync,
      SYNC_DEADLINE,
      kmsg.write("err", `error shutdown: sync takes longer than ${SYNC_DEADLINE}, going down without it`),
    )
    const summary = faults.summary()
    if (summary !== undefined) yield* kmsg.write("crit", `error init: went on after ${summary}`)
    // On a machine without such a store it changes nothing.
    if (failed || summary !== undefined) yield* Effect.ignore(kernel.writeControl(ALWAYS_DUMP, "Y"))
    if (failed) {
      const seconds = yield* panicSeconds(kernel)
      if (seconds === 0) {
        yield* kmsg.write(
          "crit",
          "error boot failed and panic=0: staying here; reset the machine to try again",
        )
        // Nobody listens any more: Ctrl-Alt-Del is the kernel's again.
        yield* Effect.ignore(kernel.reboot("CAD_ON"))
        return yield* Effect.never
      }
      if (seconds > 0) {
        yield* kmsg.write("crit", `error boot failed: rebooting in ${seconds} s (panic=${seconds})`)
        yield* Effect.sleep(`${seconds} seconds`)
      }
    }
    return yield* Effect.andThen(Effect.orDie(kernel.reboot(command)), Effect.never)
  })
