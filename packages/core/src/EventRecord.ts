/**
 * The published format of `/run/kios/events.json`: what happened on a node,
 * for everything that reads it (pods, tests, dashboards).
 *
 * Its JSON Schema is docs/reference/events.schema.json. Init writes the file by
 * the plain types in `Events.ts` and has no decoder in it.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Events from "./Events.ts"
import * as JsonRecord from "./internal/jsonRecord.ts"

const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Pid = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const Positive = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const Severity = Schema.Literals(["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"])

const stamp = {
  sequence: Positive.annotate({ description: "1 for the first event since init started; no gaps." }),
  atMs: Milliseconds.annotate({ description: "When it was, in milliseconds since the kernel started." }),
  time: Schema.String.annotate({
    description: "The same moment by the machine's clock (ISO 8601, UTC), which jumps when it is set.",
  }),
  severity: Severity.annotate({ description: "As in syslog(3)." }),
}
const name = Schema.NonEmptyString.annotate({ description: "The supervised process's name." })
const run = Positive.annotate({ description: "Number of the start, from 1, of the processes of this name." })
const reason = Schema.String.annotate({ description: "Why, in one line." })
const about = { process: name, run, pid: Pid }

const EventSchema = Schema.Union([
  Schema.Struct({ ...stamp, kind: Schema.tag("process-started"), ...about }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("process-ready"),
    ...about,
    afterMs: Milliseconds.annotate({ description: "Since it was started." }),
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("process-unresponsive"),
    ...about,
    failures: Positive.annotate({ description: "Probes in a row that failed." }),
    reason,
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("process-killed"),
    ...about,
    afterMs: Milliseconds.annotate({ description: "How long it had not ended after SIGTERM." }),
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("process-unkillable"),
    ...about,
    afterMs: Milliseconds.annotate({ description: "How long it had not ended after SIGKILL." }),
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("process-ended"),
    process: name,
    run,
    pid: Schema.NullOr(Pid).annotate({ description: "Null when it could not be started." }),
    exitCode: Schema.NullOr(Schema.Int).annotate({
      description: "Null when a signal ended it, or when it could not be started.",
    }),
    signal: Schema.NullOr(Schema.String).annotate({
      description: "The signal that ended it, as signal(7) spells it; null when it exited.",
    }),
    oomKilled: Schema.Boolean.annotate({
      description: "The signal was the kernel's, which was short of memory.",
    }),
    wanted: Schema.Boolean.annotate({ description: "It was asked to end, to be stopped or started again." }),
    reason,
    ranForMs: Milliseconds,
    deaths: Count.annotate({ description: "How often in a row it has ended without being asked to." }),
    nextStartInMs: Schema.NullOr(Milliseconds).annotate({
      description: "The back-off before the next start; null when there is none.",
    }),
    lastLines: Schema.Array(Schema.String).annotate({
      description: "The last lines it wrote, oldest first.",
    }),
  }),
  Schema.Struct({ ...stamp, kind: Schema.tag("process-stopped"), process: name }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("output-dropped"),
    process: name,
    bytes: Count.annotate({ description: "How much of its output is neither in its log nor told." }),
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("stage-failed"),
    stage: Schema.NonEmptyString,
    criticality: Schema.Literals(["required", "optional"]),
    reason,
  }),
  Schema.Struct({ ...stamp, kind: Schema.tag("stage-skipped"), stage: Schema.NonEmptyString, reason }),
  Schema.Struct({ ...stamp, kind: Schema.tag("module-refused"), module: Schema.NonEmptyString, reason }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("manifest-error"),
    file: Schema.String.annotate({ description: "The static pod manifest that the kubelet cannot use." }),
    reason,
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("config-error"),
    file: Schema.String.annotate({ description: "The file that is not used, or not all of it." }),
    line: Schema.NullOr(Schema.Int).annotate({ description: "Null when it is about the whole file." }),
    reason,
  }),
  Schema.Struct({
    ...stamp,
    kind: Schema.tag("note"),
    source: Schema.String.annotate({ description: "Who tells it, such as a stage." }),
    level: Severity,
    message: Schema.String,
  }),
]).annotate({ identifier: "Event", description: "Something that happened." })

const Totals = Schema.Struct({
  process: name,
  pid: Schema.NullOr(Pid).annotate({ description: "Null while it does not run." }),
  starts: Count.annotate({ description: "Runs that have begun." }),
  deaths: Count.annotate({ description: "Runs that have ended without being asked to." }),
  wantedEnds: Count.annotate({ description: "Runs that have ended as they were asked to." }),
  failedStarts: Count.annotate({ description: "Starts that did not become a run." }),
  unresponsive: Count.annotate({ description: "How often it was found to hang." }),
}).annotate({
  identifier: "ProcessTotals",
  description: "What has happened to a process since init started; no event is forgotten here.",
})

/**
 * The schema of an event record.
 *
 * @example
 * ```ts
 * import * as Schema from "effect/Schema"
 * import * as EventRecord from "@kios/core/EventRecord"
 *
 * const isRecord = Schema.is(EventRecord.EventRecord)
 * isRecord({ version: 1, clock: "CLOCK_MONOTONIC", total: 0, processes: [], events: [] }) // true
 * ```
 */
export const EventRecord = Schema.Struct({
  version: Schema.Literal(1).annotate({
    description: "The format's version. Keys and kinds of events may be added within a version.",
  }),
  clock: Schema.Literal("CLOCK_MONOTONIC").annotate({
    description: "The clock of atMs and the durations, as in clock_gettime(2).",
  }),
  total: Count.annotate({
    description: "How many events there have been; only the last of them are in `events`.",
  }),
  processes: Schema.Array(Totals).annotate({ description: "The processes that init has supervised." }),
  events: Schema.Array(EventSchema).annotate({ description: "The last events, oldest first." }),
}).annotate({ identifier: "EventRecord" })

/** An event record; the same type as init's own. */
export type EventRecord = Events.EventRecord

/**
 * A text is not an event record; `reason` says what is wrong with it and where.
 *
 * @example
 * ```ts
 * import { EventRecordInvalid } from "@kios/core/EventRecord"
 *
 * const text = new EventRecordInvalid({ reason: "it is no JSON" }).message
 * ```
 */
export class EventRecordInvalid extends Data.TaggedError("EventRecordInvalid")<{
  readonly reason: string
}> {
  override get message(): string {
    return `not an event record (the content of /run/kios/events.json): ${this.reason}`
  }
}

/**
 * Reads an event record from the text of `/run/kios/events.json`. Keys that
 * this version does not know are ignored. Fails with {@link EventRecordInvalid}.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as EventRecord from "@kios/core/EventRecord"
 *
 * const text = '{"version":1,"clock":"CLOCK_MONOTONIC","total":0,"processes":[],"events":[]}'
 * const record = Effect.runSync(EventRecord.fromJson(text))
 * ```
 */
export const fromJson = (text: string): Effect.Effect<EventRecord, EventRecordInvalid> =>
  JsonRecord.parse(text).pipe(
    Effect.flatMap(JsonRecord.decode(EventRecord)),
    Effect.mapError((reason) => new EventRecordInvalid({ reason })),
  )

/**
 * The JSON Schema (draft 2020-12) of the format, for readers in other languages.
 *
 * @example
 * ```ts
 * import * as EventRecord from "@kios/core/EventRecord"
 *
 * const text = JSON.stringify(EventRecord.jsonSchema(), null, 2)
 * ```
 */
export const jsonSchema = (): Readonly<Record<string, unknown>> =>
  JsonRecord.jsonSchemaOf(EventRecord, {
    title: "kiOS event record",
    description: "What has happened on a node and when: the content of /run/kios/events.json.",
  })
