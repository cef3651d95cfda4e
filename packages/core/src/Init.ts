/**
 * PID 1: everything around the pipeline.
 *
 * {@link start} does exactly this, in this order:
 *
 *   1. refuses to be anything but PID 1 (unless built for tests)
 *   2. makes death hard ({@link "./Death.ts"}): handlers for what nobody caught, a
 *      timer that keeps the event loop from running empty, an eye on its fibers
 *   3. empties the environment that the kernel made of its command line
 *   4. raises the limit of open files, which every process inherits
 *   5. reaps orphans from now on
 *   6. runs the pipeline, telling the kernel log what happens
 *   7. waits for a reason to stop: SIGTERM and SIGPWR power off, SIGINT
 *      (Ctrl-Alt-Del) reboots, and stages ask by {@link "./Shutdown.ts"}; gives
 *      memory back when nothing has happened for half a minute
 *   8. goes down in order: `internal/ShutdownMachine.ts` has a picture of it
 *
 * A boot that fails says why on the console, goes through 8, keeps the kernel's
 * log for the next boot, waits `panic=` seconds (kernel.panic; 0 waits until
 * somebody asks) and reboots.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { BootReport, formatAttributes } from "./BootReport.ts"
import { Events } from "./Events.ts"
import * as Death from "./Death.ts"
import { last, panicSeconds, works } from "./internal/GoingDown.ts"
import { keepFile } from "./internal/keepFile.ts"
import { preload } from "./internal/preloaded.ts"
import { releaseWhenQuiet } from "./internal/releaseMemory.ts"
import * as Coordinator from "./internal/ShutdownCoordinator.ts"
import { Kernel, type Signal } from "./Kernel.ts"
import { device, Kmsg, loggerLayer } from "./Kmsg.ts"
import * as LinuxKernel from "./linux/LinuxKernel.ts"
import type { Pipeline, Provided, StageFailed, Stages } from "./Pipeline.ts"
import * as Reaper from "./Reaper.ts"
import { Shutdown, type ShutdownAction } from "./Shutdown.ts"
import type * as Stage from "./Stage.ts"
import { Supervisor } from "./Supervisor.ts"

/** What {@link start} takes. */
export interface InitOptions<S extends Stages> {
  readonly pipeline: Pipeline<S>
  /** Absolute path of koffi's addon in the image. */
  readonly koffiPath?: string
  /** Runs when every required stage is up, for as long as the node lives; its failure is logged. */
  readonly afterBoot?: Effect.Effect<void, unknown, Provided<S> | Stage.Platform>
  /** Lets the program run when it is not PID 1. For tests only. */
  readonly anyPid?: boolean
}

// kubelet and containerd hold a descriptor or more for every container.
const OPEN_FILES = 1_048_576
const KMSG = "/dev/kmsg"
const REPORT = "/run/kios/boot.json"
const EVENTS = "/run/kios/events.json"
// A process that dies in a loop must not make init write all the time.
const EVENTS_AT_MOST_EVERY = "1 second"

/** Whom {@link life} drives, behind the service that stages see. */
class GoesDown extends Context.Service<GoesDown, Coordinator.Coordinator>()("kios/internal/GoesDown") {}

const actions: Readonly<Partial<Record<Signal, ShutdownAction>>> = {
  SIGTERM: "POWER_OFF",
  SIGPWR: "POWER_OFF",
  SIGINT: "RESTART",
}

/**
 * Makes this process the init of the machine. Call it once, as the last
 * statement of the program that becomes `/init`; in a program that is being
 * made into a start-up snapshot it only registers the main function.
 *
 * @example
 * ```ts
 * import * as Init from "@kios/core/Init"
 * import * as Pipeline from "@kios/core/Pipeline"
 *
 * const main = () => Init.start({ pipeline: Pipeline.make([]), koffiPath: "/lib/kios/koffi.node" })
 * ```
 */
export const start = <S extends Stages>(options: InitOptions<S>): void => {
  const { startupSnapshot } = process.getBuiltinModule("node:v8")
  if (!startupSnapshot.isBuildingSnapshot()) return main(options)
  preload()
  startupSnapshot.setDeserializeMainFunction(() => main(options))
}

const main = <S extends Stages>(options: InitOptions<S>): void => {
  if (process.pid !== 1 && options.anyPid !== true) {
    process.stderr.write("kios init: this program is the init of a kiOS machine and runs as PID 1 only\n")
    process.exit(1)
  }
  const kmsg = device(KMSG)
  const faults = Death.faults(kmsg)
  if (process.pid === 1) Death.logStandardError(KMSG)
  Death.refuse(faults, kmsg)
  const kernel = LinuxKernel.make(options.koffiPath === undefined ? {} : { koffiPath: options.koffiPath })
  for (const name of Object.keys(process.env)) delete process.env[name]

  const platform = Layer.mergeAll(Supervisor.layer, loggerLayer, Reaper.layer).pipe(
    Layer.provideMerge(
      Layer.effectContext(
        Effect.map(Coordinator.make, (coordinator) =>
          Context.make(Shutdown, coordinator.shutdown).pipe(Context.add(GoesDown, coordinator)),
        ),
      ),
    ),
    Layer.provideMerge(BootReport.layer),
    Layer.provideMerge(Events.layer),
    Layer.provideMerge(Layer.mergeAll(Layer.succeed(Kernel, kernel), Layer.succeed(Kmsg, kmsg))),
  )

  Effect.runFork(
    life(options, faults).pipe(
      Effect.provide(platform),
      Effect.provideContext(Death.watchFibers(faults)),
      Effect.catchCause((cause) =>
        Effect.suspend(() => {
          kmsg.writeUnsafe("crit", `error init: ${Cause.pretty(cause)}`)
          return last(faults)
        }),
      ),
      Effect.provide(Layer.mergeAll(Layer.succeed(Kernel, kernel), Layer.succeed(Kmsg, kmsg))),
      // Going down in order has failed as well. The kernel's own panic, with
      // its `panic=`, is what is left, and it comes when PID 1 exits.
      Effect.catchCause((cause) =>
        Effect.sync(() => {
          kmsg.writeUnsafe("emerg", `error init: ${Cause.pretty(cause)}`)
          process.exit(1)
        }),
      ),
    ),
  )
}

const life = Effect.fnUntraced(function* <S extends Stages>(options: InitOptions<S>, faults: Death.Faults) {
  const kernel = yield* Kernel
  const kmsg = yield* Kmsg
  const report = yield* BootReport
  const events = yield* Events
  yield* report.milestone("init")
  yield* Effect.catch(kernel.setOpenFilesLimit(OPEN_FILES), (error) => Effect.logWarning(error.message))
  yield* Effect.catch(kernel.reboot("CAD_OFF"), (error) => Effect.logWarning(error.message))

  const coordinator = yield* GoesDown
  const { request } = coordinator.shutdown
  const context = yield* Effect.context<never>()
  const tell = Effect.runForkWith(context)
  yield* Effect.asVoid(
    Scope.provide(
      kernel.onSignal(["SIGTERM", "SIGINT", "SIGPWR", "SIGHUP", "SIGUSR2"], (signal) => {
        const action = actions[signal]
        if (action !== undefined) tell(request({ action, by: signal }))
      }),
      // Never closed: a second request counts until the end.
      yield* Scope.make(),
    ),
  )

  const scope = yield* Scope.make()
  const node = Effect.gen(function* () {
    const services = yield* Layer.buildWithScope(
      options.pipeline.layer as Layer.Layer<Provided<S>, StageFailed, Stage.Platform>,
      scope,
    )
    yield* report.milestone("boot-complete")
    const { changed, current } = report
    yield* Effect.forkIn(keepFile({ path: REPORT, changed, current, atMostEvery: 0 }), scope)
    yield* Effect.forkIn(
      keepFile({
        path: EVENTS,
        changed: events.changed,
        current: events.current,
        atMostEvery: EVENTS_AT_MOST_EVERY,
      }),
      scope,
    )
    yield* releaseWhenQuiet.pipe(Scope.provide(scope), Effect.forkIn(scope))
    if (options.afterBoot !== undefined) {
      yield* options.afterBoot.pipe(
        Effect.provide(services),
        Effect.catchCause((cause) => Effect.logError("after boot", cause)),
        Effect.forkIn(scope),
      )
    }
  }).pipe(
    Effect.catchCauseIf(
      (cause) => !Cause.hasInterruptsOnly(cause),
      (cause) =>
        Effect.gen(function* () {
          const error = Cause.squash(cause) as Partial<StageFailed> & Error
          yield* kmsg.write(
            "crit",
            `boot-failed ${formatAttributes({ stage: error.stage ?? "init", reason: error.reason ?? error.message ?? String(error) })}`,
          )
          yield* coordinator.bootFailed(yield* panicSeconds)
        }),
    ),
  )

  // A fiber of its own, so that a stage that hangs does not hold up a request to stop.
  const booting = yield* Effect.forkDetach(node)
  const isInit = process.pid === 1
  return yield* coordinator.drive(yield* works({ coordinator, booting, scope, faults, isInit }))
})
