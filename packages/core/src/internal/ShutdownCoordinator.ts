/**
 * Does what {@link "./ShutdownMachine.ts"} decides: runs the phases, watches
 * their time, and tells what happens to the console and the boot report.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import { BootReport } from "../BootReport.ts"
import { Kernel } from "../Kernel.ts"
import { Kmsg } from "../Kmsg.ts"
import type {
  ShutdownAction,
  ShutdownRequestRecord,
  ShutdownShape,
  ShutdownStep,
  ShutdownStepRecord,
} from "../Shutdown.ts"
import { formatAttributes } from "./attributes.ts"
import * as Machine from "./ShutdownMachine.ts"

/** What is done in each phase but `before`, whose steps are registered; without it, nothing. */
export interface Work extends Partial<
  Readonly<Record<Exclude<Machine.Phase, "before" | "reboot">, Effect.Effect<void>>>
> {
  /** reboot(2): its failure is that of {@link Coordinator.drive}. */
  readonly reboot: (action: ShutdownAction) => Effect.Effect<void>
}

/** What `Init.ts` drives. */
export interface Coordinator {
  readonly shutdown: ShutdownShape
  /** The boot failed: goes down, and waits as long as `panic=` says before it restarts. Counts for nothing once it goes down. */
  readonly bootFailed: (panicSeconds: number) => Effect.Effect<void>
  /** What `panic=` says, after a boot that failed. */
  readonly waitSeconds: () => number | undefined
  /** Whether the next boot has to know more than the record of it says. */
  readonly wentWrong: () => boolean
  /** Goes down when somebody asks; does not return. */
  readonly drive: (work: Work) => Effect.Effect<never>
}

// Once somebody has asked twice.
const HURRIED_GRACE = "2 seconds"

const what: Readonly<Record<Machine.Phase, string>> = {
  boot: "stopping the boot",
  before: "what has to come first",
  stages: "releasing the stages",
  processes: "ending what still runs",
  mounts: "unmounting",
  sync: "sync",
  wait: "the wait",
  reboot: "reboot",
}

const seconds = (ms: number): string => Duration.format(Duration.millis(ms))

/** A step while it runs. */
type Mutable<T> = { -readonly [K in keyof T]: T[K] }
type Entry = Mutable<ShutdownStepRecord> & { readonly remarks: Array<string> }

export const make = Effect.gen(function* (): Effect.fn.Return<
  Coordinator,
  never,
  Kernel | Kmsg | BootReport
> {
  const kernel = yield* Kernel
  const kmsg = yield* Kmsg
  const report = yield* BootReport
  const hurried = yield* Latch.make(false)
  const broken = yield* Deferred.make<never>()
  const registered = new Set<ShutdownStep>()
  const requests: Array<ShutdownRequestRecord> = []
  const entries: Array<Entry> = []
  let machine = Machine.initial
  let settings: Machine.Settings = { beforeMs: 0, waitMs: 0 }
  let waitSeconds: number | undefined
  let works: Work | undefined
  // Whoever asks, what is done and logged is done and logged as the driver's.
  let context = Context.empty()
  let entry: Entry | undefined
  let working: Fiber.Fiber<unknown> | undefined
  let phaseTimer: Fiber.Fiber<unknown> | undefined
  let wholeTimer: Fiber.Fiber<unknown> | undefined

  const now = Effect.map(kernel.monotonic, (nanos) => Number(nanos / 1000n) / 1000)
  const tellReport = Effect.suspend(() =>
    report.goingDown({
      requests: [...requests],
      steps: entries.map((one) => ({ ...one, remarks: [...one.remarks] })),
    }),
  )

  const begin = (name: string) =>
    Effect.flatMap(now, (startMs) => {
      const one: Entry = { name, startMs, endMs: null, outcome: "running", remarks: [] }
      entries.push(one)
      return Effect.as(tellReport, one)
    })

  /** The first end counts: what is left behind may end as well, later. */
  const finish = (one: Entry, outcome: Exclude<Entry["outcome"], "running">) =>
    Effect.flatMap(now, (endMs) => {
      if (one.endMs !== null) return Effect.void
      one.endMs = endMs
      one.outcome = outcome
      const text = `shutdown ${one.name} ${outcome} ms=${(endMs - one.startMs).toFixed(1)}`
      return Effect.andThen(kmsg.write("notice", text), tellReport)
    })

  const runStep = ({ deadline, name, run }: ShutdownStep) =>
    Effect.gen(function* () {
      const one = yield* begin(`before/${name}`)
      const limit = Duration.fromInputUnsafe(deadline)
      yield* kmsg.write("notice", `shutdown waits for ${name}, ${Duration.format(limit)} at most`)
      yield* run.pipe(
        Effect.as("done" as const),
        Effect.timeoutOrElse({
          duration: limit,
          orElse: () =>
            Effect.as(
              kmsg.write(
                "err",
                `error shutdown: ${name} took longer than ${Duration.format(limit)}, going on without it`,
              ),
              "late" as const,
            ),
        }),
        Effect.catchCauseIf(
          (cause) => !Cause.hasInterruptsOnly(cause),
          (cause) => Effect.as(Effect.logError(`shutdown: ${name}`, cause), "failed" as const),
        ),
        Effect.flatMap((outcome) => finish(one, outcome)),
        Effect.onInterrupt(() => finish(one, "cut")),
      )
    })

  const workOf = (phase: Machine.Phase): Effect.Effect<unknown> => {
    if (phase === "before")
      return Effect.suspend(() =>
        Effect.forEach([...registered], runStep, { concurrency: "unbounded", discard: true }),
      )
    if (phase === "reboot")
      return Effect.suspend(() => works?.reboot(machine.request?.action ?? "RESTART") ?? Effect.void).pipe(
        Effect.onExit((exit) =>
          Exit.isFailure(exit) ? Deferred.failCause(broken, exit.cause) : Effect.void,
        ),
      )
    return works?.[phase] ?? Effect.void
  }

  /** `before` has steps of its own, and who reboots has no end. */
  const isRecorded = (phase: Machine.Phase) =>
    phase !== "before" && phase !== "reboot" && (phase !== "wait" || settings.waitMs > 0)

  const start = (phase: Machine.Phase) =>
    Effect.gen(function* () {
      const one = isRecorded(phase) ? yield* begin(phase) : undefined
      entry = one
      working = yield* Effect.forkDetach(
        workOf(phase).pipe(
          Effect.provideContext(context),
          Effect.catchCauseIf(
            (cause) => !Cause.hasInterruptsOnly(cause),
            (cause) =>
              Effect.andThen(
                Effect.logError(`shutdown: ${what[phase]}`, cause),
                one === undefined ? Effect.void : finish(one, "failed"),
              ),
          ),
          Effect.andThen(tell({ _tag: "Done", phase })),
        ),
        { startImmediately: true },
      )
    })

  const news = (one: Machine.News): Effect.Effect<void> => {
    switch (one._tag) {
      case "Asked": {
        const { request, urgency } = one
        return Effect.flatMap(now, (atMs) => {
          requests.push({ ...request, atMs })
          const { action, by } = request
          const how =
            urgency === "ordered"
              ? "shutting down"
              : urgency === "hurried"
                ? "shutting down faster, asked a second time"
                : "shutting down by force, asked again"
          return kmsg.write("notice", `${how} ${formatAttributes({ action, by })}`)
        })
      }
      case "TooLong":
        return kmsg.write("err", `error shutdown: not down within ${seconds(Machine.MARGIN_MS)}, forcing it`)
      case "Ended": {
        const { how, phase } = one
        const late =
          how === "late" && phase !== "wait"
            ? kmsg.write(
                "err",
                `error shutdown: ${what[phase]} took longer than ${seconds(Machine.deadline(settings, phase, machine.urgency))}, going on without it`,
              )
            : Effect.void
        const ended = entry
        return Effect.andThen(late, ended === undefined ? Effect.void : finish(ended, how))
      }
    }
  }

  const handle = Effect.fnUntraced(function* (input: Machine.Input) {
    const before = machine
    const at = Number((yield* Clock.monotonicTimeNanos) / 1_000_000n)
    const [next, told] = Machine.step(before, input, at)
    if (next === before) return
    if (before.phase === undefined)
      settings = {
        ...settings,
        beforeMs: Math.max(
          0,
          ...[...registered].map(({ deadline }) => Duration.toMillis(Duration.fromInputUnsafe(deadline))),
        ),
      }
    // With the urgency that was, which is what its time was.
    for (const one of told) yield* news(one)
    machine = next
    if (next.urgency !== "ordered") hurried.openUnsafe()
    const wanted = Machine.work(settings, next)
    if (wanted === undefined) return
    const { deadlineMs, phase, whole } = wanted
    if (phase !== before.phase) {
      // Left behind: what cannot be interrupted is not waited for.
      working?.interruptUnsafe()
      yield* start(phase)
    }
    phaseTimer?.interruptUnsafe()
    phaseTimer = Number.isFinite(deadlineMs)
      ? yield* Effect.forkDetach(
          Effect.andThen(Effect.sleep(deadlineMs), tell({ _tag: "TimeIsUp", phase, urgency: next.urgency })),
          { startImmediately: true },
        )
      : undefined
    if (whole && wholeTimer === undefined)
      wholeTimer = yield* Effect.forkDetach(
        Effect.andThen(Effect.sleep(Machine.MARGIN_MS), tell({ _tag: "WholeTimeIsUp" })),
        { startImmediately: true },
      )
  })

  // One after the other, in the fiber that tells the first of them.
  const inputs: Array<Machine.Input> = []
  let handling = false
  const tell = (input: Machine.Input): Effect.Effect<void> =>
    Effect.suspend(() => {
      inputs.push(input)
      if (handling || works === undefined) return Effect.void
      handling = true
      return handleAll
    }).pipe(Effect.uninterruptible)
  const handleAll: Effect.Effect<void> = Effect.suspend(() => {
    const input = inputs.shift()
    if (input === undefined) {
      // Here: before an effect of its own another fiber may tell something that nobody would handle.
      handling = false
      return Effect.void
    }
    return handle(input)
  }).pipe(Effect.repeat({ while: () => handling }))

  const isRequested = () => machine.phase !== undefined || inputs.length > 0

  return {
    shutdown: {
      request: (request) => tell({ _tag: "Requested", request }),
      before: (step) =>
        Effect.acquireRelease(
          Effect.sync(() => void registered.add(step)),
          () => Effect.sync(() => void registered.delete(step)),
        ),
      requested: Effect.sync(isRequested),
      grace: (period) =>
        // Also where resources are released, where nothing else is interruptible.
        Effect.interruptible(
          Effect.raceFirst(
            Effect.interruptible(Effect.sleep(period)),
            Effect.interruptible(Effect.andThen(hurried.await, Effect.sleep(HURRIED_GRACE))),
          ),
        ),
      remark: (text) =>
        Effect.suspend(() => {
          const last = entries.at(-1)
          last?.remarks.push(text)
          return Effect.andThen(
            kmsg.write("warning", `warn shutdown: ${text}`),
            last === undefined ? Effect.void : tellReport,
          )
        }),
    },
    bootFailed: (panicSeconds) =>
      Effect.suspend(() => {
        if (isRequested()) return Effect.void
        waitSeconds = panicSeconds
        const waitMs = panicSeconds === 0 ? Number.POSITIVE_INFINITY : Math.max(0, panicSeconds * 1000)
        settings = { ...settings, waitMs }
        return tell({ _tag: "Requested", request: { action: "RESTART", by: "failed boot" } })
      }),
    waitSeconds: () => waitSeconds,
    wentWrong: () =>
      waitSeconds !== undefined ||
      machine.urgency === "forced" ||
      entries.some(
        ({ name, outcome, remarks }) =>
          outcome === "late" || outcome === "failed" || (name === "mounts" && remarks.length > 0),
      ),
    drive: (work) =>
      Effect.flatMap(Effect.context<never>(), (own) => {
        works = work
        context = own
        if (handling || inputs.length === 0) return Effect.void
        handling = true
        return handleAll
      }).pipe(Effect.uninterruptible, Effect.andThen(Deferred.await(broken))),
  }
})
