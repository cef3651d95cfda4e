/**
 * Where the parts of a timeline go: which part of the time is shown, how the
 * axis is divided, and in which line each milestone's label stands.
 */
import type { BootRecord } from "../BootReport.ts"

/** Steps of a time axis, in milliseconds, so that there are at most `most` in `span`. */
export const axisStep = (span: number, most: number): number => {
  const rough = span / most
  const power = 10 ** Math.floor(Math.log10(rough))
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10)
}

/**
 * The line of each label, counted from below, for labels that extend to the
 * right of their marks. So that no mark's line, which goes down, crosses a
 * label, one that reaches over later marks is above all of theirs.
 */
export const bandRows = (
  marks: ReadonlyArray<{ readonly x: number; readonly width: number }>,
): ReadonlyArray<number> => {
  const rows: Array<number> = []
  for (let index = marks.length - 1; index >= 0; index -= 1) {
    const mark = marks[index]
    if (mark === undefined) continue
    let row = 0
    for (let later = index + 1; later < marks.length; later += 1) {
      if ((marks[later]?.x ?? 0) < mark.x + mark.width + 10) row = Math.max(row, (rows[later] ?? 0) + 1)
    }
    rows[index] = row
  }
  return rows
}

/** The part of the time that is shown, milliseconds. */
export interface Window {
  readonly from: number
  readonly until: number
}

/** What was asked for, or all of the boot and what followed soon after. */
export const windowOf = (
  record: BootRecord,
  options: { readonly fromMs?: number; readonly untilMs?: number },
): Window => {
  const from = Math.max(0, options.fromMs ?? 0)
  const complete = record.milestones.find((milestone) => milestone.name === "boot-complete")?.atMs ?? 0
  const base = Math.max(complete, ...record.stages.map((stage) => stage.endMs ?? stage.startMs))
  // A pod that starts a day later is told of below the picture: at its scale, the boot would be a dot.
  const soon = record.milestones.map(({ atMs }) => atMs).filter((atMs) => base === 0 || atMs <= 3 * base)
  const until = options.untilMs ?? Math.max(base, ...soon)
  return { from, until: Math.max(until, from + 1) }
}
