/**
 * When everything happened during a boot: as data for JSON, as bars for a terminal.
 *
 * The origin is the kernel's start, since that is the clock which kernel and init
 * share; what came before it is the firmware's part and counted apart.
 */
import type { VmEvent } from "./Milestones.ts"

/** One stage of init. Seconds since kernel start. */
export interface StageSpan {
  readonly name: string
  readonly start: number
  readonly end: number
  readonly outcome: "up" | "failed" | "skipped"
  readonly reason?: string
}

/** One moment. Seconds since kernel start. */
export interface Moment {
  readonly name: string
  /** `pod=default/hello` and the like, joined by spaces. */
  readonly detail?: string
  readonly at: number
}

/** A boot on the clock; serialisable. */
export interface Timeline {
  /** Seconds from power-on to the kernel's start; absent when either is unknown. */
  readonly firmwareSeconds?: number
  readonly kernelVersion?: string
  /** Seconds since kernel start at which the kernel ran init. */
  readonly initSeconds?: number
  readonly stages: ReadonlyArray<StageSpan>
  readonly milestones: ReadonlyArray<Moment>
  /** The last moment of all, seconds since kernel start. */
  readonly totalSeconds: number
}

const seconds = (ns: bigint): number => Number(ns) / 1e9
const round = (value: number): number => Math.round(value * 1e6) / 1e6

/**
 * Makes the timeline of the events of one run. After a restart of the guest it
 * is the last boot's. `startedAt` is power-on, ns of the host's monotonic clock.
 */
export const fromEvents = (events: ReadonlyArray<VmEvent>, startedAt?: bigint): Timeline => {
  const first = events.findLastIndex((event) => event._tag === "KernelStarted")
  const kernel = events[first]
  if (kernel === undefined || kernel._tag !== "KernelStarted")
    return { stages: [], milestones: [], totalSeconds: 0 }
  const epoch = kernel.at - BigInt(Math.round((kernel.kernelSeconds ?? 0) * 1e9))
  const restarted = events.slice(0, first).some((event) => event._tag === "KernelStarted")
  const when = (event: VmEvent): number =>
    round(Math.max(0, event.kernelSeconds ?? seconds(event.at - epoch)))

  const stages: Array<StageSpan> = []
  const milestones: Array<Moment> = []
  let initSeconds: number | undefined
  for (const event of events.slice(first)) {
    const at = when(event)
    switch (event._tag) {
      case "StageUp":
      case "StageFailed":
        stages.push({
          name: event.stage,
          start: round(Math.max(0, at - event.ms / 1000)),
          end: at,
          outcome: event._tag === "StageUp" ? "up" : "failed",
          ...(event._tag === "StageFailed" ? { reason: event.reason } : {}),
        })
        break
      case "StageSkipped":
        stages.push({ name: event.stage, start: at, end: at, outcome: "skipped", reason: event.reason })
        break
      case "InitStarted":
        initSeconds ??= at
        break
      case "Milestone": {
        const detail = Object.entries(event.fields).map(([key, value]) => `${key}=${value}`)
        milestones.push({
          name: event.name,
          at,
          ...(detail.length === 0 ? {} : { detail: detail.join(" ") }),
        })
        break
      }
      case "BootFailed":
        milestones.push({ name: "boot-failed", at, detail: `stage=${event.stage}` })
        break
      case "KernelPanic":
        milestones.push({ name: "kernel-panic", at, detail: event.reason })
        break
    }
  }
  stages.sort((a, b) => a.start - b.start || a.end - b.end)
  milestones.sort((a, b) => a.at - b.at)
  return {
    ...(startedAt === undefined || restarted
      ? {}
      : { firmwareSeconds: round(Math.max(0, seconds(epoch - startedAt))) }),
    ...(kernel.version === undefined ? {} : { kernelVersion: kernel.version }),
    ...(initSeconds === undefined ? {} : { initSeconds }),
    stages,
    milestones,
    totalSeconds: Math.max(
      0,
      initSeconds ?? 0,
      ...stages.map((stage) => stage.end),
      ...milestones.map((m) => m.at),
    ),
  }
}

/** How a timeline is drawn. */
export interface RenderOptions {
  /** Columns of the terminal. Default 80, at least 40. */
  readonly width?: number
  /** ANSI colours. Default false: pass whether the output is a TTY and NO_COLOR is unset. */
  readonly color?: boolean
}

const colors = { up: 32, failed: 31, skipped: 33, milestone: 36, dim: 2 } as const

const clip = (text: string, width: number): string =>
  text.length <= width ? text : width <= 1 ? text.slice(0, width) : `${text.slice(0, width - 1)}~`

/**
 * The timeline as text, no line longer than `width` columns and none with
 * trailing blanks: a bar for every stage, a mark for every milestone, in order
 * of their beginning.
 */
export const render = (timeline: Timeline, options: RenderOptions = {}): string => {
  const width = Math.max(40, options.width ?? 80)
  const paint = (text: string, color: keyof typeof colors) =>
    options.color === true && text !== "" ? `\u001b[${colors[color]}m${text}\u001b[0m` : text

  interface Row {
    readonly name: string
    readonly start: number
    readonly end: number
    readonly note: string
    readonly color: "up" | "failed" | "skipped" | "milestone"
  }
  const rows: Array<Row> = [
    ...(timeline.initSeconds === undefined
      ? []
      : [{ name: "kernel", start: 0, end: timeline.initSeconds, note: "", color: "up" as const }]),
    ...timeline.stages.map((stage) => ({
      name: stage.name,
      start: stage.start,
      end: stage.end,
      note:
        stage.outcome === "up"
          ? ""
          : `${stage.outcome}${stage.reason === undefined ? "" : `: ${stage.reason}`}`,
      color: stage.outcome,
    })),
    ...timeline.milestones.map((moment) => ({
      name: moment.name,
      start: moment.at,
      end: moment.at,
      note: moment.detail ?? "",
      color: "milestone" as const,
    })),
  ].sort((a, b) => a.start - b.start)

  const lines: Array<string> = []
  const firmware =
    timeline.firmwareSeconds === undefined ? "" : `firmware ${timeline.firmwareSeconds.toFixed(2)} s, then `
  const kernel = timeline.kernelVersion === undefined ? "" : ` (${timeline.kernelVersion})`
  lines.push(paint(clip(`${firmware}seconds since kernel start${kernel}`, width), "dim"))
  if (rows.length === 0) return `${lines[0]}\n(nothing was reported)\n`

  const nameWidth = Math.min(24, Math.floor(width / 3), Math.max(...rows.map((row) => row.name.length)))
  // name, a blank, "start" and "took" of 8 columns each, a blank, the bar
  const barWidth = Math.max(10, width - nameWidth - 18)
  const total = timeline.totalSeconds > 0 ? timeline.totalSeconds : 1
  const column = (at: number) => Math.min(barWidth - 1, Math.max(0, Math.floor((at / total) * barWidth)))
  for (const row of rows) {
    const from = column(row.start)
    const point = row.color === "milestone" || row.color === "skipped"
    const mark =
      row.color === "milestone" ? "*" : row.color === "skipped" ? "-" : row.color === "failed" ? "x" : "="
    const bar = mark.repeat(point ? 1 : Math.max(1, column(row.end) - from + (row.end >= total ? 1 : 0)))
    const took = point ? "" : (row.end - row.start).toFixed(2)
    const left = `${clip(row.name, nameWidth).padEnd(nameWidth)}${row.start.toFixed(2).padStart(8)}${took.padStart(8)} `
    // A note goes right of the bar if there is room, else left of it, else below.
    const right = barWidth - from - bar.length - 1
    const note = row.note.replace(/\s+/g, " ").replace(/:? $/, "")
    const place =
      note === "" ? "none" : note.length <= right ? "right" : note.length < from ? "left" : "below"
    const gap = " ".repeat(place === "left" ? from - note.length - 1 : from)
    lines.push(
      place === "left"
        ? `${left}${gap}${paint(note, "dim")} ${paint(bar, row.color)}`
        : `${left}${gap}${paint(bar, row.color)}${place === "right" ? ` ${paint(note, "dim")}` : ""}`,
    )
    if (place === "below") lines.push(`  ${paint(clip(note, width - 2), "dim")}`)
  }
  return `${lines.join("\n")}\n`
}
