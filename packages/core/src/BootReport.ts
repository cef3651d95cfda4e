/**
 * What happened during boot and when: each stage's start, end and outcome, and
 * the milestones (`containerd-ready`, `pod-running` ...), in nanoseconds since
 * the kernel started. Told on the console as it happens, and kept as data.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import { Kernel } from "./Kernel.ts"
import { Kmsg } from "./Kmsg.ts"
import type { Criticality } from "./Stage.ts"

export type Outcome = "running" | "up" | "failed" | "skipped" | "interrupted"

/** One stage's part of the report. Times are milliseconds since the kernel started. */
export interface StageRecord {
  readonly name: string
  readonly startMs: number
  readonly endMs: number | null
  readonly outcome: Outcome
  readonly reason?: string
}

/** A moment that people wait for. */
export interface MilestoneRecord {
  readonly name: string
  readonly atMs: number
  readonly attributes: Readonly<Record<string, string>>
}

/** The report as data, as it stands in `/run/kios/boot.json`. */
export interface BootRecord {
  readonly version: 1
  readonly stages: ReadonlyArray<StageRecord>
  readonly milestones: ReadonlyArray<MilestoneRecord>
}

export interface BootReportShape {
  readonly stageStarted: (stage: string) => Effect.Effect<void>
  readonly stageUp: (stage: string) => Effect.Effect<void>
  readonly stageFailed: (stage: string, reason: string, criticality: Criticality) => Effect.Effect<void>
  readonly stageSkipped: (stage: string, reason: string) => Effect.Effect<void>
  readonly stageInterrupted: (stage: string) => Effect.Effect<void>
  /** Records a milestone, once: the same name and attributes a second time are ignored. */
  readonly milestone: (name: string, attributes?: Readonly<Record<string, string>>) => Effect.Effect<void>
  /** The report so far. */
  readonly current: Effect.Effect<BootRecord>
  /** Waits until the report has changed since the last time this was asked. */
  readonly changed: Effect.Effect<void>
}

/** `key=value` with the value quoted as JSON where it has to be. */
export const formatAttributes = (attributes: Readonly<Record<string, string>>): string =>
  Object.entries(attributes)
    .map(([key, value]) => `${key}=${/^[\w./:@+-]+$/u.test(value) ? value : JSON.stringify(value)}`)
    .join(" ")

/**
 * The boot report, as a service.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { BootReport } from "@kios/core/BootReport"
 *
 * const announce = BootReport.use((report) => report.milestone("pod-running", { pod: "default/hello" }))
 * ```
 */
export class BootReport extends Context.Service<BootReport, BootReportShape>()("kios/BootReport") {
  /** Keeps the report in memory and tells each entry to {@link Kmsg}. */
  static readonly layer: Layer.Layer<BootReport, never, Kernel | Kmsg> = Layer.effect(
    BootReport,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const kmsg = yield* Kmsg
      const stages = new Map<
        string,
        { startMs: number; endMs: number | null; outcome: Outcome; reason?: string }
      >()
      const milestones: Array<MilestoneRecord> = []
      const seen = new Set<string>()
      const dirty = yield* Latch.make(false)
      const now = Effect.map(kernel.monotonic, (nanos) => Number(nanos / 1000n) / 1000)

      const end = (stage: string, outcome: Outcome, reason?: string) =>
        Effect.map(now, (atMs) => {
          const record = stages.get(stage) ?? { startMs: atMs, endMs: null, outcome }
          stages.set(stage, { ...record, endMs: atMs, outcome, ...(reason === undefined ? {} : { reason }) })
          dirty.openUnsafe()
          return (atMs - record.startMs).toFixed(1)
        })

      return BootReport.of({
        stageStarted: (stage) =>
          Effect.map(now, (startMs) => {
            stages.set(stage, { startMs, endMs: null, outcome: "running" })
          }),
        stageUp: (stage) =>
          Effect.flatMap(end(stage, "up"), (ms) => kmsg.write("notice", `stage ${stage} up ms=${ms}`)),
        stageFailed: (stage, reason, criticality) =>
          Effect.flatMap(end(stage, "failed", reason), (ms) =>
            kmsg.write(
              criticality === "required" ? "err" : "warning",
              `stage ${stage} failed ms=${ms} ${formatAttributes({ criticality, reason })}`,
            ),
          ),
        stageSkipped: (stage, reason) =>
          Effect.flatMap(end(stage, "skipped", reason), () =>
            kmsg.write("warning", `stage ${stage} skipped ${formatAttributes({ reason })}`),
          ),
        stageInterrupted: (stage) => Effect.asVoid(end(stage, "interrupted")),
        milestone: (name, attributes = {}) =>
          Effect.suspend(() => {
            const text = `milestone ${name} ${formatAttributes(attributes)}`.trimEnd()
            if (seen.has(text)) return Effect.void
            seen.add(text)
            return Effect.flatMap(now, (atMs) => {
              milestones.push({ name, atMs, attributes })
              dirty.openUnsafe()
              return kmsg.write("notice", text)
            })
          }),
        current: Effect.sync(() => ({
          version: 1,
          stages: [...stages].map(([name, record]) => ({ name, ...record })),
          milestones: [...milestones],
        })),
        changed: Effect.andThen(dirty.await, dirty.close),
      })
    }),
  )
}
