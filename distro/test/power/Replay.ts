/**
 * The log of a node's disk, cut at random points: what each of the states that
 * the disk may then have comes to when it is mounted.
 */
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { temporaryDirectory } from "../boot/support.ts"
import { type Model, Partition, random } from "./PowerCut.ts"
import * as States from "./States.ts"
import * as Workload from "./Workload.ts"
import * as WriteLog from "./WriteLog.ts"

/** What a run of the workload leaves behind. */
export interface Recording {
  /** The disk as it was at power-on, raw. */
  readonly base: string
  /** What was written to it. */
  readonly log: string
  /** The data partition, bytes. */
  readonly start: number
  readonly size: number
  /** Transaction n (from 1) was known to be synced when the log had `logBytes[n]` bytes. */
  readonly logBytes: ReadonlyArray<number>
  readonly checksums: ReadonlyArray<string>
}

/** One state that was looked at. */
export interface Verdict {
  /** The disk had been given this many entries of the log. */
  readonly entries: number
  readonly model: Model
  /** Transactions that must be there. */
  readonly synced: number
  readonly violations: ReadonlyArray<string>
}

export interface Options {
  readonly cuts: number
  readonly seed: number
}

// States on one disk and in one machine: a disk of these takes some 100 MB each.
const BATCH = 40

/** The partition's bytes at power-on. */
export const content = ({ base, size, start }: Recording): Buffer => {
  const bytes = Buffer.alloc(size)
  const handle = fs.openSync(base, "r")
  fs.readSync(handle, bytes, 0, size, start)
  fs.closeSync(handle)
  return bytes
}

/** How many transactions were synced by the time that the disk had been given `count` entries. */
export const syncedAt = (
  { logBytes }: Recording,
  entries: ReadonlyArray<WriteLog.Entry>,
  count: number,
): number => {
  // All entries that begin before that size are on the disk's side of the cut.
  const position = entries[count]?.position ?? Number.POSITIVE_INFINITY
  const after = logBytes.findIndex((bytes, number) => number > 0 && bytes > position)
  return after < 0 ? Math.max(0, logBytes.length - 1) : after - 1
}

/** The cut points, ascending: each anywhere between the first entry and the last. */
export const cutPoints = (entries: number, { cuts, seed }: Options): ReadonlyArray<number> => {
  const next = random(seed)
  return Array.from({ length: cuts }, () => 1 + Math.floor(next() * entries)).toSorted((a, b) => a - b)
}

/** Looks at two states for each cut point, one for each {@link Model}. */
export const replay = Effect.fnUntraced(function* (recording: Recording, options: Options) {
  const entries = WriteLog.read(recording.log)
  const points = cutPoints(entries.length, options)
  const next = random(options.seed ^ 0x5bd1e995)
  const log = yield* Effect.acquireRelease(
    Effect.sync(() => fs.openSync(recording.log, "r")),
    (handle) => Effect.sync(() => fs.closeSync(handle)),
  )
  const partition = new Partition(content(recording), recording.start, entries, log)
  const wanted = points.flatMap((count) =>
    (["in-order", "any"] as const).map((model) => ({ entries: count, model })),
  )
  const directory = yield* temporaryDirectory
  const disk = path.join(directory, "states.img")
  const verdicts: Array<Verdict> = []
  for (let from = 0; from < wanted.length; from += BATCH) {
    const batch = wanted.slice(from, from + BATCH)
    States.makeDisk(disk, batch.length, recording.size)
    for (const [index, { entries: count, model }] of batch.entries()) {
      const offset = States.offsetOf(index, recording.size)
      partition.at(count, model, next, (bytes) => States.write(disk, offset, bytes))
    }
    const outcomes = yield* States.mountAll(disk, batch.length)
    for (const [index, one] of batch.entries()) {
      const synced = syncedAt(recording, entries, one.entries)
      const outcome = outcomes[index]
      const violations =
        outcome === undefined
          ? ["it was not looked at"]
          : !outcome.mounted
            ? ["it does not mount", ...outcome.said]
            : Workload.violations(outcome.found, synced, recording.checksums)
      const complaint = States.check(disk, States.offsetOf(index, recording.size))
      verdicts.push({
        ...one,
        synced,
        violations: [
          ...violations,
          ...(outcome?.mounted === true && !outcome.usable ? ["it is not usable", ...outcome.said] : []),
          ...(complaint === undefined ? [] : [`e2fsck: ${complaint}`]),
        ],
      })
    }
    fs.rmSync(disk)
  }
  return { verdicts, entries: entries.length, flushes: entries.filter(({ _tag }) => _tag === "Flush").length }
}, Effect.scoped)
