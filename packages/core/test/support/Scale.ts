/**
 * How long the tests run that get better the longer they run. `npm test` runs
 * about a tenth; `npm run soak` sets `KIOS_SOAK=1` and runs them whole.
 *
 * What such a test found out it hands to {@link record}, and `npm run soak`
 * puts it in its summary.
 */
import * as fs from "node:fs"
import * as path from "node:path"

/** Whether this is `npm run soak`. */
export const soaking = process.env["KIOS_SOAK"] === "1"

/** `whole` in `npm run soak`, `tenth` (or whatever is a fair sample) in `npm test`. */
export const scaled = <A>(tenth: A, whole: A): A => (soaking ? whole : tenth)

/** The seed of the random choices: KIOS_SEED repeats a run. */
export const seed: number = Number.parseInt(process.env["KIOS_SEED"] ?? "", 10) || Date.now() & 0x7fffffff

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export const random = (from: number): (() => number) => {
  let state = from | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What a test found out: figures for the summary, and curves (value over kills, crashes ...) for pictures. */
export interface Finding {
  readonly figures: Readonly<Record<string, number | string>>
  readonly curves?: ReadonlyArray<{
    readonly title: string
    readonly x: string
    readonly y: string
    readonly points: ReadonlyArray<readonly [number, number]>
  }>
}

/** Writes a finding where `npm run soak` looks for it; does nothing in `npm test`. */
export const record = (name: string, finding: Finding): void => {
  const directory = process.env["KIOS_SOAK_RESULTS"] ?? ""
  if (directory === "") return
  fs.mkdirSync(directory, { recursive: true })
  fs.writeFileSync(path.join(directory, `${name}.json`), `${JSON.stringify(finding, null, 1)}\n`)
}
