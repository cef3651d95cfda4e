/**
 * Boots an EFI and watches it until it has reached a goal: {@link boot} for
 * tests that go on using the machine, {@link runUntil} for a command that shows
 * progress and ends with a verdict.
 */
import { Cause, Duration, Effect, Exit, Queue, type Scope, Stream } from "effect"
import * as fs from "node:fs"
import { explain, type ExplainContext, type RunEnd } from "./Explain.ts"
import { type Goal, MilestoneParser, missingOf, type VmEvent } from "./Milestones.ts"
import * as Qemu from "./Qemu.ts"
import * as Timeline from "./Timeline.ts"
import type { VmError } from "./VmError.ts"

/** What {@link boot} takes. */
export interface BootOptions extends Qemu.StartOptions {
  /** Silence of the console after which `Stalled` is reported. Default 15 seconds. */
  readonly stallAfter?: Duration.Input
}

/** What {@link runUntil} and {@link run} take. */
export interface RunOptions extends BootOptions {
  readonly until: Goal
  /** From power-on. Default 5 minutes. */
  readonly timeout?: Duration.Input
}

/** What happens during a run, in order. */
export type Progress =
  /** The machine is switched on. */
  | { readonly _tag: "Started"; readonly vm: Qemu.Qemu }
  /** Firmware, kernel, stages, milestones, warnings; `seconds` are since power-on. */
  | { readonly _tag: "Event"; readonly event: VmEvent; readonly seconds: number }
  /** The console has been silent; reported once for each silence. */
  | { readonly _tag: "Stalled"; readonly silentSeconds: number; readonly lastLine: string }
  /** The end of the stream. */
  | { readonly _tag: "Finished"; readonly result: RunResult }

/** A run's verdict. */
export interface RunResult {
  readonly reached: boolean
  /** Why not, and what to do: one sentence. Absent when reached. */
  readonly reason?: string
  /** What of the goal was not seen. */
  readonly missing: ReadonlyArray<string>
  readonly timeline: Timeline.Timeline
  readonly events: ReadonlyArray<VmEvent>
  /** Seconds from power-on to the verdict. */
  readonly seconds: number
  /** The console's last lines. */
  readonly tail: ReadonlyArray<string>
}

/** A machine that is being watched. */
export interface Machine {
  readonly vm: Qemu.Qemu
  /** Everything so far, then everything that follows; ends when the machine has ended. */
  readonly progress: Stream.Stream<Progress>
  /** The events so far. */
  readonly events: () => ReadonlyArray<VmEvent>
  /**
   * Waits until everything of the goal was seen, the machine has ended or can go
   * no further (panic, firmware's shell, failed boot), or `timeout` (from now)
   * has passed. The machine stays on. Never fails: the verdict says.
   */
  readonly until: (goal: Goal, options?: { readonly timeout?: Duration.Input }) => Effect.Effect<RunResult>
}

/** Events kept: a guest in a crash loop must not fill our memory. */
const eventsKept = 20_000
/** How long the console may go on after a panic or the like, so that the reason is complete, ms. */
const settleMs = 1500
const tailLines = 40

/** After these a machine goes nowhere, unless it is reset. */
const isFinal = (event: VmEvent): boolean =>
  event._tag === "KernelPanic" ||
  event._tag === "FirmwareShell" ||
  event._tag === "BootFailed" ||
  (event._tag === "SystemStopping" && event.action !== "restart")

const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))
const secondsBetween = (from: bigint, to: bigint): number => Number(to - from) / 1e9

const sizeOf = (file: string): number | undefined => {
  try {
    return fs.statSync(file).size
  } catch {
    return undefined
  }
}

/**
 * Switches a machine on and watches it while the scope is open. Fails as
 * {@link Qemu.start} does.
 *
 * @example
 * ```ts
 * import * as VmRun from "@kios/distro/vm/VmRun"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const machine = yield* VmRun.boot({ efi: "kios.efi", boot: "kernel", memoryMiB: 1536 })
 *   return yield* machine.until({ milestones: ["kubelet-healthy"] }, { timeout: "2 minutes" })
 * }).pipe(Effect.scoped)
 * ```
 */
export const boot = (options: BootOptions): Effect.Effect<Machine, VmError, Scope.Scope> =>
  Effect.map(watch(options), ({ machine }) => machine)

/** Gets what happens the moment it happens, so that order is kept; `undefined` is the end. */
type Listener = (progress: Progress | undefined) => void

const watch = Effect.fnUntraced(function* (
  options: BootOptions,
): Effect.fn.Return<
  { readonly machine: Machine; readonly listen: (listener: Listener) => () => void },
  VmError,
  Scope.Scope
> {
  const vm = yield* Qemu.start(options)
  const efiBytes = options.efi === undefined ? undefined : sizeOf(options.efi)
  const facts: ExplainContext = {
    memoryMiB: options.memoryMiB ?? 1024,
    ...(efiBytes === undefined ? {} : { efiBytes }),
  }
  const history: Array<Progress> = [{ _tag: "Started", vm }]
  const events: Array<VmEvent> = []
  const listeners = new Set<Listener>()
  let starts = 0
  let stopped: string | undefined
  let over = false

  const publish = (progress: Progress) => {
    if (history.length < eventsKept) history.push(progress)
    for (const listener of listeners) listener(progress)
  }
  /** The listener gets the past at once. */
  const listen = (listener: Listener) => {
    for (const one of history) listener(one)
    if (over) listener(undefined)
    else listeners.add(listener)
    return () => {
      listeners.delete(listener)
    }
  }
  const parser = new MilestoneParser()
  const watchConsole = vm.console.lines.pipe(
    Stream.runForEach((line) =>
      Effect.sync(() => {
        for (const event of parser.push(line)) {
          // What the emulator broke did not happen.
          if (event._tag === "KernelStarted" && starts++ > 0 && starts - 1 <= vm.mended.resets())
            events.length = 0
          if (events.length < eventsKept) events.push(event)
          publish({ _tag: "Event", event, seconds: secondsBetween(vm.startedAt, event.at) })
        }
      }),
    ),
    Effect.andThen(vm.exit),
    Effect.andThen(
      Effect.sync(() => {
        over = true
        for (const listener of listeners) listener(undefined)
      }),
    ),
  )

  const stallMs = Math.max(1, millis(options.stallAfter ?? "15 seconds"))
  const watchSilence = Effect.gen(function* () {
    let reported = -1n
    for (;;) {
      const lastByteAt = vm.console.lastByteAt() > vm.startedAt ? vm.console.lastByteAt() : vm.startedAt
      const silent = secondsBetween(lastByteAt, process.hrtime.bigint()) * 1000
      if (silent >= stallMs && reported !== lastByteAt) {
        reported = lastByteAt
        const lastLine = vm.console.pending() || vm.console.tail(1)[0]?.text || "(nothing yet)"
        publish({ _tag: "Stalled", silentSeconds: Math.round(silent / 100) / 10, lastLine })
      }
      yield* Effect.sleep(Math.max(10, silent >= stallMs ? Math.min(stallMs, 1000) : stallMs - silent))
    }
  })

  // QEMU stops a guest that it cannot run any further.
  const watchStops = vm.qmp.events.pipe(
    Stream.filter((event) => event.event === "STOP"),
    Stream.runForEach(() =>
      vm.qmp.queryStatus.pipe(
        Effect.map(({ status }) => {
          if (status === "internal-error" || status === "io-error") stopped = status
        }),
        Effect.ignore,
      ),
    ),
  )

  for (const watcher of [watchConsole, watchSilence, watchStops])
    yield* Effect.forkScoped(
      watcher.pipe(
        Effect.tapCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : Effect.logError("watching the machine failed", cause),
        ),
      ),
    )

  const progress: Stream.Stream<Progress> = Stream.unwrap(
    Effect.gen(function* () {
      const queue = yield* Queue.unbounded<Progress, Cause.Done>()
      const unlisten = listen((one) => {
        if (one === undefined) Queue.endUnsafe(queue)
        else Queue.offerUnsafe(queue, one)
      })
      yield* Effect.addFinalizer(() => Effect.sync(unlisten))
      return Stream.fromQueue(queue)
    }),
  )

  const verdict = (goal: Goal, end: RunEnd | undefined): RunResult => {
    const missing = missingOf(goal, events)
    const tail = vm.console.tail(tailLines).map((line) => line.text)
    const lastLine = vm.console.pending() || tail.at(-1)
    const reached = end === undefined
    return {
      reached,
      ...(reached
        ? {}
        : {
            reason: explain(events, end, {
              ...facts,
              missing,
              ...(lastLine === undefined ? {} : { lastLine }),
            }),
          }),
      missing,
      timeline: Timeline.fromEvents(events, vm.startedAt),
      events: [...events],
      seconds: secondsBetween(vm.startedAt, process.hrtime.bigint()),
      tail,
    }
  }

  const ended = (): RunEnd | undefined => {
    const exit = vm.exited()
    return exit === undefined ? undefined : { _tag: "Exited", ...exit }
  }

  /** Looks at the events and at the machine until there is something to say. */
  const decide = Effect.fnUntraced(function* (goal: Goal) {
    let final: bigint | undefined
    for (;;) {
      if (missingOf(goal, events).length === 0) return verdict(goal, undefined)
      const exit = ended()
      if (exit !== undefined && over) return verdict(goal, exit)
      if (stopped !== undefined) return verdict(goal, { _tag: "Stopped", status: stopped })
      // A reset takes a panic back, unless nothing comes after it.
      const start = events.findLastIndex((event) => event._tag === "KernelStarted")
      const last = vm.mended.recovering() ? undefined : events.slice(Math.max(0, start)).find(isFinal)
      final = last === undefined ? undefined : (final ?? process.hrtime.bigint())
      if (final !== undefined && Number(process.hrtime.bigint() - final) / 1e6 >= settleMs)
        return verdict(goal, ended() ?? { _tag: "Halted" })
      yield* Effect.sleep(25)
    }
  })

  const machine: Machine = {
    vm,
    progress,
    events: () => [...events],
    until: (goal, o = {}) => {
      const timeout = o.timeout ?? "5 minutes"
      return decide(goal).pipe(
        Effect.timeoutOrElse({
          duration: Math.max(1, millis(timeout)),
          orElse: () =>
            Effect.sync(() =>
              verdict(goal, ended() ?? { _tag: "TimedOut", seconds: Math.round(millis(timeout) / 100) / 10 }),
            ),
        }),
      )
    },
  }
  return { machine, listen }
})

/**
 * Boots, shows everything that happens and ends with `Finished`; the machine is
 * switched off with the stream. The guest's reset ends the run unless
 * `noReboot: false` is given. Fails as {@link Qemu.start} does; a goal that is
 * not reached is no failure but a result.
 *
 * @example
 * ```ts
 * import * as VmRun from "@kios/distro/vm/VmRun"
 * import { Console, Stream } from "effect"
 *
 * const program = VmRun.runUntil({
 *   efi: "kios.efi",
 *   boot: "kernel",
 *   memoryMiB: 1536,
 *   until: { pods: ["default/hello"] },
 *   timeout: "2 minutes",
 * }).pipe(Stream.runForEach((progress) => Console.log(progress._tag)))
 * ```
 */
export const runUntil = (options: RunOptions): Stream.Stream<Progress, VmError> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const { listen, machine } = yield* watch({ noReboot: true, ...options })
      const queue = yield* Queue.unbounded<Progress, Cause.Done>()
      const unlisten = listen((one) => {
        if (one !== undefined) Queue.offerUnsafe(queue, one)
      })
      yield* Effect.forkScoped(
        machine.until(options.until, { timeout: options.timeout ?? "5 minutes" }).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              unlisten()
              if (Exit.isSuccess(exit)) {
                Queue.offerUnsafe(queue, { _tag: "Finished", result: exit.value })
                Queue.endUnsafe(queue)
              } else Queue.failCauseUnsafe(queue, exit.cause)
            }),
          ),
        ),
      )
      return Stream.fromQueue(queue)
    }),
  )

/**
 * {@link runUntil} for those who want the verdict, with a look at the progress.
 *
 * @example
 * ```ts
 * import * as VmRun from "@kios/distro/vm/VmRun"
 * import { Console, Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { reached, reason } = yield* VmRun.run(
 *     { efi: "kios.efi", boot: "kernel", memoryMiB: 1536, until: { milestones: ["boot-complete"] } },
 *     (progress) => Console.log(progress._tag),
 *   )
 *   return reached ? "up" : reason
 * })
 * ```
 */
export const run = Effect.fnUntraced(function* (
  options: RunOptions,
  onProgress: (progress: Progress) => Effect.Effect<void> = () => Effect.void,
): Effect.fn.Return<RunResult, VmError> {
  let result: RunResult | undefined
  yield* Stream.runForEach(runUntil(options), (progress) => {
    if (progress._tag === "Finished") result = progress.result
    return onProgress(progress)
  })
  return result ?? (yield* Effect.die(new Error("the run ended without a verdict")))
})
