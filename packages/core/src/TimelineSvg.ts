/**
 * A boot as a picture, the way `systemd-analyze plot` draws it: a time axis in
 * seconds since the kernel started, a bar for each stage with its name and how
 * long it took, the milestones as marks across all of it. What a stage waited
 * for is the line that leads to it from the requirement that came up last.
 */
import type { BootRecord, MilestoneRecord, Outcome, StageRecord } from "./BootReport.ts"
import * as Svg from "./internal/Svg.ts"
import { axisStep, bandRows, windowOf } from "./internal/TimelineLayout.ts"

/** How a timeline is drawn. */
export interface TimelineOptions {
  /** What it is called. Default `kiOS boot`. */
  readonly title?: string
  /** Pixels, at least 640. Default 1200. */
  readonly width?: number
  /** The part that is shown, milliseconds since kernel start. Default 0. */
  readonly fromMs?: number
  /** Default: the last stage's end, and the milestones up to three times as late. */
  readonly untilMs?: number
  /** Default `auto`. */
  readonly theme?: Svg.Theme
}

const MARGIN = 24
const ROW = 22
const BAR = 13
const BAND_ROW = 16
const LABEL = 330
const REASON = 420
const LEAST_REASON = 90
const MILESTONE_LABEL = 250

/** The requirement of a stage that came up last, which is what it started after. */
const gateOf = (stage: StageRecord, byName: ReadonlyMap<string, StageRecord>): StageRecord | undefined =>
  stage.requires
    .flatMap((name) => byName.get(name) ?? [])
    .filter((other) => other.endMs !== null && other.endMs <= stage.startMs)
    .reduce<StageRecord | undefined>(
      (last, other) => (last === undefined || (other.endMs ?? 0) > (last.endMs ?? 0) ? other : last),
      undefined,
    )

/**
 * The chain of stages that decided when the last one ended, first to last:
 * each started after the one before it, its last requirement to come up.
 *
 * @example
 * ```ts
 * import * as TimelineSvg from "@kios/core/TimelineSvg"
 *
 * TimelineSvg.criticalChain({ version: 1, clock: "CLOCK_MONOTONIC", stages: [], milestones: [] }) // []
 * ```
 */
export const criticalChain = (record: BootRecord): ReadonlyArray<string> => {
  const byName = new Map(record.stages.map((stage) => [stage.name, stage]))
  let at = record.stages.reduce<StageRecord | undefined>(
    (last, stage) => (stage.endMs !== null && stage.endMs > (last?.endMs ?? -1) ? stage : last),
    undefined,
  )
  const chain: Array<string> = []
  // A record that was made by hand may have a circle in it.
  while (at !== undefined && !chain.includes(at.name)) {
    chain.unshift(at.name)
    at = gateOf(at, byName)
  }
  return chain
}

/** `images-ready count=2`, but `pod-running default/hello`: what the name says is not said again. */
const describeMilestone = ({ attributes, name }: MilestoneRecord): string =>
  [
    name,
    ...Object.entries(attributes).map(([key, value]) =>
      name.split("-").includes(key) ? value : `${key}=${value}`,
    ),
  ].join(" ")

const rules = (colors: Svg.Colors): ReadonlyArray<string> => [
  `.grid{stroke:${colors.grid};fill:none}.minor{stroke:${colors.faint};fill:none}`,
  `.up{fill:${colors.green}}.failed{fill:${colors.red}}.skipped{fill:${colors.amber}}`,
  `.interrupted{fill:${colors.purple}}.running{fill:${colors.blue}}.kernel{fill:${colors.gray}}`,
  `.wait{fill:${colors.paleBlue}}.link{stroke:${colors.gray};fill:none}`,
  `.chain{stroke:${colors.orange};stroke-width:2;fill:none}`,
  `.mark{stroke:${colors.blue};stroke-dasharray:4 3;fill:none}.at{fill:${colors.blue};font-size:11px}`,
  `.why{fill:${colors.red}}.tick{font-size:11px;fill:${colors.muted}}.on{font-weight:600}`,
]

const summary = (record: BootRecord): { readonly title: string; readonly subtitle: string } => {
  const first = (name: string) => record.milestones.find((milestone) => milestone.name === name)?.atMs
  const complete = first("boot-complete")
  const init = first("init")
  const failed = record.stages.find((stage) => stage.outcome === "failed" && stage.criticality === "required")
  const end = Math.max(0, ...record.stages.map((stage) => stage.endMs ?? stage.startMs))
  return {
    title:
      failed !== undefined
        ? `failed at ${failed.name} after ${Svg.duration(failed.endMs ?? failed.startMs)}`
        : complete !== undefined
          ? Svg.duration(complete)
          : `not complete after ${Svg.duration(end)}`,
    subtitle: [
      ...(record.nodeName === undefined ? [] : [record.nodeName]),
      ...(record.kernelRelease === undefined ? [] : [`Linux ${record.kernelRelease}`]),
      `${record.stages.length} stages`,
      ...(complete === undefined || init === undefined
        ? []
        : [`${Svg.duration(init)} kernel + ${Svg.duration(complete - init)} init`]),
    ].join("  \u00b7  "),
  }
}

/**
 * Draws a boot record. The picture is one SVG document: text that can be
 * searched, details as tool tips, colours for light and dark pages.
 *
 * @example
 * ```ts
 * import * as TimelineSvg from "@kios/core/TimelineSvg"
 *
 * const svg = TimelineSvg.toSvg({
 *   version: 1,
 *   clock: "CLOCK_MONOTONIC",
 *   stages: [
 *     { name: "disk", startMs: 310, endMs: 480, outcome: "up", criticality: "required", requires: [] },
 *   ],
 *   milestones: [{ name: "boot-complete", atMs: 481, attributes: {} }],
 * })
 * ```
 */
export const toSvg = (record: BootRecord, options: TimelineOptions = {}): string => {
  const width = Math.max(640, options.width ?? 1200)
  const window = windowOf(record, options)
  const span = window.until - window.from
  const byName = new Map(record.stages.map((stage) => [stage.name, stage]))
  const chain = criticalChain(record)
  const inside = (from: number, to: number) => to >= window.from && from <= window.until

  const milestones = record.milestones.toSorted((a, b) => a.atMs - b.atMs)
  const shown = milestones
    .filter(({ atMs }) => inside(atMs, atMs))
    .map((milestone) => {
      const label = Svg.fit(
        `${(milestone.atMs / 1000).toFixed(span > 20_000 ? 1 : 2)} s  ${describeMilestone(milestone)}`,
        MILESTONE_LABEL,
        11,
      )
      return { milestone, label, width: Svg.textWidth(label, 11) + 4 }
    })
  // The right end of the axis is where every milestone's label still fits.
  const left = MARGIN + 10
  const right = shown.reduce(
    (edge, { milestone, width: label }) => {
      const part = (milestone.atMs - window.from) / span
      return part <= 0 ? edge : Math.min(edge, left + (width - MARGIN - label - left) / part)
    },
    width - MARGIN - 10,
  )
  const xOf = (ms: number) =>
    left + ((Math.min(window.until, Math.max(window.from, ms)) - window.from) / span) * (right - left)

  const marks = shown.map((entry) => ({ ...entry, x: xOf(entry.milestone.atMs) }))
  const band = bandRows(marks)
  const bandHeight = marks.length === 0 ? 0 : (Math.max(...band) + 1) * BAND_ROW
  const axisY = 84
  const bandY = axisY + 6 + bandHeight
  const top = bandY + 6

  const init = milestones.find((milestone) => milestone.name === "init")?.atMs
  const stages = record.stages
    .filter((stage) => inside(stage.startMs, stage.endMs ?? window.until))
    .toSorted((a, b) => a.startMs - b.startMs || (a.endMs ?? Infinity) - (b.endMs ?? Infinity))
  const kernelRows = init !== undefined && inside(0, init) ? 1 : 0
  const bottom = top + Math.max(1, stages.length + kernelRows) * ROW + 6
  const rowOf = new Map(
    stages.map((stage, index) => [stage.name, top + (index + kernelRows) * ROW + ROW / 2]),
  )

  const lines: Array<string> = []
  const links: Array<string> = []
  const decisive: Array<string> = []
  const bars: Array<string> = []
  const labels: Array<string> = []

  const step = axisStep(span, Math.max(4, Math.floor((right - left) / 80)))
  const digits = Math.max(0, -Math.floor(Math.log10(step / 1000) + 1e-9))
  for (let index = Math.ceil((window.from / step) * 5); (index * step) / 5 <= window.until; index += 1) {
    const x = xOf((index * step) / 5)
    const major = index % 5 === 0
    lines.push(
      Svg.element("path", {
        class: major ? "grid" : "minor",
        d: `M${Svg.number(x)} ${major ? axisY + 5 : top}V${bottom}`,
      }),
    )
    if (!major) continue
    const text = Svg.escape(`${((index / 5) * (step / 1000)).toFixed(digits)} s`)
    for (const y of [axisY, bottom + 15])
      labels.push(Svg.element("text", { class: "tick", x, y, "text-anchor": "middle" }, text))
  }

  for (const [index, mark] of marks.entries()) {
    const y = bandY - (band[index] ?? 0) * BAND_ROW
    const tip = `${describeMilestone(mark.milestone)} at ${(mark.milestone.atMs / 1000).toFixed(3)} s`
    lines.push(Svg.element("path", { class: "mark", d: `M${Svg.number(mark.x)} ${y - 11}V${bottom}` }))
    labels.push(
      Svg.element(
        "text",
        { class: "at halo", x: mark.x + 4, y: y - 2 },
        Svg.tooltip(tip),
        Svg.escape(mark.label),
      ),
    )
  }

  const bar = (from: number, to: number, y: number, kind: Outcome | "kernel", tip: string) => {
    const x = xOf(from)
    bars.push(
      Svg.element(
        "rect",
        {
          class: kind,
          x,
          y: y - BAR / 2,
          width: Math.max(2, xOf(to) - x),
          height: BAR,
          rx: 2,
          ...(kind === "running" ? { "fill-opacity": 0.5 } : {}),
        },
        Svg.tooltip(tip),
      ),
    )
  }
  /** Right of the bar if there is room, else left of it, else on it; the reason gets what room is left. */
  const label = (
    name: string,
    took: string,
    why: string,
    bold: boolean,
    start: number,
    end: number,
    y: number,
  ) => {
    const text = Svg.fit(name, LABEL, 12, bold)
    const wide = Svg.textWidth(text, 12, bold) + Svg.textWidth(took, 12) + 12
    const least = wide + Math.min(LEAST_REASON, Svg.textWidth(why, 12) + 6)
    const after = width - 8 - (end + 6)
    const before = start - 6 - 8
    const [room, side] =
      after >= least
        ? [after, "right"]
        : before >= least
          ? [before, "left"]
          : [width - 14 - Math.max(left, start), "on"]
    const parts = [
      { class: bold ? "on" : "", text },
      { class: "muted", text: took },
      { class: "why", text: Svg.fit(why, Math.max(LEAST_REASON, Math.min(REASON, room - wide)), 12) },
    ].filter((part) => part.text !== "")
    labels.push(
      Svg.element(
        "text",
        {
          class: "halo",
          x: side === "right" ? end + 6 : side === "left" ? start - 6 : Math.max(left, start) + 6,
          y: y + 4,
          "text-anchor": side === "left" ? "end" : undefined,
        },
        ...parts.map((part, index) =>
          Svg.element(
            "tspan",
            { class: part.class === "" ? undefined : part.class, dx: index === 0 ? undefined : 6 },
            Svg.escape(part.text),
          ),
        ),
      ),
    )
  }

  if (kernelRows === 1 && init !== undefined) {
    const y = top + ROW / 2
    bar(0, init, y, "kernel", `kernel: ${Svg.duration(init)} until it ran init`)
    label("kernel", Svg.duration(init), "", false, xOf(0), xOf(init), y)
  }
  for (const stage of stages) {
    const y = rowOf.get(stage.name) ?? top
    const end = stage.endMs ?? window.until
    const critical = chain.includes(stage.name)
    const gate = gateOf(stage, byName)
    const gateY = gate === undefined ? undefined : rowOf.get(gate.name)
    let lead = xOf(stage.startMs)
    if (gate !== undefined && gate.endMs !== null) {
      lead = xOf(gate.endMs)
      bars.push(
        Svg.element("rect", {
          class: "wait",
          x: lead,
          y: y - BAR / 2,
          width: xOf(stage.startMs) - lead,
          height: BAR,
        }),
      )
      if (gateY !== undefined && gate.endMs >= window.from) {
        const from = gateY + (gateY < y ? BAR / 2 : -BAR / 2)
        const d = `M${Svg.number(lead)} ${Svg.number(from)}V${Svg.number(y)}H${Svg.number(xOf(stage.startMs))}`
        const both = critical && chain.includes(gate.name)
        ;(both ? decisive : links).push(Svg.element("path", { class: both ? "chain" : "link", d }))
      }
    }
    const took =
      stage.outcome === "up"
        ? Svg.duration(end - stage.startMs)
        : stage.outcome === "skipped"
          ? ""
          : `${stage.outcome} ${stage.outcome === "running" ? "since" : "after"} ${Svg.duration(stage.outcome === "running" ? stage.startMs : end - stage.startMs)}`
    const why = stage.outcome === "skipped" ? `skipped: ${stage.reason ?? ""}` : (stage.reason ?? "")
    const tip = [
      `${stage.name} (${stage.criticality}): ${stage.outcome}`,
      `${(stage.startMs / 1000).toFixed(3)} s to ${stage.endMs === null ? "now" : `${(end / 1000).toFixed(3)} s`}`,
      ...(stage.requires.length === 0 ? [] : [`waited for ${stage.requires.join(", ")}`]),
      ...(stage.reason === undefined ? [] : [stage.reason]),
    ].join("\n")
    bar(stage.startMs, end, y, stage.outcome, tip)
    label(stage.name, took, why, critical, lead, Math.max(xOf(end), xOf(stage.startMs) + 2), y)
  }

  const swatch = (kind: string) => Svg.element("rect", { class: kind, y: -6, width: 22, height: 12, rx: 2 })
  const outcomes = (["up", "failed", "skipped", "interrupted", "running"] as const).filter(
    (outcome) => outcome === "up" || stages.some((stage) => stage.outcome === outcome),
  )
  const legend = Svg.legend(
    [
      ...(kernelRows === 1 ? [{ label: "kernel, until it runs init", draw: swatch("kernel") }] : []),
      ...outcomes.map((outcome) => ({ label: outcome, draw: swatch(outcome) })),
      { label: "could start, had not yet", draw: swatch("wait") },
      { label: "started after", draw: Svg.element("path", { class: "link", d: "M4 -8V0H22" }) },
      { label: "what decided the total", draw: Svg.element("path", { class: "chain", d: "M4 -8V0H22" }) },
      { label: "milestone", draw: Svg.element("path", { class: "mark", d: "M11 -8V8" }) },
    ],
    { x: MARGIN, y: bottom + 40, width: width - 2 * MARGIN },
  )
  const hidden = [
    ...(record.stages.length === stages.length ? [] : [`${record.stages.length - stages.length} stages`]),
    ...(milestones.length === shown.length ? [] : [`${milestones.length - shown.length} milestones`]),
  ]
  const noteY = bottom + 40 + legend.height
  const note =
    hidden.length === 0
      ? []
      : [
          Svg.element(
            "text",
            { class: "muted", x: MARGIN, y: noteY + 2 },
            Svg.escape(
              `not shown: ${hidden.join(" and ")} outside of ${(window.from / 1000).toFixed(1)} s to ${(window.until / 1000).toFixed(1)} s`,
            ),
          ),
        ]
  const { subtitle, title } = summary(record)
  const heading = `${options.title ?? "kiOS boot"}: ${title}`
  return Svg.document({
    width,
    height: noteY + (note.length === 0 ? 0 : 18),
    title: heading,
    description: `Timeline of a boot in seconds since the kernel started. ${subtitle}.`,
    theme: options.theme ?? "auto",
    rules,
    body: [
      Svg.element(
        "text",
        { class: "title", x: MARGIN, y: 36 },
        Svg.escape(Svg.fit(heading, width - 48, 18, true)),
      ),
      Svg.element(
        "text",
        { class: "muted", x: MARGIN, y: 56 },
        Svg.escape(Svg.fit(subtitle, width - 48, 12)),
      ),
      ...lines,
      ...links,
      ...decisive,
      ...bars,
      ...labels,
      ...legend.body,
      ...note,
    ],
  })
}
