/**
 * The comparison as a picture: one bar for each image, one colour for each
 * phase, on one scale.
 */
import { phases, phasesOf, type Row } from "./Comparison.ts"

const letters: Readonly<Record<string, string>> = {
  kernel: "k",
  init: "I",
  containerd: "c",
  "hand-over": "h",
  kubelet: "l",
  pod: "p",
}

/** Bars of letters for a terminal, at most `width` columns (at least 40). */
export const text = (rows: ReadonlyArray<Row>, width: number): string => {
  const images = ["kios", "floor"] as const
  const bars = images.map((image) => phasesOf(rows, image))
  const total = Math.max(...bars.map((bar) => bar.at(-1)?.end ?? 0), Number.MIN_VALUE)
  const columns = Math.max(40, width) - 15
  const column = (seconds: number) => Math.round((seconds / total) * columns)
  const lines = images.map((image, index) => {
    const bar = bars[index]!.map((phase) =>
      letters[phase.name]!.repeat(column(phase.end) - column(phase.start)),
    ).join("")
    return `${image.padEnd(6)}${bar} ${(bars[index]!.at(-1)?.end ?? 0).toFixed(2)} s`
  })
  const legend = phases.map(({ name }) => `${letters[name]} ${name}`).join(", ")
  return [...lines, `      ${legend}`].join("\n")
}

// Okabe and Ito's colours, which colour-blind people tell apart.
const colors: Readonly<Record<string, string>> = {
  kernel: "#999999",
  init: "#D55E00",
  containerd: "#0072B2",
  "hand-over": "#CC79A7",
  kubelet: "#56B4E9",
  pod: "#009E73",
}

const escape = (value: string) =>
  value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** A step of 1, 2 or 5 times a power of ten that gives at most `most` ticks. */
export const tickStep = (total: number, most: number): number => {
  const power = 10 ** Math.floor(Math.log10(total / most))
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => total / step <= most) ?? 10 * power
}

const W = 900
const LEFT = 70
const RIGHT = 70
const BAR = 46
const TOP = 64
const GAP = 22
const FONT = `font-family="sans-serif"`

/** The picture as SVG. `note` says how it was measured. */
export const svg = (rows: ReadonlyArray<Row>, note: string): string => {
  const images = ["kios", "floor"] as const
  const bars = images.map((image) => phasesOf(rows, image))
  const total = Math.max(...bars.map((bar) => bar.at(-1)?.end ?? 0), 0.001)
  const x = (seconds: number) => LEFT + (seconds / total) * (W - LEFT - RIGHT)
  const n = (value: number) => String(Math.round(value * 10) / 10)
  const y = (index: number) => TOP + index * (BAR + GAP)
  const bottom = y(images.length)
  const height = bottom + 92
  const ratio = rows.find((row) => row.quantity === "pod-running")?.ratio ?? NaN
  const out: Array<string> = []
  const label = (at: { readonly x: number; readonly y: number }, size: number, value: string, extra = "") =>
    out.push(
      `<text x="${n(at.x)}" y="${n(at.y)}" ${FONT} font-size="${size}" fill="#222" ${extra}>${escape(value)}</text>`,
    )

  const step = tickStep(total, 12)
  for (let tick = 0; tick <= total + step / 1e6; tick += step) {
    out.push(
      `<line x1="${n(x(tick))}" y1="${TOP - 8}" x2="${n(x(tick))}" y2="${bottom - GAP + 8}" stroke="#ddd"/>`,
    )
    label(
      { x: x(tick), y: bottom - GAP + 24 },
      12,
      `${Math.round(tick * 1000) / 1000}`,
      `text-anchor="middle"`,
    )
  }
  label(
    { x: LEFT, y: 26 },
    17,
    `kernel start to the pod running: ${ratio.toFixed(2)} times the floor`,
    `font-weight="bold"`,
  )
  label({ x: LEFT, y: 46 }, 12, note)
  for (const [index, image] of images.entries()) {
    label({ x: LEFT - 10, y: y(index) + BAR / 2 + 5 }, 15, image, `text-anchor="end" font-weight="bold"`)
    for (const phase of bars[index]!) {
      const width = x(phase.end) - x(phase.start)
      const seconds = (phase.end - phase.start).toFixed(2)
      out.push(
        `<rect x="${n(x(phase.start))}" y="${y(index)}" width="${n(width)}" height="${BAR}" fill="${colors[phase.name]}"><title>${escape(phase.name)} ${seconds} s</title></rect>`,
      )
      if (width >= 34)
        out.push(
          `<text x="${n(x(phase.start) + width / 2)}" y="${y(index) + BAR / 2 + 5}" ${FONT} font-size="13" fill="#fff" text-anchor="middle">${seconds}</text>`,
        )
    }
    const end = bars[index]!.at(-1)?.end ?? 0
    label({ x: x(end) + 6, y: y(index) + BAR / 2 + 5 }, 14, `${end.toFixed(2)} s`, `font-weight="bold"`)
  }
  let at = LEFT
  for (const { name } of phases) {
    out.push(`<rect x="${n(at)}" y="${bottom + 32}" width="13" height="13" fill="${colors[name]}"/>`)
    label({ x: at + 19, y: bottom + 43 }, 13, name)
    at += 40 + name.length * 8
  }
  const firmware = rows.find((row) => row.quantity === "firmware")
  const apart =
    firmware === undefined
      ? ""
      : `; the firmware before it: kios ${firmware.kios.toFixed(2)} s, floor ${firmware.floor.toFixed(2)} s`
  label({ x: LEFT, y: bottom + 70 }, 12, `seconds since the kernel's start${apart}`)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${W} ${height}" width="${W}" height="${height}">`,
    `<rect width="${W}" height="${height}" fill="#fff"/>`,
    ...out,
    "</svg>",
    "",
  ].join("\n")
}
