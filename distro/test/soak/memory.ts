/** What a soak test's PID 1 says of its own memory. */
import * as fs from "node:fs"

/** Bytes, at one moment, after a full garbage collection. */
export interface Sample {
  /** What had happened by then: kills, crashes. */
  readonly after: number
  readonly heapUsed: number
  /** ArrayBuffers and C++ objects that JavaScript holds. */
  readonly external: number
  /** Private pages, by proc_pid_status(5). */
  readonly rssAnon: number
  readonly openFiles: number
}

const collect = (): void => {
  const { gc } = globalThis as { gc?: () => void }
  if (gc === undefined) throw new Error("start node with --expose-gc")
  // Twice: what finalizers let go of is free only the second time.
  gc()
  gc()
}

/** Takes a sample now. */
export const sample = (after: number): Sample => {
  collect()
  const { external, heapUsed } = process.memoryUsage()
  const rssAnon = Number(/^RssAnon:\s+(\d+) kB$/m.exec(fs.readFileSync("/proc/self/status", "utf8"))?.[1])
  return {
    after,
    heapUsed,
    external,
    rssAnon: rssAnon * 1024,
    openFiles: fs.readdirSync("/proc/self/fd").length,
  }
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? Number.NaN
}

/** Growth from the first third of the samples to the last, by their medians. */
export const growth = (samples: ReadonlyArray<Sample>, of: keyof Sample): number => {
  const third = Math.ceil(samples.length / 3)
  const first = median(samples.slice(0, third).map((each) => each[of]))
  return median(samples.slice(-third).map((each) => each[of])) - first
}
