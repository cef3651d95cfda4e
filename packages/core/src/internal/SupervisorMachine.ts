/**
 * What supervision decides, as a pure function: {@link step} takes a machine
 * and what happened, and gives the next machine and what is to be done once;
 * {@link activities} says what goes on for as long as the machine stays so.
 * `Supervisor.ts` does both, and nothing else.
 *
 *              start              spawned            ready
 *   Stopped ─────────▶ Starting ──────────▶ Waiting ────────▶ Up
 *      ▲                ▲  │ cannot be         │ dies             │ dies
 *      │  delay is over │  │ spawned           │                  │
 *      │  or restart    │  ▼                   ▼                  ▼
 *      │                └─ BackingOff ◀────────┴──────────────────┤
 *      │                     │     ▲                              │
 *      │◀────────────────────┘     │ ended, for a fault           │
 *      │        stop               │                              │
 *      │                           │    stop, restart, not ready in time, hangs
 *      │      ended, for a stop    │                              ▼
 *      ├───────────────────────────┴────────────────────────── Stopping
 *      │                           │                              │ not in time
 *      │      ended                │                              ▼
 *      └───────────────────────────┴─────────────────────────── Killed
 *
 * A process that ends in Stopping or Killed because a restart was asked for is
 * at once in Starting. Every start is a run with a number of its own; what is
 * told of an earlier run, such as the answer to a question that was asked
 * before its end, changes nothing.
 */
import type { ExitStatus, Signal } from "../Kernel.ts"

/** A {@link "../RestartPolicy.ts"}, its durations in milliseconds. */
export interface Policy {
  readonly initialMs: number
  readonly maximumMs: number
  readonly stableAfterMs: number
}

export interface Settings {
  readonly policy: Policy
  readonly startTimeoutMs: number
  /** What is said of a process that is not ready by then. */
  readonly notReady: string
  readonly stopTimeoutMs: number
  /** Probes in a row that may fail before the process is taken to hang; undefined: it is not probed. */
  readonly liveness: { readonly failures: number } | undefined
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

/** Why a run is being ended. */
type Ending =
  | { readonly for: "stop" | "restart" }
  /** `atOnce`: a restart was asked for meanwhile, so there is no back-off. */
  | { readonly for: "fault"; readonly reason: string; readonly atOnce: boolean }

export interface Machine {
  readonly state: State
  /** Number of the present run, or of the last; 0 before the first. */
  readonly run: number
  /** Deaths in a row. */
  readonly deaths: number
  /** Probes in a row that failed. */
  readonly failures: number
  /** When the run was spawned and when it was up, on the caller's clock. */
  readonly startedAt: number
  readonly upAt: number | undefined
  readonly ending: Ending | undefined
}

/** What can happen. All but the first three are about a run. */
export type Input =
  | { readonly _tag: "Start" }
  | { readonly _tag: "Restart" }
  | { readonly _tag: "Stop" }
  | { readonly _tag: "Spawned"; readonly run: number; readonly pid: number }
  | { readonly _tag: "NotSpawned"; readonly run: number; readonly reason: string }
  | { readonly _tag: "Ready"; readonly run: number }
  | { readonly _tag: "NotReady"; readonly run: number; readonly reason: string }
  | { readonly _tag: "ProbePassed"; readonly run: number }
  | { readonly _tag: "ProbeFailed"; readonly run: number; readonly reason: string }
  | {
      readonly _tag: "Exited"
      readonly run: number
      readonly status: ExitStatus
      readonly oomKilled: boolean
    }
  | { readonly _tag: "TimeIsUp"; readonly run: number; readonly timer: Timer }

export type Timer = "start" | "stop" | "kill" | "back-off"

/** What is told of, with what only the machine knows. */
export type News =
  | { readonly _tag: "Started"; readonly pid: number }
  | { readonly _tag: "Ready"; readonly pid: number; readonly afterMs: number }
  | {
      readonly _tag: "Unresponsive"
      readonly pid: number
      readonly failures: number
      readonly reason: string
    }
  /** It did not end in time after SIGTERM. */
  | { readonly _tag: "Killing"; readonly pid: number }
  /** It did not end in time after SIGKILL. */
  | { readonly _tag: "Unkillable"; readonly pid: number }
  | {
      readonly _tag: "Ended"
      /** Undefined when it could not be spawned. */
      readonly status: ExitStatus | undefined
      /** The kernel ended it, for want of memory. */
      readonly oomKilled: boolean
      readonly pid: number | undefined
      /** As asked: no death. */
      readonly wanted: boolean
      readonly reason: string
      readonly ranForMs: number
      readonly deaths: number
      /** When it is started again; undefined when it is not. */
      readonly nextStartInMs: number | undefined
    }
  | { readonly _tag: "Stopped" }

/** What is to be done, once. */
export type Command =
  | { readonly _tag: "Signal"; readonly run: number; readonly pid: number; readonly signal: Signal }
  | { readonly _tag: "Tell"; readonly run: number; readonly news: News }

/** What goes on while a machine is as it is; the same key is the same activity. */
export type Activity = { readonly key: string; readonly run: number } & (
  | { readonly _tag: "Spawn" | "AwaitExit" | "AwaitReady" | "Probe" }
  | { readonly _tag: "Timer"; readonly timer: Timer; readonly ms: number }
)

/** What a decision may depend on but the machine. */
export interface Moment {
  /** Milliseconds, of a clock that does not go back. */
  readonly now: number
  /** 0 to 1. */
  readonly random: number
}

export const initial: Machine = {
  state: { _tag: "Stopped" },
  run: 0,
  deaths: 0,
  failures: 0,
  startedAt: 0,
  upAt: undefined,
  ending: undefined,
}

export const describeExit = (status: ExitStatus): string =>
  status._tag === "Exited" ? `exit code ${status.code}` : `signal ${status.signal}`

interface Exit {
  readonly status: ExitStatus
  readonly oomKilled: boolean
  readonly pid: number
}

/** The delay after that many deaths in a row: doubled each time up to the cap, with 80 % to 120 % of jitter. */
export const backOff = (policy: Policy, deaths: number, random: number): number =>
  // 2 ** 1023 is the last finite one; the cap is reached long before.
  Math.min(policy.initialMs * 2 ** Math.min(Math.max(deaths, 1) - 1, 64), policy.maximumMs) *
  (0.8 + 0.4 * random)

type Result = readonly [Machine, ReadonlyArray<Command>]

const tell = (machine: Machine, news: News): Command => ({ _tag: "Tell", run: machine.run, news })

const startRun = (machine: Machine, now: number): Machine => ({
  ...machine,
  state: { _tag: "Starting" },
  run: machine.run + 1,
  failures: 0,
  startedAt: now,
  upAt: undefined,
  ending: undefined,
})

// SIGCONT, because a process that is stopped does nothing about SIGTERM before it goes on; see systemd.kill(5).
const endRun = (machine: Machine, pid: number, ending: Ending, news: ReadonlyArray<News> = []): Result => {
  const next: Machine = { ...machine, state: { _tag: "Stopping", pid }, ending }
  return [
    next,
    [
      ...news.map((one) => tell(next, one)),
      { _tag: "Signal", run: next.run, pid, signal: "SIGTERM" },
      { _tag: "Signal", run: next.run, pid, signal: "SIGCONT" },
    ],
  ]
}

/** The run is over: there is no process any more. */
const ended = (
  settings: Settings,
  machine: Machine,
  { now, random }: Moment,
  how: Exit | { readonly failure: string },
): Result => {
  const { ending } = machine
  const exit = "failure" in how ? undefined : how
  const news = {
    _tag: "Ended",
    status: exit?.status,
    oomKilled: exit?.oomKilled ?? false,
    pid: exit?.pid,
    ranForMs: now - machine.startedAt,
  } as const
  const cause =
    "failure" in how
      ? how.failure
      : `${describeExit(how.status)}${how.oomKilled ? ", by the kernel for want of memory" : ""}`
  if (ending?.for === "stop") {
    const next: Machine = { ...machine, state: { _tag: "Stopped" }, deaths: 0 }
    return [
      next,
      [
        tell(next, { ...news, wanted: true, reason: cause, deaths: 0, nextStartInMs: undefined }),
        tell(next, { _tag: "Stopped" }),
      ],
    ]
  }
  if (ending?.for === "restart" && exit !== undefined) {
    const told = tell(machine, { ...news, wanted: true, reason: cause, deaths: 0, nextStartInMs: 0 })
    return [startRun({ ...machine, deaths: 0 }, now), [told]]
  }
  // Not being ready is no sign of health, however long it lasts.
  const stable = machine.upAt !== undefined && now - machine.upAt >= settings.policy.stableAfterMs
  const deaths = stable ? 1 : machine.deaths + 1
  const atOnce = ending?.for === "restart" || (ending?.for === "fault" && ending.atOnce)
  const delayMs = atOnce ? 0 : backOff(settings.policy, deaths, random)
  const reason = ending?.for === "fault" ? ending.reason : cause
  const dead: Machine = { ...machine, deaths }
  const told = tell(dead, { ...news, wanted: false, reason, deaths, nextStartInMs: delayMs })
  if (atOnce) return [startRun(dead, now), [told]]
  return [{ ...dead, state: { _tag: "BackingOff", delayMs } }, [told]]
}

/** What becomes of a machine, and what is to be done about it, in order. */
export const step = (settings: Settings, machine: Machine, input: Input, moment: Moment): Result => {
  const same: Result = [machine, []]
  if ("run" in input && input.run !== machine.run) return same
  const { state } = machine
  switch (state._tag) {
    case "Stopped":
      return input._tag === "Start" ? [startRun(machine, moment.now), []] : same

    case "Starting":
      switch (input._tag) {
        case "Spawned": {
          const { pid } = input
          const spawned: Machine = { ...machine, state: { _tag: "Waiting", pid } }
          const { ending } = machine
          if (ending !== undefined) return endRun(spawned, pid, ending, [{ _tag: "Started", pid }])
          return [spawned, [tell(spawned, { _tag: "Started", pid })]]
        }
        case "NotSpawned":
          return ended(settings, machine, moment, { failure: `could not be started: ${input.reason}` })
        case "Stop":
          return [{ ...machine, ending: { for: "stop" } }, []]
        // Restart: it is as new as can be.
        default:
          return same
      }

    case "Waiting":
    case "Up": {
      const { pid } = state
      const fault = (reason: string, news: ReadonlyArray<News> = []) =>
        endRun(machine, pid, { for: "fault", reason, atOnce: false }, news)
      switch (input._tag) {
        case "Exited":
          return ended(settings, machine, moment, { ...input, pid })
        case "Stop":
          return endRun(machine, pid, { for: "stop" })
        case "Restart":
          return endRun(machine, pid, { for: "restart" })
        case "Ready": {
          if (state._tag === "Up") return same
          const up: Machine = { ...machine, state: { _tag: "Up", pid }, upAt: moment.now }
          return [up, [tell(up, { _tag: "Ready", pid, afterMs: moment.now - machine.startedAt })]]
        }
        case "TimeIsUp":
          return state._tag === "Up" || input.timer !== "start" ? same : fault(settings.notReady)
        case "NotReady":
          return state._tag === "Up" ? same : fault(input.reason)
        case "ProbePassed":
          return machine.failures === 0 ? same : [{ ...machine, failures: 0 }, []]
        case "ProbeFailed": {
          if (state._tag !== "Up" || settings.liveness === undefined) return same
          const failures = machine.failures + 1
          if (failures < settings.liveness.failures) return [{ ...machine, failures }, []]
          return fault(`unresponsive: ${input.reason}`, [
            { _tag: "Unresponsive", pid, failures, reason: input.reason },
          ])
        }
        default:
          return same
      }
    }

    case "Stopping":
    case "Killed": {
      const { pid } = state
      switch (input._tag) {
        case "Exited":
          return ended(settings, machine, moment, { ...input, pid })
        case "Stop":
          return [{ ...machine, ending: { for: "stop" } }, []]
        case "Restart":
          return machine.ending?.for === "fault"
            ? [{ ...machine, ending: { ...machine.ending, atOnce: true } }, []]
            : same
        case "TimeIsUp": {
          if (input.timer === "kill" && state._tag === "Killed")
            return [machine, [tell(machine, { _tag: "Unkillable", pid })]]
          if (input.timer !== "stop" || state._tag === "Killed") return same
          const killed: Machine = { ...machine, state: { _tag: "Killed", pid } }
          return [
            killed,
            [
              tell(killed, { _tag: "Killing", pid }),
              { _tag: "Signal", run: machine.run, pid, signal: "SIGKILL" },
            ],
          ]
        }
        default:
          return same
      }
    }

    case "BackingOff":
      switch (input._tag) {
        case "Stop": {
          const next: Machine = { ...machine, state: { _tag: "Stopped" }, deaths: 0 }
          return [next, [tell(next, { _tag: "Stopped" })]]
        }
        case "Restart":
          return [startRun(machine, moment.now), []]
        case "TimeIsUp":
          return input.timer === "back-off" ? [startRun(machine, moment.now), []] : same
        default:
          return same
      }
  }
}

/** What goes on in this state: while the list has an activity's key, it is going on or it has ended. */
export const activities = (settings: Settings, { run, state }: Machine): ReadonlyArray<Activity> => {
  const simple = (tag: "Spawn" | "AwaitExit" | "AwaitReady" | "Probe"): Activity => ({
    _tag: tag,
    key: `${tag} ${run}`,
    run,
  })
  const timer = (name: Timer, ms: number): Activity => ({
    _tag: "Timer",
    key: `${name} timer ${run}`,
    run,
    timer: name,
    ms,
  })
  switch (state._tag) {
    case "Stopped":
      return []
    case "Starting":
      return [simple("Spawn")]
    case "Waiting":
      return [simple("AwaitExit"), simple("AwaitReady"), timer("start", settings.startTimeoutMs)]
    case "Up":
      return [simple("AwaitExit"), ...(settings.liveness === undefined ? [] : [simple("Probe")])]
    case "Stopping":
      return [simple("AwaitExit"), timer("stop", settings.stopTimeoutMs)]
    case "Killed":
      // It waits in the kernel, for a disk perhaps; SIGKILL stays pending.
      return [simple("AwaitExit"), timer("kill", settings.stopTimeoutMs)]
    case "BackingOff":
      return [timer("back-off", state.delayMs)]
  }
}
