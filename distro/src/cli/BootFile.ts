/**
 * A boot that was recorded, from a file: `/run/kios/boot.json` of a node, or
 * what `kios run --json` printed.
 */
import * as BootRecord from "@kios/core/BootRecord"
import * as Plan from "@kios/core/Plan"
import { Effect } from "effect"
import * as fs from "node:fs"
import { pipeline } from "../pipeline.ts"
import type { Timeline } from "../vm/Timeline.ts"
import { BadInput } from "./BadInput.ts"

// A record of a thousand stages is below 1 MB; a log of a run is a few.
const MAX_BYTES = 64 * 1024 * 1024

const ms = (seconds: number) => Math.round(seconds * 1e6) / 1e3

/**
 * The record of a boot that was watched on the console, where the stages'
 * requirements are not told: they are taken from the plan of the reference
 * distro, as far as its stages were seen. A console tells the milliseconds of a
 * stage to one decimal, so a stage may seem to start before its requirement was up
 * by that much; it did not, and is put right after.
 */
export const fromTimeline = (timeline: Timeline): BootRecord.BootRecord => {
  const plan = new Map(Plan.make(pipeline.stages).stages.map((stage) => [stage.name, stage]))
  const seen = new Set(timeline.stages.map((stage) => stage.name))
  return {
    version: 1,
    clock: "CLOCK_MONOTONIC",
    ...(timeline.kernelVersion === undefined ? {} : { kernelRelease: timeline.kernelVersion }),
    stages: timeline.stages.map(({ end, name, outcome, reason, start }) => {
      const requires = (plan.get(name)?.after ?? []).filter((other) => seen.has(other))
      const ready = Math.max(
        0,
        ...timeline.stages.filter((other) => requires.includes(other.name)).map((other) => other.end),
      )
      return {
        name,
        startMs: ms(Math.min(end, Math.max(start, ready))),
        endMs: ms(end),
        outcome,
        ...(reason === undefined ? {} : { reason }),
        criticality: plan.get(name)?.criticality ?? "required",
        requires,
      }
    }),
    milestones: timeline.milestones.map(({ at, detail, name }) => ({
      name,
      atMs: ms(at),
      attributes: Object.fromEntries(
        (detail ?? "").split(" ").flatMap((word) => {
          const equals = word.indexOf("=")
          return equals < 1 ? [] : [[word.slice(0, equals), word.slice(equals + 1)]]
        }),
      ),
    })),
  }
}

/** The record as `kios run` draws it, in seconds. */
export const toTimeline = (record: BootRecord.BootRecord): Timeline => {
  const init = record.milestones.find((milestone) => milestone.name === "init")?.atMs
  const last = Math.max(
    0,
    ...record.stages.map((stage) => stage.endMs ?? stage.startMs),
    ...record.milestones.map((milestone) => milestone.atMs),
  )
  return {
    ...(record.kernelRelease === undefined ? {} : { kernelVersion: record.kernelRelease }),
    ...(init === undefined ? {} : { initSeconds: init / 1000 }),
    stages: record.stages.map((stage) => ({
      name: stage.name,
      start: stage.startMs / 1000,
      end: (stage.endMs ?? last) / 1000,
      outcome: stage.outcome === "up" || stage.outcome === "skipped" ? stage.outcome : "failed",
      ...(stage.outcome === "up"
        ? {}
        : { reason: stage.reason ?? (stage.outcome === "running" ? "still running" : stage.outcome) }),
    })),
    milestones: record.milestones.map(({ atMs, attributes, name }) => ({
      name,
      at: atMs / 1000,
      ...(Object.keys(attributes).length === 0
        ? {}
        : {
            detail: Object.entries(attributes)
              .map(([key, value]) => `${key}=${value}`)
              .join(" "),
          }),
    })),
    totalSeconds: last / 1000,
  }
}

/** The timeline that ends the output of `kios run --json`, if this is one. */
const runOutput = (text: string): Timeline | undefined => {
  const line = text.split("\n").findLast((one) => one.startsWith('{"event":"finished"'))
  if (line === undefined) return undefined
  try {
    return (JSON.parse(line) as { readonly timeline?: Timeline }).timeline
  } catch {
    return undefined
  }
}

/** Reads a boot from a file. Fails with {@link BadInput}. */
export const readBoot = Effect.fn("BootFile.read")(function* (file: string) {
  const text = yield* Effect.try({
    try: () => {
      const { size } = fs.statSync(file)
      if (size > MAX_BYTES) throw new RangeError(`is ${size} bytes long; a boot record is below 1 MB`)
      return fs.readFileSync(file, "utf8")
    },
    catch: (cause) =>
      new BadInput({
        file,
        reason:
          cause instanceof RangeError
            ? cause.message
            : `cannot be read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
      }),
  })
  const timeline = runOutput(text)
  if (timeline !== undefined) return fromTimeline(timeline)
  return yield* BootRecord.fromJson(text).pipe(
    Effect.mapError((error) => new BadInput({ file, reason: error.message })),
  )
})

/** Writes a picture. Fails with {@link BadInput}. */
export const writePicture = (file: string, svg: string): Effect.Effect<void, BadInput> =>
  Effect.try({
    try: () => fs.writeFileSync(file, svg),
    catch: (cause) =>
      new BadInput({
        file,
        reason: `cannot be written: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
      }),
  })
