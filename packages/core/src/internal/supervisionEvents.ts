/** What is told of supervision: the machine's news as events. */
import type { Event } from "../Events.ts"
import type { Death } from "../Supervisor.ts"
import type * as Machine from "./SupervisorMachine.ts"

/** What the machine does not know. */
interface Told {
  readonly process: string
  readonly run: number
  readonly stopTimeoutMs: number
  /** The last it wrote. */
  readonly lines: ReadonlyArray<string>
}

/** The event that tells of it. */
export const eventOf = ({ lines, process, run, stopTimeoutMs }: Told, news: Machine.News): Event => {
  const about = { process, run }
  switch (news._tag) {
    case "Started":
      return { kind: "process-started", ...about, pid: news.pid }
    case "Ready":
      return { kind: "process-ready", ...about, pid: news.pid, afterMs: news.afterMs }
    case "Unresponsive": {
      const { failures, pid, reason } = news
      return { kind: "process-unresponsive", ...about, pid, failures, reason }
    }
    case "Killing":
      return { kind: "process-killed", ...about, pid: news.pid, afterMs: stopTimeoutMs }
    case "Unkillable":
      return { kind: "process-unkillable", ...about, pid: news.pid, afterMs: stopTimeoutMs }
    case "Ended": {
      const { deaths, nextStartInMs, oomKilled, pid, ranForMs, reason, status, wanted } = news
      return {
        kind: "process-ended",
        ...about,
        pid: pid ?? null,
        exitCode: status?._tag === "Exited" ? status.code : null,
        signal: status?._tag === "Signaled" ? status.signal : null,
        oomKilled,
        wanted,
        reason,
        ranForMs,
        deaths,
        nextStartInMs: nextStartInMs ?? null,
        lastLines: [...lines],
      }
    }
    case "Stopped":
      return { kind: "process-stopped", process }
  }
}

/** How a run ended that was not asked to. */
export const deathOf = (
  { oomKilled, ranForMs, reason, status }: Extract<Machine.News, { _tag: "Ended" }>,
  lines: ReadonlyArray<string>,
): Death => ({ reason, status, oomKilled, ranForMs, lastLines: [...lines] })
