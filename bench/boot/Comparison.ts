/**
 * Pairs of boots, compared. Both boots of a pair run one after the other, so
 * that what else the machine does is in both: ratios are taken within a pair
 * and the median is of those, never a ratio of medians of different moments.
 */
import { table } from "../Part.ts"
import { type Milestone, milestones, type Sample } from "./Sample.ts"

/** One boot of each image. */
export interface Pair {
  readonly kios: Sample
  readonly floor: Sample
}

/** What a row of the table is about: a milestone since the kernel's start, the firmware's part, or both together. */
export type Quantity = "firmware" | Milestone | "power-on to pod-running"

/** All quantities, in the order of the table. */
export const quantities: ReadonlyArray<Quantity> = ["firmware", ...milestones, "power-on to pod-running"]

/** One row: medians in seconds; `added` and `ratio` are medians over pairs, with their extremes. */
export interface Row {
  readonly quantity: Quantity
  readonly kios: number
  readonly floor: number
  readonly added: number
  readonly ratio: number
  readonly lowestRatio: number
  readonly highestRatio: number
}

/** The middle one, or the mean of the two in the middle; NaN of none. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const [low, high] = [sorted[middle - 1] ?? NaN, sorted[middle] ?? NaN]
  return sorted.length % 2 === 1 ? high : (low + high) / 2
}

/** A quantity of one boot, seconds. */
export const valueOf = (sample: Sample, quantity: Quantity): number =>
  quantity === "power-on to pod-running" ? sample.firmware + sample["pod-running"] : sample[quantity]

/** The table. */
export const compare = (pairs: ReadonlyArray<Pair>): ReadonlyArray<Row> =>
  quantities.map((quantity) => {
    const values = pairs.map(
      ({ floor, kios }) => [valueOf(kios, quantity), valueOf(floor, quantity)] as const,
    )
    const ratios = values.map(([kios, floor]) => kios / floor)
    return {
      quantity,
      kios: median(values.map(([kios]) => kios)),
      floor: median(values.map(([, floor]) => floor)),
      added: median(values.map(([kios, floor]) => kios - floor)),
      ratio: median(ratios),
      lowestRatio: Math.min(...ratios),
      highestRatio: Math.max(...ratios),
    }
  })

/** The table as text, a line a row. */
export const render = (rows: ReadonlyArray<Row>): string => {
  const cells = [
    ["seconds, medians", "kios", "floor", "added", "ratio", "of pairs"],
    ...rows.map((row) => [
      row.quantity,
      row.kios.toFixed(2),
      row.floor.toFixed(2),
      `${row.added < 0 ? "-" : "+"}${Math.abs(row.added).toFixed(2)}`,
      row.ratio.toFixed(2),
      `${row.lowestRatio.toFixed(2)} to ${row.highestRatio.toFixed(2)}`,
    ]),
  ]
  return table(cells).join("\n")
}

/** What a boot is doing between two milestones. */
export const phases = [
  { name: "kernel", until: "init" },
  { name: "init", until: "containerd-exec" },
  { name: "containerd", until: "containerd-ready" },
  { name: "hand-over", until: "kubelet-exec" },
  { name: "kubelet", until: "kubelet-healthy" },
  { name: "pod", until: "pod-running" },
] as const satisfies ReadonlyArray<{ readonly name: string; readonly until: Milestone }>

/** A boot's phases with start and end, seconds since the kernel's start; from the medians of the rows. */
export const phasesOf = (rows: ReadonlyArray<Row>, image: "kios" | "floor") => {
  let start = 0
  return phases.map(({ name, until }) => {
    const end = Math.max(start, rows.find((row) => row.quantity === until)?.[image] ?? start)
    const phase = { name, start, end }
    start = end
    return phase
  })
}
