/** The curves of `npm run soak` as one picture: a panel each, every axis of values from zero. */
import type { Finding } from "../packages/core/test/support/Scale.ts"

type Curve = NonNullable<Finding["curves"]>[number]

const W = 420
const H = 230
const LEFT = 56
const RIGHT = 20
const TOP = 46
const BOTTOM = 44
const COLUMNS = 2

const escape = (value: string) =>
  value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** A step of 1, 2 or 5 times a power of ten that gives at most `most` ticks up to `total`. */
const tickStep = (total: number, most: number): number => {
  const power = 10 ** Math.floor(Math.log10(total / most))
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => total / step <= most) ?? 10 * power
}

const n = (value: number) => String(Math.round(value * 10) / 10)

const panel = ({ points, title, x, y }: Curve, index: number): string => {
  const left = (index % COLUMNS) * W
  const top = Math.floor(index / COLUMNS) * H
  const most = (values: ReadonlyArray<number>) => Math.max(...values, Number.MIN_VALUE)
  const maxX = most(points.map(([value]) => value))
  // The whole axis: growth of a few percent has to look like what it is.
  const maxY = most(points.map(([, value]) => value)) * 1.15
  const px = (value: number) => left + LEFT + (value / maxX) * (W - LEFT - RIGHT)
  const py = (value: number) => top + H - BOTTOM - (value / maxY) * (H - TOP - BOTTOM)
  const text = (at: readonly [number, number], value: string, extra: string) =>
    `<text x="${n(at[0])}" y="${n(at[1])}" font-family="sans-serif" fill="#222" ${extra}>${escape(value)}</text>`
  const out = [text([left + LEFT, top + 24], title, 'font-size="14" font-weight="bold"')]
  for (let tick = 0, step = tickStep(maxY, 5); tick <= maxY; tick += step)
    out.push(
      `<line x1="${n(px(0))}" y1="${n(py(tick))}" x2="${n(px(maxX))}" y2="${n(py(tick))}" stroke="#ddd"/>`,
      text([px(0) - 6, py(tick) + 4], n(tick), 'font-size="11" text-anchor="end"'),
    )
  for (let tick = 0, step = tickStep(maxX, 6); tick <= maxX; tick += step)
    out.push(text([px(tick), py(0) + 16], n(tick), 'font-size="11" text-anchor="middle"'))
  out.push(
    text([px(maxX), py(0) + 34], x, 'font-size="12" text-anchor="end"'),
    text([left + 8, top + 42], y, 'font-size="12"'),
    `<polyline points="${points.map(([a, b]) => `${n(px(a))},${n(py(b))}`).join(" ")}" fill="none" stroke="#0072B2" stroke-width="2"/>`,
  )
  return out.join("\n")
}

/** One SVG with a panel for each curve. */
export const svg = (curves: ReadonlyArray<Curve>): string => {
  const width = COLUMNS * W
  const height = Math.max(1, Math.ceil(curves.length / COLUMNS)) * H
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...curves.map(panel),
    "</svg>",
    "",
  ].join("\n")
}
