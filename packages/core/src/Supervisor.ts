/**
 * Long-lived processes, kept alive.
 *
 * What is done when is decided by a state machine, which is drawn and written
 * down as a pure function in `internal/SupervisorMachine.ts`:
 *
 *   Stopped → Starting → Waiting (for readiness) → Up
 *   BackingOff, before it is started again
 *   Stopping (SIGTERM was sent), Killed (SIGKILL was sent)
 *
 * A process that dies, is not ready within its `startTimeout`, or hangs (its
 * {@link "./Liveness.ts"} says so) is started again for ever, after the delay
 * of its {@link "./RestartPolicy.ts"}. Stopping is SIGTERM, `stopTimeout`,
 * SIGKILL: of the process and not of what it started, because containerd's
 * shims and their pods outlive a restart of containerd. For the same reason no
 * cgroup is ever killed as a whole.
 *
 * A machine that goes down in a hurry gives it less time ({@link "./Shutdown.ts"}).
 *
 * What happens is told to {@link "./Events.ts"}.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import { Events } from "./Events.ts"
import { oomKills } from "./internal/oomKills.ts"
import { milliseconds, probing, wordsOf } from "./internal/probing.ts"
import { settingsOf } from "./internal/settingsOf.ts"
import { deathOf, eventOf } from "./internal/supervisionEvents.ts"
import * as Machine from "./internal/SupervisorMachine.ts"
import {
  Kernel,
  type ChildProcess,
  type ExitStatus,
  type OutputSpec,
  type ProcessOutput,
  type SpawnSpec,
} from "./Kernel.ts"
import type { KernelError } from "./KernelError.ts"
import type { Liveness } from "./Liveness.ts"
import type { Readiness } from "./Readiness.ts"
import type * as RestartPolicy from "./RestartPolicy.ts"
import { Shutdown } from "./Shutdown.ts"
import type { Tolerance } from "./Stage.ts"

/** What to keep running. */
export interface ProcessSpec extends Omit<SpawnSpec, "args" | "output">, Omit<OutputSpec, "onDropped"> {
  /** Names the process in logs and errors. */
  readonly name: string
  /** An Effect is run before each start; one that fails is a start that failed. */
  readonly args: ReadonlyArray<string> | Effect.Effect<ReadonlyArray<string>, KernelError>
  readonly readiness: Readiness
  /** How it is asked, once it is up, whether it still works; without it, it is not asked. */
  readonly liveness?: Liveness
  readonly restart?: RestartPolicy.RestartPolicy
  /**
   * What has to hold before it is started again, such as another process being
   * up without which it would only die: the back-off ends no sooner. A restart
   * that is asked for does not wait.
   */
  readonly restartWhen?: Effect.Effect<void>
  /** How long it may take from its start to being ready (default 60 s). */
  readonly startTimeout?: Duration.Input
  /** How long it has from SIGTERM to its end before SIGKILL (default 10 s). */
  readonly stopTimeout?: Duration.Input
}

/** How one run of a process ended. */
export interface Death {
  /** `exit code 1`, `signal SIGKILL`, `could not be started: ...`, `not ready within 1m`, `unresponsive: ...`. */
  readonly reason: string
  /** Undefined when it could not be started. */
  readonly status: ExitStatus | undefined
  /** It was ended by the kernel, for want of memory. */
  readonly oomKilled: boolean
  readonly ranForMs: number
  /** Its last lines of output, oldest first. */
  readonly lastLines: ReadonlyArray<string>
}

/** What a supervised process is doing. */
export type State = Machine.State

/**
 * A supervised process was not up when somebody needed it.
 *
 * @example
 * ```ts
 * import { ProcessNotUp } from "@kios/core/Supervisor"
 * import * as Effect from "effect/Effect"
 *
 * const optional = <A, R>(up: Effect.Effect<A, ProcessNotUp, R>) =>
 *   Effect.catchTag(up, "ProcessNotUp", (error) => Effect.logWarning(error.message))
 * ```
 */
export class ProcessNotUp extends Data.TaggedError("ProcessNotUp")<{
  readonly process: string
  readonly within: string
  readonly readiness: string
  readonly state: State["_tag"]
  readonly lastDeath: Death | undefined
}> {
  override get message(): string {
    const death = this.lastDeath
    const why =
      death === undefined
        ? `it is ${this.state} and has not answered ${this.readiness}`
        : `it last ended with ${death.reason} after ${death.ranForMs.toFixed(0)} ms${death.lastLines.length === 0 ? "" : `, saying: ${death.lastLines.slice(-3).join(" | ")}`}`
    return `${this.process} was not up within ${this.within}: ${why}`
  }
}

/** A process under supervision. */
export interface Supervised {
  readonly name: string
  readonly state: Effect.Effect<State>
  /** How the last run ended, if one has. */
  readonly lastDeath: Effect.Effect<Death | undefined>
  /** How many times it was started. */
  readonly starts: Effect.Effect<number>
  /** Waits until it is up; fails with {@link ProcessNotUp}, which says why it is not, after `within`. */
  readonly awaitUp: (within: Duration.Input) => Effect.Effect<void, ProcessNotUp>
  /** Ends the present run, if there is one, and starts the next without delay. */
  readonly restart: Effect.Effect<void>
}

/** The operations behind {@link Supervisor}. */
export interface SupervisorShape {
  /**
   * Starts a process and keeps it alive until the scope closes, which stops
   * it. Returns at once; `awaitUp` tells when it is ready.
   */
  readonly supervise: (spec: ProcessSpec) => Effect.Effect<Supervised, never, Scope.Scope>
}

/**
 * Calls that supervision does without; a stage that supervises a process lists
 * them in its own `tolerates`.
 *
 * @example
 * ```ts
 * import * as Stage from "@kios/core/Stage"
 * import { tolerates } from "@kios/core/Supervisor"
 * import * as Layer from "effect/Layer"
 *
 * const stage = Stage.make({ name: "agent", description: "an agent", tolerates, layer: Layer.empty })
 * ```
 */
export const tolerates: ReadonlyArray<Tolerance> = [
  { operation: "openOutput", because: "the process runs, and its output is lost until it is started again" },
  { operation: "makeFifo", errno: ["EEXIST"], because: "it was made before", silent: true },
  { operation: "makeFifo", because: "the output is in the log file" },
  {
    operation: "readText",
    path: /\/memory\.events$/u,
    because: "it only says that a SIGKILL was the kernel's, for want of memory",
    silent: true,
  },
]

// Enough to see why a Go program died: a panic's first goroutine.
const KEPT_LINES = 40

/**
 * The supervisor, as a service.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Readiness from "@kios/core/Readiness"
 * import { Supervisor } from "@kios/core/Supervisor"
 *
 * const agent = Effect.gen(function* () {
 *   const supervisor = yield* Supervisor
 *   const process = yield* supervisor.supervise({
 *     name: "agent",
 *     command: "/bin/agent",
 *     args: ["--listen", "127.0.0.1:9000"],
 *     env: { PATH: "/bin" },
 *     readiness: Readiness.httpOk("http://127.0.0.1:9000/ready"),
 *   })
 *   yield* process.awaitUp("30 seconds")
 * })
 * ```
 */
export class Supervisor extends Context.Service<Supervisor, SupervisorShape>()("kios/Supervisor") {
  /** Supervises processes of {@link Kernel}. */
  static readonly layer: Layer.Layer<Supervisor, never, Kernel | Events | Shutdown> = Layer.effect(
    Supervisor,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const events = yield* Events
      const shutdown = yield* Shutdown
      return Supervisor.of({
        supervise: (spec) =>
          supervise(spec).pipe(
            Effect.provideService(Kernel, kernel),
            Effect.provideService(Events, events),
            Effect.provideService(Shutdown, shutdown),
          ),
      })
    }),
  )
}

const supervise = Effect.fnUntraced(function* (
  spec: ProcessSpec,
): Effect.fn.Return<Supervised, never, Kernel | Events | Shutdown | Scope.Scope> {
  const kernel = yield* Kernel
  const events = yield* Events
  const shutdown = yield* Shutdown
  const settings = settingsOf(spec)
  const up = yield* Latch.make(false)
  const stopped = yield* Deferred.make<void>()
  const inputs: Array<Machine.Input> = []
  const going = new Map<string, Fiber.Fiber<unknown>>()
  const lines: Array<string> = []
  const outputScope = yield* Scope.make()
  const context = yield* Effect.context<never>()
  let output: ProcessOutput | undefined
  let machine = Machine.initial
  let child: ChildProcess | undefined
  let oomKillsBefore: number | undefined
  let lastDeath: Death | undefined

  // One after the other, in the fiber that tells the first of them, which may
  // be one that ends for it: what is told meanwhile waits its turn.
  let handling = false
  const tell = (input: Machine.Input): Effect.Effect<void> =>
    Effect.suspend(() => {
      inputs.push(input)
      if (handling) return Effect.void
      handling = true
      return handleAll
    }).pipe(Effect.uninterruptible)

  const openOutput = Effect.gen(function* () {
    const { fifo, log, onLine } = spec
    if (fifo !== undefined)
      yield* Effect.catch(kernel.makeFifo(fifo), (error) =>
        error.errno === "EEXIST" ? Effect.void : Effect.logWarning(error.message),
      )
    const open = kernel.openOutput({
      ...(log === undefined ? {} : { log }),
      ...(fifo === undefined ? {} : { fifo }),
      onLine: (line) => {
        lines.push(line)
        if (lines.length > KEPT_LINES) lines.shift()
        onLine?.(line)
      },
      onDropped: (bytes) => {
        Effect.runForkWith(context)(events.publish({ kind: "output-dropped", process: spec.name, bytes }))
      },
    })
    output = yield* Scope.provide(open, outputScope)
  }).pipe(Effect.catch((error) => Effect.logWarning(`its output is lost: ${error.message}`)))

  const spawn = (run: number) =>
    Effect.gen(function* () {
      lines.length = 0
      if (output === undefined) yield* openOutput
      oomKillsBefore = yield* oomKills(kernel, spec.cgroup)
      const { args, cgroup, command, env, oomScoreAdj } = spec
      child = yield* kernel.spawn({
        command,
        args: Effect.isEffect(args) ? yield* args : args,
        env,
        // No process of the host writes its memory to a disk: it holds the node's secrets.
        limits: { core: 0, ...spec.limits },
        ...(cgroup === undefined ? {} : { cgroup }),
        ...(oomScoreAdj === undefined ? {} : { oomScoreAdj }),
        ...(output === undefined ? {} : { output }),
      })
      yield* tell({ _tag: "Spawned", run, pid: child.pid })
    }).pipe(Effect.catchCause((cause) => tell({ _tag: "NotSpawned", run, reason: wordsOf(cause) })))

  const awaitExit = (run: number, { exit }: ChildProcess) =>
    Effect.gen(function* () {
      const status = yield* exit
      output?.flush()
      let oomKilled = false
      if (status._tag === "Signaled" && status.signal === "SIGKILL" && oomKillsBefore !== undefined)
        oomKilled = ((yield* oomKills(kernel, spec.cgroup)) ?? 0) > oomKillsBefore
      yield* tell({ _tag: "Exited", run, status, oomKilled })
    })

  const awaitReady = (run: number) =>
    spec.readiness.await.pipe(
      Effect.andThen(tell({ _tag: "Ready", run })),
      Effect.catchCauseIf(
        (cause) => !Cause.hasInterrupts(cause),
        (cause) =>
          tell({
            _tag: "NotReady",
            run,
            reason: `could not be asked whether it is ready: ${wordsOf(cause)}`,
          }),
      ),
    )

  const perform = (activity: Machine.Activity): Effect.Effect<unknown> => {
    const { run } = activity
    switch (activity._tag) {
      case "Spawn":
        return spawn(run)
      case "AwaitExit":
        return child === undefined ? Effect.void : awaitExit(run, child)
      case "AwaitReady":
        return awaitReady(run)
      case "Probe":
        return spec.liveness === undefined
          ? Effect.void
          : probing(spec.liveness, (reason) =>
              tell(
                reason === undefined ? { _tag: "ProbePassed", run } : { _tag: "ProbeFailed", run, reason },
              ),
            )
      case "Timer": {
        const { ms, timer } = activity
        // Its exit, because a condition that breaks must not keep the process from being started.
        const condition =
          timer === "back-off" && spec.restartWhen !== undefined ? Effect.exit(spec.restartWhen) : Effect.void
        return Effect.sleep(ms).pipe(
          Effect.andThen(condition),
          Effect.andThen(tell({ _tag: "TimeIsUp", run, timer })),
        )
      }
    }
  }

  const obey = (command: Machine.Command): Effect.Effect<void> => {
    if (command._tag === "Signal")
      return child === undefined || child.hasEnded()
        ? // Its pid may be somebody else's by now.
          Effect.void
        : Effect.ignore(kernel.kill(command.pid, command.signal))
    const { news, run } = command
    if (news._tag === "Ended" && !news.wanted) lastDeath = deathOf(news, lines)
    const told = { process: spec.name, run, stopTimeoutMs: settings.stopTimeoutMs, lines }
    return events.publish(eventOf(told, news))
  }

  const handle = Effect.fnUntraced(function* (input: Machine.Input) {
    const before = machine.state
    const moment = { now: yield* milliseconds, random: yield* Random.next }
    const [next, commands] = Machine.step(settings, machine, input, moment)
    machine = next
    if (next.state._tag !== "Up") up.closeUnsafe()
    else if (before._tag !== "Up") up.openUnsafe()
    for (const command of commands) yield* obey(command)
    const wanted = Machine.activities(settings, next)
    for (const [key, fiber] of going) {
      if (wanted.some((activity) => activity.key === key)) continue
      fiber.interruptUnsafe()
      going.delete(key)
    }
    for (const activity of wanted)
      if (!going.has(activity.key))
        going.set(activity.key, yield* Effect.forkDetach(perform(activity), { startImmediately: true }))
    if (next.state._tag === "Stopped") yield* Deferred.succeed(stopped, undefined)
  })

  const handleAll: Effect.Effect<void> = Effect.suspend(() => {
    const input = inputs.shift()
    if (input === undefined) {
      // Here and not in an effect of its own, before which another fiber may tell something that nobody would handle.
      handling = false
      return Effect.void
    }
    return Effect.catchCause(handle(input), (cause) =>
      Effect.logFatal(`supervision itself failed at ${input._tag}: ${wordsOf(cause)}`),
    )
  }).pipe(Effect.repeat({ while: () => handling }), Effect.annotateLogs("process", spec.name))

  // First, so that whoever is interrupted here leaves no process behind.
  yield* Effect.addFinalizer(() =>
    tell({ _tag: "Stop" }).pipe(
      Effect.andThen(
        Effect.raceFirst(
          Deferred.await(stopped),
          // Its own timer has the normal time; somebody may be in a hurry.
          shutdown.grace(settings.stopTimeoutMs).pipe(
            Effect.andThen(Effect.suspend(() => tell({ _tag: "TimeIsUp", run: machine.run, timer: "stop" }))),
            Effect.andThen(Deferred.await(stopped)),
            // A finalizer is not, and would wait for the time to be over.
            Effect.interruptible,
          ),
        ),
      ),
      Effect.andThen(Scope.close(outputScope, Exit.void)),
    ),
  )
  yield* tell({ _tag: "Start" })

  return {
    name: spec.name,
    state: Effect.sync(() => machine.state),
    lastDeath: Effect.sync(() => lastDeath),
    starts: Effect.sync(() => machine.run),
    awaitUp: (within) => {
      const limit = Duration.fromInputUnsafe(within)
      return Effect.timeoutOrElse(up.await, {
        duration: limit,
        orElse: () =>
          Effect.fail(
            new ProcessNotUp({
              process: spec.name,
              within: Duration.format(limit),
              readiness: spec.readiness.description,
              state: machine.state._tag,
              lastDeath,
            }),
          ),
      })
    },
    restart: Effect.suspend(() => {
      // Whoever asks next waits for the new process, not for the one that is about to go.
      up.closeUnsafe()
      return tell({ _tag: "Restart" })
    }),
  }
})
