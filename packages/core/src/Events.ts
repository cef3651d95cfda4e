/**
 * What happens to whom while a node lives: processes that start, hang, end and
 * come back, stages that fail, modules and manifests that are refused. Each
 * event is numbered, told in the kernel log with a severity, given to whoever
 * listens, and kept, the last {@link KEPT} of them in `/run/kios/events.json`.
 *
 * The numbers have no gaps. Each run of a process has one `process-started`
 * and one `process-ended`, so that a reader who has missed some knows from
 * `processes`, which counts them all, what there was to see.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { formatAttributes } from "./internal/attributes.ts"
import { Kernel } from "./Kernel.ts"
import { Kmsg, labelOf, type Severity } from "./Kmsg.ts"
import type { Criticality } from "./Stage.ts"

/** What happened. `process` is a supervised process by its name, `run` the number of its start, from 1. */
export type Event =
  | {
      readonly kind: "process-started"
      readonly process: string
      readonly run: number
      readonly pid: number
    }
  | {
      readonly kind: "process-ready"
      readonly process: string
      readonly run: number
      readonly pid: number
      /** Since it was started. */
      readonly afterMs: number
    }
  | {
      readonly kind: "process-unresponsive"
      readonly process: string
      readonly run: number
      readonly pid: number
      /** Probes in a row that failed, and what the last one said. */
      readonly failures: number
      readonly reason: string
    }
  | {
      /** It did not end in time after SIGTERM, so SIGKILL was sent. */
      readonly kind: "process-killed"
      readonly process: string
      readonly run: number
      readonly pid: number
      readonly afterMs: number
    }
  | {
      /** Not even SIGKILL ended it in time: it waits in the kernel. */
      readonly kind: "process-unkillable"
      readonly process: string
      readonly run: number
      readonly pid: number
      readonly afterMs: number
    }
  | {
      readonly kind: "process-ended"
      readonly process: string
      readonly run: number
      /** Null when it could not be started. */
      readonly pid: number | null
      /** Either its exit code or the signal that ended it; both null when it could not be started. */
      readonly exitCode: number | null
      readonly signal: string | null
      /** The signal was the kernel's, which was short of memory. */
      readonly oomKilled: boolean
      /** It was asked to end, to be stopped or started again. */
      readonly wanted: boolean
      readonly reason: string
      readonly ranForMs: number
      /** How often in a row it has ended without being asked to. */
      readonly deaths: number
      /** Null when it is not started again. */
      readonly nextStartInMs: number | null
      /** The last it wrote, oldest first. */
      readonly lastLines: ReadonlyArray<string>
    }
  | { readonly kind: "process-stopped"; readonly process: string }
  | {
      /** It wrote more than is kept. */
      readonly kind: "output-dropped"
      readonly process: string
      readonly bytes: number
    }
  | {
      readonly kind: "stage-failed"
      readonly stage: string
      readonly criticality: Criticality
      readonly reason: string
    }
  | { readonly kind: "stage-skipped"; readonly stage: string; readonly reason: string }
  | { readonly kind: "module-refused"; readonly module: string; readonly reason: string }
  | { readonly kind: "manifest-error"; readonly file: string; readonly reason: string }
  | {
      /** A file of the node's owner, or a part of it, that is not used. */
      readonly kind: "config-error"
      readonly file: string
      /** Null when it is about the whole file. */
      readonly line: number | null
      readonly reason: string
    }
  | {
      /** Whatever else a stage has to tell. */
      readonly kind: "note"
      readonly source: string
      readonly level: Severity
      readonly message: string
    }

/** The names of all {@link Event}s. */
export type Kind = Event["kind"]

/** What is added to an event when it is recorded. */
export interface Stamp {
  /** 1 for the first since init started; no gaps. */
  readonly sequence: number
  /** Milliseconds since the kernel started. */
  readonly atMs: number
  /** The same moment by the machine's clock, as in ISO 8601; it jumps when the clock is set. */
  readonly time: string
  readonly severity: Severity
}

/** An event as it is kept. */
export type Recorded = Stamp & Event

/** What has happened to one process since init started. */
export interface ProcessTotals {
  readonly process: string
  /** Null while it does not run. */
  readonly pid: number | null
  /** Runs, and those that have ended: by themselves, as they were asked to, or not even begun. */
  readonly starts: number
  readonly deaths: number
  readonly wantedEnds: number
  readonly failedStarts: number
  /** How often it was found to hang. */
  readonly unresponsive: number
}

/**
 * The events as data, as they stand in `/run/kios/events.json`. Readers decode
 * it with `@kios/core/EventRecord`.
 */
export interface EventRecord {
  readonly version: 1
  /** The clock of `atMs` and the durations; see clock_gettime(2). */
  readonly clock: "CLOCK_MONOTONIC"
  /** How many events there were; all but the last are no longer in `events`. */
  readonly total: number
  readonly processes: ReadonlyArray<ProcessTotals>
  readonly events: ReadonlyArray<Recorded>
}

/** The operations behind {@link Events}. */
export interface EventsShape {
  /** Records an event and tells it in the kernel log. */
  readonly publish: (event: Event) => Effect.Effect<void>
  /** Records an event that its publisher has told in words of its own. */
  readonly record: (event: Event) => Effect.Effect<void>
  /** What is kept. */
  readonly current: Effect.Effect<EventRecord>
  /** Waits until there has been an event since the last time this was asked. */
  readonly changed: Effect.Effect<void>
  /** Calls `listener`, which must not throw, with every event until the scope closes; as a stream: {@link "./EventStream.ts"}. */
  readonly listen: (listener: (event: Recorded) => void) => Effect.Effect<void, never, Scope.Scope>
}

/**
 * How many events are kept.
 *
 * @example
 * ```ts
 * import { KEPT } from "@kios/core/Events"
 *
 * const missed = (total: number) => Math.max(0, total - KEPT)
 * ```
 */
export const KEPT = 256
// Of the last lines of a process: enough to see why, and bounded in the file.
const KEPT_LINES = 5
const MAX_TEXT = 400
// Processes are what stages supervise, a handful; a stage that makes up names must not fill the file.
const MAX_PROCESSES = 64

const cut = (text: string) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}...` : text)

/**
 * How severe an event is, as in syslog(3).
 *
 * @example
 * ```ts
 * import * as Events from "@kios/core/Events"
 *
 * Events.severityOf({ kind: "process-stopped", process: "containerd" }) // "info"
 * ```
 */
export const severityOf = (event: Event): Severity => {
  switch (event.kind) {
    // The first start is a milestone of the boot, which is told as such.
    case "process-started":
    case "process-ready":
      return event.run === 1 ? "debug" : "info"
    case "process-stopped":
      return "info"
    case "process-ended":
      return event.wanted ? "info" : "err"
    case "process-unresponsive":
    case "process-unkillable":
    case "manifest-error":
    case "config-error":
      return "err"
    case "process-killed":
    case "output-dropped":
    case "stage-skipped":
    case "module-refused":
      return "warning"
    case "stage-failed":
      return event.criticality === "required" ? "err" : "warning"
    case "note":
      return event.level
  }
}

/**
 * An event in words, a line each, the most important first.
 *
 * @example
 * ```ts
 * import * as Events from "@kios/core/Events"
 *
 * Events.describe({ kind: "process-started", process: "kubelet", run: 2, pid: 812 })
 * // ["kubelet: started (run 2, pid 812)"]
 * ```
 */
export const describe = (event: Event): ReadonlyArray<string> => {
  const ms = (value: number) => `${value.toFixed(0)} ms`
  switch (event.kind) {
    case "process-started":
      return [`${event.process}: started (run ${event.run}, pid ${event.pid})`]
    case "process-ready":
      return [`${event.process}: ready after ${ms(event.afterMs)} (run ${event.run})`]
    case "process-unresponsive":
      return [
        `${event.process}: unresponsive: ${event.failures} probes failed in a row: ${event.reason}: ending it`,
      ]
    case "process-killed":
      return [`${event.process}: did not end within ${ms(event.afterMs)} of SIGTERM: killing it`]
    case "process-unkillable":
      return [
        `${event.process}: pid ${event.pid} did not end within ${ms(event.afterMs)} of SIGKILL: it waits in the kernel, for a disk perhaps`,
      ]
    case "process-ended": {
      if (event.wanted)
        return [
          `${event.process}: ended as asked with ${event.reason} after ${ms(event.ranForMs)}${event.nextStartInMs === null ? "" : ", starting it again"}`,
        ]
      const next = event.nextStartInMs === null ? "" : `, starting again in ${ms(event.nextStartInMs)}`
      return [
        `${event.process}: ended with ${event.reason} after ${ms(event.ranForMs)} (death ${event.deaths} in a row)${next}`,
        ...event.lastLines.slice(-3).map((line) => `${event.process}: said: ${line}`),
      ]
    }
    case "process-stopped":
      return [`${event.process}: stopped`]
    case "output-dropped":
      return [`${event.process}: wrote more than is kept: ${event.bytes} bytes of output dropped`]
    case "stage-failed":
      return [`stage ${event.stage} failed: ${event.reason}`]
    case "stage-skipped":
      return [`stage ${event.stage} skipped: ${event.reason}`]
    case "module-refused":
      return [`module ${event.module} was not loaded: ${event.reason}`]
    case "manifest-error":
      return [`kubelet: manifest-error ${formatAttributes({ file: event.file, reason: event.reason })}`]
    case "config-error":
      return [`${event.file}${event.line === null ? "" : `:${event.line}`}: ${event.reason}`]
    case "note":
      return [`${event.source}: ${event.message}`]
  }
}

const count = (totals: ProcessTotals, event: Event): ProcessTotals => {
  switch (event.kind) {
    case "process-started":
      return { ...totals, pid: event.pid, starts: totals.starts + 1 }
    case "process-unresponsive":
      return { ...totals, unresponsive: totals.unresponsive + 1 }
    case "process-ended": {
      const what = event.pid === null ? "failedStarts" : event.wanted ? "wantedEnds" : "deaths"
      return { ...totals, pid: null, [what]: totals[what] + 1 }
    }
    default:
      return totals
  }
}

const none = { pid: null, starts: 0, deaths: 0, wantedEnds: 0, failedStarts: 0, unresponsive: 0 }

const bounded = (event: Event): Event => {
  if (event.kind === "process-ended")
    return {
      ...event,
      reason: cut(event.reason),
      lastLines: event.lastLines.slice(-KEPT_LINES).map(cut),
    }
  if (event.kind === "note") return { ...event, message: cut(event.message) }
  return "reason" in event ? { ...event, reason: cut(event.reason) } : event
}

/**
 * The node's events, as a service.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Events } from "@kios/core/Events"
 *
 * const tell = Effect.gen(function* () {
 *   const events = yield* Events
 *   yield* events.publish({ kind: "note", source: "disk", level: "notice", message: "grown to 8 GiB" })
 * })
 * ```
 */
export class Events extends Context.Service<Events, EventsShape>()("kios/Events") {
  /** Keeps events in memory and tells them to {@link Kmsg}. */
  static readonly layer: Layer.Layer<Events, never, Kernel | Kmsg> = Layer.effect(
    Events,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const kmsg = yield* Kmsg
      const dirty = yield* Latch.make(false)
      const listeners = new Set<(event: Recorded) => void>()
      const kept: Array<Recorded> = []
      const processes = new Map<string, ProcessTotals>()
      let total = 0

      const record = (event: Event) =>
        Effect.gen(function* () {
          const atMs = Number((yield* kernel.monotonic) / 1000n) / 1000
          const time = new Date(yield* Clock.currentTimeMillis).toISOString()
          const recorded: Recorded = {
            sequence: ++total,
            atMs,
            time,
            severity: severityOf(event),
            ...bounded(event),
          }
          kept.push(recorded)
          if (kept.length > KEPT) kept.shift()
          if ("process" in event && (processes.has(event.process) || processes.size < MAX_PROCESSES))
            processes.set(
              event.process,
              count(processes.get(event.process) ?? { process: event.process, ...none }, event),
            )
          dirty.openUnsafe()
          for (const listener of listeners) listener(recorded)
        })

      return Events.of({
        record,
        publish: (event) =>
          Effect.suspend(() => {
            const severity = severityOf(event)
            if (kmsg.logs(severity))
              for (const line of describe(event)) kmsg.writeUnsafe(severity, labelOf(severity) + line)
            return record(event)
          }),
        current: Effect.sync(() => ({
          version: 1,
          clock: "CLOCK_MONOTONIC",
          total,
          processes: [...processes.values()],
          events: [...kept],
        })),
        changed: Effect.andThen(dirty.await, dirty.close),
        listen: (listener) =>
          Effect.asVoid(
            Effect.acquireRelease(
              // Its own object: the same function may listen twice.
              Effect.sync(() => {
                const own = (event: Recorded) => listener(event)
                listeners.add(own)
                return own
              }),
              (own) => Effect.sync(() => listeners.delete(own)),
            ),
          ),
      })
    }),
  )
}
