/**
 * What happened during boot and when: each stage's start, end and outcome, and
 * the milestones (`containerd-ready`, `pod-running` ...), in nanoseconds since
 * the kernel started. Told on the console as it happens, and kept as data.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import { Events } from "./Events.ts"
import { formatAttributes as format } from "./internal/attributes.ts"
import { Kernel } from "./Kernel.ts"
import { Kmsg } from "./Kmsg.ts"
import type { ShutdownRecord } from "./Shutdown.ts"
import type { Criticality } from "./Stage.ts"

/** How a stage stands: `running` until it is `up`, has `failed`, was `skipped` or was `interrupted` by another's failure. */
export type Outcome = "running" | "up" | "failed" | "skipped" | "interrupted"

/** What a stage is, whatever becomes of it. */
export interface StageFacts {
  readonly criticality: Criticality
  /** Names of the stages that it waits for. */
  readonly requires: ReadonlyArray<string>
}

/** One stage's part of the report. Times are milliseconds since the kernel started. */
export interface StageRecord extends StageFacts {
  readonly name: string
  readonly startMs: number
  readonly endMs: number | null
  readonly outcome: Outcome
  readonly reason?: string
  /** When the machine goes down: from when to when its resources were released, null while they are. */
  readonly release?: { readonly startMs: number; readonly endMs: number | null }
}

/** A moment that people wait for. */
export interface MilestoneRecord {
  readonly name: string
  readonly atMs: number
  readonly attributes: Readonly<Record<string, string>>
}

/**
 * The report as data, as it stands in `/run/kios/boot.json`. Readers decode it
 * with `@kios/core/BootRecord`; these are plain types because init has no use
 * for a decoder.
 */
export interface BootRecord {
  readonly version: 1
  /** The clock of all its times, which are milliseconds; see clock_gettime(2). */
  readonly clock: "CLOCK_MONOTONIC"
  /** As uname(2) says; absent while /proc is not mounted. */
  readonly kernelRelease?: string
  /** The host name; absent while /proc is not mounted. */
  readonly nodeName?: string
  readonly stages: ReadonlyArray<StageRecord>
  readonly milestones: ReadonlyArray<MilestoneRecord>
  /** How the machine goes down; absent while nobody has asked for it. */
  readonly shutdown?: ShutdownRecord
}

/** The operations behind {@link BootReport}: what {@link "./Pipeline.ts"} tells of stages, and what stages tell. */
export interface BootReportShape {
  /** A stage without facts is taken for a required one that waits for nothing. */
  readonly stageStarted: (stage: string, facts?: StageFacts) => Effect.Effect<void>
  readonly stageUp: (stage: string) => Effect.Effect<void>
  readonly stageFailed: (stage: string, reason: string, criticality: Criticality) => Effect.Effect<void>
  readonly stageSkipped: (stage: string, reason: string, facts?: StageFacts) => Effect.Effect<void>
  readonly stageInterrupted: (stage: string) => Effect.Effect<void>
  /** What it acquired is being released. */
  readonly stageReleasing: (stage: string) => Effect.Effect<void>
  readonly stageReleased: (stage: string) => Effect.Effect<void>
  /** How the machine goes down, up to now. */
  readonly goingDown: (record: ShutdownRecord) => Effect.Effect<void>
  /** Records a milestone, once: the same name and attributes a second time are ignored, and so is all beyond the first thousand. */
  readonly milestone: (name: string, attributes?: Readonly<Record<string, string>>) => Effect.Effect<void>
  /** The report so far. */
  readonly current: Effect.Effect<BootRecord>
  /** Waits until the report has changed since the last time this was asked. */
  readonly changed: Effect.Effect<void>
}

/**
 * `key=value` with the value quoted as JSON where it has to be.
 *
 * @example
 * ```ts
 * import { formatAttributes } from "@kios/core/BootReport"
 *
 * formatAttributes({ pod: "default/hello", product: "Standard PC" }) // 'pod=default/hello product="Standard PC"'
 * ```
 */
export const formatAttributes = (attributes: Readonly<Record<string, string>>): string => format(attributes)

// The report is rewritten with each, and PID 1 lives for years.
const MAX_MILESTONES = 1000

// Most stages have nothing to release, or next to nothing.
const RELEASE_TOLD_MS = 20

const unstated: StageFacts = { criticality: "required", requires: [] }

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
  static readonly layer: Layer.Layer<BootReport, never, Kernel | Kmsg | Events> = Layer.effect(
    BootReport,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const kmsg = yield* Kmsg
      const events = yield* Events
      const stages = new Map<string, Omit<StageRecord, "name">>()
      const milestones: Array<MilestoneRecord> = []
      const seen = new Set<string>()
      const dirty = yield* Latch.make(false)
      let shutdown: ShutdownRecord | undefined
      const now = Effect.map(kernel.monotonic, (nanos) => Number(nanos / 1000n) / 1000)

      const known = (path: string) =>
        kernel.readText(path).pipe(
          Effect.map((text) => text.trim()),
          Effect.orElseSucceed(() => ""),
        )

      const end = (stage: string, outcome: Outcome, reason?: string, facts = unstated) =>
        Effect.map(now, (atMs) => {
          const record = stages.get(stage) ?? { ...facts, startMs: atMs }
          stages.set(stage, { ...record, endMs: atMs, outcome, ...(reason === undefined ? {} : { reason }) })
          dirty.openUnsafe()
          return (atMs - record.startMs).toFixed(1)
        })

      return BootReport.of({
        stageStarted: (stage, facts = unstated) =>
          Effect.map(now, (startMs) => {
            stages.set(stage, { ...facts, startMs, endMs: null, outcome: "running" })
          }),
        stageUp: (stage) =>
          Effect.flatMap(end(stage, "up"), (ms) => kmsg.write("notice", `stage ${stage} up ms=${ms}`)),
        stageFailed: (stage, reason, criticality) =>
          Effect.flatMap(end(stage, "failed", reason), (ms) =>
            kmsg.write(
              criticality === "required" ? "err" : "warning",
              `stage ${stage} failed ms=${ms} ${formatAttributes({ criticality, reason })}`,
            ),
          ).pipe(Effect.andThen(events.record({ kind: "stage-failed", stage, criticality, reason }))),
        stageSkipped: (stage, reason, facts = unstated) =>
          Effect.flatMap(end(stage, "skipped", reason, facts), () =>
            kmsg.write("warning", `stage ${stage} skipped ${formatAttributes({ reason })}`),
          ).pipe(Effect.andThen(events.record({ kind: "stage-skipped", stage, reason }))),
        stageInterrupted: (stage) => Effect.asVoid(end(stage, "interrupted")),
        stageReleasing: (stage) =>
          Effect.map(now, (startMs) => {
            const record = stages.get(stage)
            if (record !== undefined) stages.set(stage, { ...record, release: { startMs, endMs: null } })
          }),
        stageReleased: (stage) =>
          Effect.flatMap(now, (endMs) => {
            const record = stages.get(stage)
            if (record?.release === undefined) return Effect.void
            const { startMs } = record.release
            stages.set(stage, { ...record, release: { startMs, endMs } })
            dirty.openUnsafe()
            return endMs - startMs < RELEASE_TOLD_MS
              ? Effect.void
              : kmsg.write("notice", `stage ${stage} released ms=${(endMs - startMs).toFixed(1)}`)
          }),
        goingDown: (record) =>
          Effect.sync(() => {
            shutdown = record
            dirty.openUnsafe()
          }),
        milestone: (name, attributes = {}) =>
          Effect.suspend(() => {
            const text = `milestone ${name} ${formatAttributes(attributes)}`.trimEnd()
            if (seen.has(text) || milestones.length >= MAX_MILESTONES) return Effect.void
            seen.add(text)
            return Effect.flatMap(now, (atMs) => {
              milestones.push({ name, atMs, attributes })
              dirty.openUnsafe()
              return kmsg.write("notice", text)
            })
          }),
        current: Effect.gen(function* () {
          const kernelRelease = yield* known("/proc/sys/kernel/osrelease")
          const nodeName = yield* known("/proc/sys/kernel/hostname")
          return {
            version: 1,
            clock: "CLOCK_MONOTONIC",
            ...(kernelRelease === "" ? {} : { kernelRelease }),
            ...(nodeName === "" ? {} : { nodeName }),
            stages: [...stages].map(([name, record]) => ({ name, ...record })),
            milestones: [...milestones],
            ...(shutdown === undefined ? {} : { shutdown }),
          }
        }),
        changed: Effect.andThen(dirty.await, dirty.close),
      })
    }),
  )
}
