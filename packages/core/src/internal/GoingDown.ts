/**
 * What PID 1 does in each phase of its way down; see {@link "./ShutdownMachine.ts"}
 * for their order and deadlines.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { split } from "../Cmdline.ts"
import type { Faults } from "../Death.ts"
import { Kernel } from "../Kernel.ts"
import { Kmsg } from "../Kmsg.ts"
import { Shutdown } from "../Shutdown.ts"
import * as Teardown from "../Teardown.ts"
import type { Coordinator, Work } from "./ShutdownCoordinator.ts"

const SYNC_DEADLINE = "30 seconds"

// With it, the kernel hands its log to pstore at every way down, and not only when it panics.
const ALWAYS_DUMP = "/sys/module/printk/parameters/always_kmsg_dump"

/** What `panic=` says; the kubelet overwrites kernel.panic, so that file comes second. */
export const panicSeconds: Effect.Effect<number, never, Kernel> = Effect.gen(function* () {
  const kernel = yield* Kernel
  const cmdline = yield* Effect.orElseSucceed(kernel.readText("/proc/cmdline"), () => "")
  const sysctl = yield* Effect.orElseSucceed(kernel.readText("/proc/sys/kernel/panic"), () => "")
  const asked = split(cmdline.trim()).findLast(([key]) => key === "panic")?.[1]
  return [asked, sysctl].map((text) => Number.parseInt(text ?? "", 10)).find(Number.isInteger) ?? 10
})

/** Has the kernel keep its log for the next boot, if there is something to tell. */
const keepLog = (faults: Faults, wrong: boolean) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const kmsg = yield* Kmsg
    const summary = faults.summary()
    if (summary !== undefined) yield* kmsg.write("crit", `error init: went on after ${summary}`)
    // On a machine without such a store it changes nothing.
    if (wrong || summary !== undefined) yield* Effect.ignore(kernel.writeControl(ALWAYS_DUMP, "Y"))
  })

/** The wait after a boot that failed, which `panic=` asks for: seconds, 0 for ever, below at once. */
const wait = (seconds: number) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const kmsg = yield* Kmsg
    if (seconds < 0) return
    if (seconds > 0) {
      yield* kmsg.write("crit", `error boot failed: rebooting in ${seconds} s (panic=${seconds})`)
      return yield* Effect.sleep(`${seconds} seconds`)
    }
    yield* kmsg.write("crit", "error boot failed and panic=0: staying here; reset the machine to try again")
    // Whatever becomes of this process, Ctrl-Alt-Del is the kernel's again.
    yield* Effect.ignore(kernel.reboot("CAD_ON"))
    return yield* Effect.never
  })

/** What the phases work on. */
export interface GoingDown {
  readonly coordinator: Coordinator
  /** The boot, which may still be going on. */
  readonly booting: Fiber.Fiber<unknown, unknown>
  /** What the stages acquired. */
  readonly scope: Scope.Closeable
  readonly faults: Faults
  /** In a test this process is not the machine's init, and the other processes and mounts are not its own. */
  readonly isInit: boolean
}

/** The work of each phase. */
export const works = ({
  booting,
  coordinator,
  faults,
  isInit,
  scope,
}: GoingDown): Effect.Effect<Work, never, Kernel | Kmsg | Shutdown> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<Kernel | Kmsg | Shutdown>()
    const kernel = yield* Kernel
    return {
      boot: Effect.asVoid(Fiber.interrupt(booting)),
      stages: Scope.close(scope, Exit.void),
      ...(isInit
        ? {
            processes: Effect.asVoid(Effect.provideContext(Teardown.endProcesses(), context)),
            mounts: Effect.provideContext(Teardown.unmountAll, context),
          }
        : {}),
      sync: Effect.andThen(
        kernel.sync,
        Effect.provideContext(
          Effect.suspend(() => keepLog(faults, coordinator.wentWrong())),
          context,
        ),
      ),
      wait: Effect.suspend(() => {
        const seconds = coordinator.waitSeconds()
        return seconds === undefined ? Effect.void : Effect.provideContext(wait(seconds), context)
      }),
      reboot: (action) => Effect.orDie(kernel.reboot(action)),
    }
  })

/**
 * The last resort, when what goes down in order has itself failed: sync(2) and
 * reboot(2). Does not return, and dies when the machine does not go down: the
 * kernel's own panic, which comes when PID 1 ends, is what is left then.
 */
export const last = (faults: Faults): Effect.Effect<never, never, Kernel | Kmsg> =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    // In a fiber of its own: what cannot be interrupted would be waited for.
    const syncing = yield* Effect.forkDetach(kernel.sync)
    yield* Effect.timeoutOrElse(Fiber.await(syncing), {
      duration: SYNC_DEADLINE,
      orElse: () => Effect.void,
    })
    yield* keepLog(faults, true)
    yield* wait(yield* panicSeconds)
    return yield* Effect.andThen(Effect.orDie(kernel.reboot("RESTART")), Effect.never)
  })
