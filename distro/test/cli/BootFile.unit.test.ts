import { assert, it } from "@effect/vitest"
import * as BootRecord from "@kios/core/BootRecord"
import { Effect, Schema } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { fromTimeline, readBoot, toTimeline, writePicture } from "../../src/cli/BootFile.ts"
import * as Seal from "../../src/image/Seal.ts"
import type { Timeline } from "../../src/vm/Timeline.ts"

const watched: Timeline = {
  kernelVersion: "6.12.0",
  initSeconds: 0.3,
  stages: [
    { name: "root-switch", start: 0.31, end: 0.4, outcome: "up" },
    // By the console's rounding, a bit before root-switch was up.
    { name: "pseudo-filesystems", start: 0.39996, end: 0.5, outcome: "up" },
    { name: "machine-id", start: 0.6, end: 0.7, outcome: "failed", reason: "EROFS" },
    { name: "of-another-distro", start: 0.6, end: 0.8, outcome: "up" },
  ],
  milestones: [
    { name: "boot-complete", at: 0.9 },
    { name: "pod-running", at: 1.2, detail: "pod=default/hello" },
  ],
  totalSeconds: 1.2,
}

const inDirectory = <A, E>(run: (directory: string) => Effect.Effect<A, E>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-bootfile-"))),
    run,
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
  )

it("what was watched on the console is a record, with the requirements that the plan knows", () => {
  const record = fromTimeline(watched)
  assert.isTrue(Schema.is(BootRecord.BootRecord)(record))
  const stage = (name: string) => record.stages.find((one) => one.name === name)
  assert.deepStrictEqual(stage("pseudo-filesystems")?.requires, ["root-switch"])
  assert.strictEqual(stage("pseudo-filesystems")?.startMs, 400)
  // etc-overlay, which it waits for, was not seen.
  assert.deepStrictEqual(stage("machine-id")?.requires, [])
  assert.strictEqual(stage("machine-id")?.criticality, "optional")
  assert.strictEqual(stage("of-another-distro")?.criticality, "required")
  assert.deepStrictEqual(record.milestones[1]?.attributes, { pod: "default/hello" })
})

it("a record as a timeline of the terminal keeps times, outcomes and reasons", () => {
  const timeline = toTimeline({
    version: 1,
    clock: "CLOCK_MONOTONIC",
    stages: [
      { name: "a", startMs: 100, endMs: 250, outcome: "up", criticality: "required", requires: [] },
      { name: "b", startMs: 250, endMs: null, outcome: "running", criticality: "required", requires: ["a"] },
      { name: "c", startMs: 250, endMs: 300, outcome: "interrupted", criticality: "required", requires: [] },
    ],
    milestones: [{ name: "init", atMs: 90, attributes: { by: "kernel" } }],
  })
  assert.strictEqual(timeline.initSeconds, 0.09)
  assert.strictEqual(timeline.totalSeconds, 0.3)
  assert.deepStrictEqual(timeline.stages[1], {
    name: "b",
    start: 0.25,
    end: 0.3,
    outcome: "failed",
    reason: "still running",
  })
  assert.strictEqual(timeline.stages[2]?.reason, "interrupted")
  assert.deepStrictEqual(timeline.milestones[0], { name: "init", at: 0.09, detail: "by=kernel" })
})

it.effect("reads a node's boot.json and the output of kios run --json", () =>
  inDirectory((directory) =>
    Effect.gen(function* () {
      const record = fromTimeline(watched)
      const file = path.join(directory, "boot.json")
      fs.writeFileSync(file, JSON.stringify(record, null, 1))
      assert.deepStrictEqual(yield* readBoot(file), record)
      const log = path.join(directory, "run.jsonl")
      const lines = [
        { event: "boot", seconds: 1 },
        { event: "finished", reached: true, timeline: watched },
      ]
      fs.writeFileSync(log, `${lines.map((line) => JSON.stringify(line)).join("\n")}\n{"event":"ready"}\n`)
      assert.deepStrictEqual(yield* readBoot(log), record)
    }),
  ),
)

it.effect("a file that is none of them is one sentence with its name", () =>
  inDirectory((directory) =>
    Effect.gen(function* () {
      const reason = (file: string) => Effect.map(Effect.flip(readBoot(file)), (error) => error.message)
      const file = path.join(directory, "boot.json")
      assert.strictEqual(yield* reason(file), `${file}: cannot be read: ENOENT`)
      assert.strictEqual(yield* reason(directory), `${directory}: cannot be read: EISDIR`)
      fs.writeFileSync(file, '{"version":1}')
      assert.match(yield* reason(file), /not a boot record.*"clock"/u)
      fs.writeFileSync(file, '{"event":"finished"\n')
      assert.match(yield* reason(file), /not a boot record/u)
      fs.truncateSync(file, 65 * 1024 * 1024)
      assert.match(yield* reason(file), /is 68157440 bytes long/u)
      const nowhere = path.join(directory, "no", "plan.svg")
      const error = yield* Effect.flip(writePicture(nowhere, "<svg/>"))
      assert.strictEqual(error.message, `${nowhere}: cannot be written: ENOENT`)
    }),
  ),
)

it.effect("init writes the record and has no decoder or drawing of it in its bundle", () =>
  inDirectory((directory) =>
    Effect.gen(function* () {
      const entry = fileURLToPath(new URL("../../src/init.ts", import.meta.url))
      const { modules } = yield* Seal.bundle(entry, path.join(directory, "init.cjs"))
      const names = modules.filter(({ bytes }) => bytes > 0).map((module) => path.basename(module.path))
      assert.include(names, "BootReport.ts")
      for (const name of ["BootRecord.ts", "TimelineSvg.ts", "PlanSvg.ts", "Plan.ts", "Svg.ts"])
        assert.notInclude(names, name)
    }),
  ),
)
