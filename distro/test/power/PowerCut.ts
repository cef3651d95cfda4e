/**
 * What a disk may hold after its power was cut: everything that it had before
 * its cache was flushed for the last time, and of what it was given since then,
 * anything.
 */
import * as fs from "node:fs"
import type { Entry } from "./WriteLog.ts"

/** A generator of numbers from 0 up to 1 that gives the same ones for the same seed (mulberry32). */
export const random = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What a disk writes as a whole or not at all: the physical sector of today's disks. */
const ATOM = 4096

/**
 * Which of the writes since the last flush are on the medium. `in-order`: all,
 * as on a disk without a cache. `any`: of each write, any of its sectors, as on
 * a disk that writes its cache back in an order of its own.
 */
export type Model = "in-order" | "any"

/** The state of a partition between power-on and a cut, as the log of its disk is gone through. */
export class Partition {
  readonly #content: Buffer
  readonly #start: number
  readonly #entries: ReadonlyArray<Entry>
  readonly #log: number
  /** Entries before this one are on the medium. */
  #settled = 0

  /**
   * `content` is the partition at power-on, and is changed; `start` is where on
   * the disk it begins, bytes; `log` is a descriptor of the log.
   */
  constructor(content: Buffer, start: number, entries: ReadonlyArray<Entry>, log: number) {
    this.#content = content
    this.#start = start
    this.#entries = entries
    this.#log = log
  }

  #write(entry: Entry & { readonly _tag: "Write" }, from: number, to: number): void {
    const begin = entry.offset - this.#start + from
    if (begin < 0 || begin + to - from > this.#content.length)
      throw new Error(
        `a write outside of the partition: ${entry.length} bytes at ${entry.offset} of the disk`,
      )
    fs.readSync(this.#log, this.#content, begin, to - from, entry.data + from)
  }

  /**
   * The content after a cut when the disk was given `count` entries; only valid
   * during `use`. Cuts have to be asked for in ascending order.
   */
  at<A>(count: number, model: Model, next: () => number, use: (content: Buffer) => A): A {
    const flushed = this.#entries.findLastIndex(({ _tag }, index) => index < count && _tag === "Flush") + 1
    for (; this.#settled < flushed; this.#settled++) {
      const entry = this.#entries[this.#settled]
      if (entry?._tag === "Write") this.#write(entry, 0, entry.length)
    }
    const cached = this.#entries
      .slice(this.#settled, count)
      .filter((entry): entry is Entry & { readonly _tag: "Write" } => entry._tag === "Write")
    const before = cached.map(({ length, offset }) => {
      const begin = offset - this.#start
      return { begin, bytes: Buffer.from(this.#content.subarray(begin, begin + length)) }
    })
    // Nearly all of it, nearly nothing, and what is between.
    const share = next()
    for (const entry of cached) {
      for (let from = 0; from < entry.length;) {
        const to = Math.min(entry.length, from + ATOM - ((entry.offset + from) % ATOM))
        if (model === "in-order" || entry.fua || next() < share) this.#write(entry, from, to)
        from = to
      }
    }
    const result = use(this.#content)
    // Backwards: where two writes overlap, the first one's copy is the older.
    for (const { begin, bytes } of before.toReversed()) bytes.copy(this.#content, begin)
    return result
  }
}
