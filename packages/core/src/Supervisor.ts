/**
 * Long-lived processes, kept alive.
 *
 *            start                spawned              ready
 *   Stopped ───────▶ Starting ─────────────▶ Waiting ─────────▶ Up
 *      ▲                ▲  │ cannot spawn      │ dies or is       │ dies or is
 *      │                │  │                   │ not ready        │ restarted
 *      │                │  ▼                   ▼ in time          ▼
 *      │                └─── BackingOff ◀──────┴──────────────────┤
 *      │                       │ stop                             │ stop
 *      │      exited           ▼                                  ▼
 *      └───────────────────────────────── Stopping ◀──────────────┘
 *      │      exited                         │ not in time
 *      └──────────────── Killed ◀────────────┘
 *
 * A process that dies, or is not ready within its `startTimeout`, is started
 * again for ever, after the delay of its {@link RestartPolicy}. Stopping is
 * SIGTERM, `stopTimeout`, SIGKILL: of the process and not of what it started,
 * because containerd's shims and their pods outlive a restart of containerd.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { Kernel, type ChildProcess, type ExitStatus, type SpawnSpec } from "./Kernel.ts"
import type { KernelError } from "./KernelError.ts"
import type { Readiness } from "./Readiness.ts"
import * as RestartPolicy from "./RestartPolicy.ts"

/** What to keep running. */
export interface ProcessSpec extends SpawnSpec {
  /** Names the process in logs and errors. */
  readonly name: string
  readonly readiness: Readiness
  readonly restart?: RestartPolicy.RestartPolicy
  /** How long it may take from its start to being ready (default 60 s). */
  readonly startTimeout?: Duration.Input
  /** How long it has from SIGTERM to its end before SIGKILL (default 10 s). */
  readonly stopTimeout?: Duration.Input
}

/** How one run of a process ended. */
export interface Death {
  /** `exit code 1`, `signal SIGKILL`, `could not be started: ...`, `not ready within 1m`. */
  readonly reason: string
  readonly ranForMs: number
  /** Its last lines of output, oldest first. */
  readonly lastLines: ReadonlyArray<string>
}

/** What a supervised process is doing; the drawing above has the ways from one state to the next. */
export type State =
  | { readonly _tag: "Stopped" }
  | { readonly _tag: "Starting" }
  | { readonly _tag: "Waiting"; readonly pid: number }
  | { readonly _tag: "Up"; readonly pid: number }
  | { readonly _tag: "BackingOff"; readonly delayMs: number }
  | { readonly _tag: "Stopping"; readonly pid: number }
  | { readonly _tag: "Killed"; readonly pid: number }

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
  static readonly layer: Layer.Layer<Supervisor, never, Kernel> = Layer.effect(
    Supervisor,
    Effect.map(Kernel, (kernel) =>
      Supervisor.of({ supervise: (spec) => Effect.provideService(supervise(spec), Kernel, kernel) }),
    ),
  )
}

const describeExit = (status: ExitStatus): string =>
  status._tag === "Exited" ? `exit code ${status.code}` : `signal ${status.signal}`

type Ending = { readonly reason: string; readonly wanted: boolean }

const supervise = Effect.fnUntraced(function* (
  spec: ProcessSpec,
): Effect.fn.Return<Supervised, never, Kernel | Scope.Scope> {
  const kernel = yield* Kernel
  const policy = spec.restart ?? RestartPolicy.standard
  const startTimeout = Duration.fromInputUnsafe(spec.startTimeout ?? "60 seconds")
  const stopTimeout = Duration.fromInputUnsafe(spec.stopTimeout ?? "10 seconds")
  const up = yield* Latch.make(false)
  const lines: Array<string> = []
  let state: State = { _tag: "Stopped" }
  let lastDeath: Death | undefined
  let starts = 0
  let upSince: bigint | undefined
  let restartRequested = yield* Deferred.make<void>()

  const enter = (next: State) =>
    Effect.sync(() => {
      state = next
      if (next._tag === "Up") up.openUnsafe()
      else up.closeUnsafe()
    })

  /** SIGTERM, wait, SIGKILL. */
  const terminate = (child: ChildProcess) =>
    Effect.gen(function* () {
      yield* enter({ _tag: "Stopping", pid: child.pid })
      yield* Effect.ignore(kernel.kill(child.pid, "SIGTERM"))
      yield* child.exit.pipe(
        Effect.timeoutOrElse({
          duration: stopTimeout,
          orElse: () =>
            Effect.gen(function* () {
              yield* Effect.logWarning(
                `did not end within ${Duration.format(stopTimeout)} of SIGTERM: killing it`,
              )
              yield* enter({ _tag: "Killed", pid: child.pid })
              yield* Effect.ignore(kernel.kill(child.pid, "SIGKILL"))
              return yield* child.exit
            }),
        }),
      )
    })

  /** One life of the process: spawned, waited for, and gone when this returns. */
  const life: Effect.Effect<Ending, KernelError> = Effect.gen(function* () {
    yield* enter({ _tag: "Starting" })
    starts++
    lines.length = 0
    restartRequested = yield* Deferred.make<void>()
    let dead = false
    upSince = undefined
    return yield* Effect.acquireUseRelease(
      kernel.spawn({
        ...spec,
        onLine: (line) => {
          lines.push(line)
          if (lines.length > KEPT_LINES) lines.shift()
          spec.onLine?.(line)
        },
      }),
      (child) => {
        const died = Effect.map(child.exit, (status): Ending => {
          dead = true
          return { reason: describeExit(status), wanted: false }
        })
        const asked = Effect.as(Deferred.await(restartRequested), {
          reason: "restart",
          wanted: true,
        } satisfies Ending)
        const ready = spec.readiness.await.pipe(
          Effect.as(undefined),
          Effect.timeoutOrElse({
            duration: startTimeout,
            orElse: () =>
              Effect.succeed<Ending>({
                reason: `not ready within ${Duration.format(startTimeout)} (${spec.readiness.description})`,
                wanted: false,
              }),
          }),
        )
        return Effect.gen(function* () {
          yield* enter({ _tag: "Waiting", pid: child.pid })
          const early = yield* Effect.raceFirst(ready, Effect.raceFirst(died, asked))
          if (early !== undefined) return early
          upSince = yield* Clock.monotonicTimeNanos
          yield* enter({ _tag: "Up", pid: child.pid })
          return yield* Effect.raceFirst(died, asked)
        })
      },
      // Never signal a process that is dead: its pid may be somebody else's by now.
      (child) => Effect.suspend(() => (dead ? Effect.void : terminate(child))),
    )
  })

  const forever = Effect.gen(function* () {
    let deaths = 0
    for (;;) {
      const startedAt = yield* Clock.monotonicTimeNanos
      // Defects too: nothing may end supervision but the scope.
      const ending = yield* Effect.catchCauseIf(
        life,
        (cause) => !Cause.hasInterrupts(cause),
        (cause) => {
          const error = Cause.squash(cause)
          const reason = error instanceof Error ? error.message : String(error)
          return Effect.succeed<Ending>({ reason: `could not be started: ${reason}`, wanted: false })
        },
      )
      const endedAt = yield* Clock.monotonicTimeNanos
      const ranForMs = Number(endedAt - startedAt) / 1e6
      // Not being ready is no sign of health, however long it lasts.
      const upForMs = upSince === undefined ? 0 : Number(endedAt - upSince) / 1e6
      if (ending.wanted) {
        deaths = 0
        yield* Effect.log("restarting as asked")
        continue
      }
      lastDeath = { reason: ending.reason, ranForMs, lastLines: [...lines] }
      deaths = upForMs >= Duration.toMillis(Duration.fromInputUnsafe(policy.stableAfter)) ? 1 : deaths + 1
      const wait = RestartPolicy.delay(policy, deaths, yield* Random.next)
      yield* Effect.logError(
        `ended with ${ending.reason} after ${ranForMs.toFixed(0)} ms (death ${deaths} in a row), starting again in ${Duration.toMillis(wait).toFixed(0)} ms`,
      )
      for (const line of lines.slice(-3)) yield* Effect.logError(`said: ${line}`)
      yield* enter({ _tag: "BackingOff", delayMs: Duration.toMillis(wait) })
      yield* Effect.raceFirst(Effect.sleep(wait), Deferred.await(restartRequested))
    }
  })

  yield* forever.pipe(
    Effect.ensuring(enter({ _tag: "Stopped" })),
    Effect.tapDefect((defect) => Effect.logFatal(`supervision itself failed: ${String(defect)}`)),
    Effect.annotateLogs("process", spec.name),
    Effect.forkScoped,
  )

  return {
    name: spec.name,
    state: Effect.sync(() => state),
    lastDeath: Effect.sync(() => lastDeath),
    starts: Effect.sync(() => starts),
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
              state: state._tag,
              lastDeath,
            }),
          ),
      })
    },
    restart: Effect.suspend(() => {
      // Whoever asks next waits for the new process, not for the one that is about to go.
      up.closeUnsafe()
      return Effect.asVoid(Deferred.succeed(restartRequested, undefined))
    }),
  }
})
