/**
 * Reading `/run/kios/boot.json`: the boot report of a node, checked and typed.
 *
 * The format is stable. Within version 1 keys may be added and none is removed
 * or changes its meaning, so a reader takes what it knows and ignores the rest;
 * what cannot be told that way gets a new version. Its JSON Schema is
 * docs/reference/boot.schema.json, made from the schema in this file.
 *
 * This module is for tools. Init writes the file by the plain types in
 * `BootReport.ts` and has no decoder in it.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as BootReport from "./BootReport.ts"
import * as JsonRecord from "./internal/jsonRecord.ts"

const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

const StageRecord = Schema.Struct({
  name: Schema.NonEmptyString.annotate({ description: "The stage's name, unique in the record." }),
  startMs: Milliseconds.annotate({
    description: "When the stage was started: the moment the last stage that it requires was up.",
  }),
  endMs: Schema.NullOr(Milliseconds).annotate({
    description: "When the stage was up, or had failed; null while it runs.",
  }),
  outcome: Schema.Literals(["running", "up", "failed", "skipped", "interrupted"]).annotate({
    description:
      "running: not up yet. up: done. failed: see reason. skipped: not started, because an optional stage that it requires is not up. interrupted: stopped, because a required stage failed.",
  }),
  reason: Schema.optionalKey(
    Schema.String.annotate({ description: "Why it failed or was skipped, in one line." }),
  ),
  criticality: Schema.Literals(["required", "optional"]).annotate({
    description:
      "What its failure means. required: the boot has failed. optional: the stages that require it are skipped and the boot goes on.",
  }),
  requires: Schema.Array(Schema.NonEmptyString).annotate({
    description: "Names of the stages that it waited for.",
  }),
  release: Schema.optionalKey(
    Schema.Struct({ startMs: Milliseconds, endMs: Schema.NullOr(Milliseconds) }).annotate({
      description:
        "When the machine goes down: from when to when what the stage had acquired was released; endMs is null while it is.",
    }),
  ),
}).annotate({ identifier: "Stage", description: "One stage of the boot." })

const MilestoneRecord = Schema.Struct({
  name: Schema.NonEmptyString.annotate({
    description:
      "What was reached: init, containerd-ready, kubelet-healthy, boot-complete, pod-running and the like; a name may come more than once, with other attributes.",
  }),
  atMs: Milliseconds.annotate({ description: "When it was reached." }),
  attributes: Schema.Record(Schema.String, Schema.String).annotate({
    description: 'What it was reached by, such as {"pod": "default/hello"}.',
  }),
}).annotate({ identifier: "Milestone", description: "A moment that people wait for." })

const ShutdownRecord = Schema.Struct({
  requests: Schema.Array(
    Schema.Struct({
      atMs: Milliseconds.annotate({ description: "When it came." }),
      action: Schema.Literals(["POWER_OFF", "RESTART", "HALT"]).annotate({
        description: "What was asked for, as in reboot(2); the last one is done.",
      }),
      by: Schema.String.annotate({ description: "Who asked, in words: power button, SIGTERM." }),
    }),
  ).annotate({
    description: "The first starts it, the second makes it faster, those after it force it.",
  }),
  steps: Schema.Array(
    Schema.Struct({
      name: Schema.NonEmptyString.annotate({
        description:
          "boot, stages, processes, mounts, sync, wait: see docs/shutdown.md; before/NAME is what a stage registered to come first.",
      }),
      startMs: Milliseconds,
      endMs: Schema.NullOr(Milliseconds).annotate({ description: "Null while it runs." }),
      outcome: Schema.Literals(["running", "done", "failed", "late", "cut"]).annotate({
        description:
          "late: it was left behind at its deadline. cut: a further request ended it. failed: see the log.",
      }),
      remarks: Schema.Array(Schema.String).annotate({
        description: "Who was killed, what was busy and who held it.",
      }),
    }),
  ).annotate({ description: "In the order of their start." }),
}).annotate({ identifier: "Shutdown", description: "How the machine went down." })

/**
 * The schema of a boot record.
 *
 * @example
 * ```ts
 * import * as Schema from "effect/Schema"
 * import * as BootRecord from "@kios/core/BootRecord"
 *
 * const isRecord = Schema.is(BootRecord.BootRecord)
 * isRecord({ version: 1, clock: "CLOCK_MONOTONIC", stages: [], milestones: [] }) // true
 * ```
 */
export const BootRecord = Schema.Struct({
  version: Schema.Literal(1).annotate({
    description: "The format's version. Keys may be added within a version.",
  }),
  clock: Schema.Literal("CLOCK_MONOTONIC").annotate({
    description:
      "The clock of every time in the record, as in clock_gettime(2): milliseconds since the kernel started, the same as in the kernel's own log.",
  }),
  kernelRelease: Schema.optionalKey(
    Schema.String.annotate({ description: "The kernel's release, as in uname(2)." }),
  ),
  nodeName: Schema.optionalKey(Schema.String.annotate({ description: "The node's host name." })),
  stages: Schema.Array(StageRecord).annotate({ description: "The stages, in the order of their start." }),
  milestones: Schema.Array(MilestoneRecord).annotate({ description: "The milestones, in order of time." }),
  shutdown: Schema.optionalKey(ShutdownRecord),
})
  .check(
    Schema.makeFilter((record) => {
      const names = record.stages.map((stage) => stage.name)
      const twice = names.find((name, index) => names.indexOf(name) !== index)
      if (twice !== undefined) return { path: ["stages"], issue: `stage "${twice}" is there twice` }
      for (const [index, stage] of record.stages.entries()) {
        const missing = stage.requires.find((name) => !names.includes(name))
        if (missing !== undefined)
          return {
            path: ["stages", index, "requires"],
            issue: `stage "${stage.name}" requires "${missing}", which is not in the record`,
          }
        if (stage.endMs !== null && stage.endMs < stage.startMs)
          return {
            path: ["stages", index, "endMs"],
            issue: `stage "${stage.name}" ends before it starts`,
          }
      }
      return undefined
    }),
  )
  .annotate({ identifier: "BootRecord" })

/** A boot record; the same type as init's own. */
export type BootRecord = BootReport.BootRecord

/**
 * A text is not a boot record; `reason` says what is wrong with it and where.
 *
 * @example
 * ```ts
 * import { BootRecordInvalid } from "@kios/core/BootRecord"
 *
 * const text = new BootRecordInvalid({ reason: "it is no JSON" }).message
 * ```
 */
export class BootRecordInvalid extends Data.TaggedError("BootRecordInvalid")<{
  readonly reason: string
}> {
  override get message(): string {
    return `not a boot record (the content of /run/kios/boot.json): ${this.reason}`
  }
}

const invalid = (reason: string) => new BootRecordInvalid({ reason })

/**
 * Reads a boot record from a value, such as parsed JSON. Keys that this version
 * does not know are ignored. Fails with {@link BootRecordInvalid}.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as BootRecord from "@kios/core/BootRecord"
 *
 * const record = Effect.runSync(
 *   BootRecord.fromUnknown({ version: 1, clock: "CLOCK_MONOTONIC", stages: [], milestones: [] }),
 * )
 * ```
 */
export const fromUnknown = (value: unknown): Effect.Effect<BootRecord, BootRecordInvalid> =>
  Effect.mapError(JsonRecord.decode(BootRecord)(value), invalid)

/**
 * Reads a boot record from the text of `/run/kios/boot.json`. Fails with
 * {@link BootRecordInvalid}.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as BootRecord from "@kios/core/BootRecord"
 *
 * const text = '{"version":1,"clock":"CLOCK_MONOTONIC","stages":[],"milestones":[]}'
 * const record = Effect.runSync(BootRecord.fromJson(text))
 * ```
 */
export const fromJson = (text: string): Effect.Effect<BootRecord, BootRecordInvalid> =>
  JsonRecord.parse(text).pipe(Effect.mapError(invalid), Effect.flatMap(fromUnknown))

/**
 * How long each stage that ended took, in milliseconds by name: what
 * `Plan.make` takes to find the critical path of a boot that happened.
 *
 * @example
 * ```ts
 * import * as BootRecord from "@kios/core/BootRecord"
 *
 * const none = BootRecord.durations({ version: 1, clock: "CLOCK_MONOTONIC", stages: [], milestones: [] })
 * ```
 */
export const durations = (record: BootRecord): Readonly<Record<string, number>> =>
  Object.fromEntries(
    record.stages.flatMap((stage) =>
      stage.endMs === null ? [] : [[stage.name, Math.max(0, stage.endMs - stage.startMs)]],
    ),
  )

/**
 * The JSON Schema (draft 2020-12) of the format, for readers in other languages.
 *
 * @example
 * ```ts
 * import * as BootRecord from "@kios/core/BootRecord"
 *
 * const text = JSON.stringify(BootRecord.jsonSchema(), null, 2)
 * ```
 */
export const jsonSchema = (): Readonly<Record<string, unknown>> =>
  JsonRecord.jsonSchemaOf(BootRecord, {
    title: "kiOS boot record",
    description: "What happened during a boot and when: the content of /run/kios/boot.json on a node.",
  })
