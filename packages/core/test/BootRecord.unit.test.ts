import { assert, describe, expect, expectTypeOf, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Context from "effect/Context"
import * as BootRecord from "@kios/core/BootRecord"
import * as BootReport from "@kios/core/BootReport"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { large, ran, record } from "./support/records.ts"

class Disk extends Context.Service<Disk, string>()("test/Disk") {}
class Net extends Context.Service<Net, string>()("test/Net") {}

const failing = Pipeline.make([
  Stage.make({ name: "disk", description: "a disk", provides: [Disk], layer: Layer.succeed(Disk, "vda") }),
  Stage.make({
    name: "net",
    description: "a network",
    criticality: "optional",
    requires: [Disk],
    provides: [Net],
    layer: Layer.effect(Net, Effect.die(new Error("no\ncable"))),
  }),
  Stage.make({
    name: "web",
    description: "what needs the network",
    criticality: "optional",
    requires: [Net, Disk],
    layer: Layer.empty,
  }),
])

const message = (value: unknown) =>
  Effect.runSync(Effect.map(Effect.flip(BootRecord.fromUnknown(value)), (error) => error.message))

describe("BootRecord", () => {
  it("is the type that init writes", () => {
    expectTypeOf<typeof BootRecord.BootRecord.Type>().toEqualTypeOf<BootReport.BootRecord>()
  })

  it.effect("reads what a boot report writes, with what each stage waited for", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/proc/sys/kernel/osrelease": "6.12.0-kios\n" } })
      const written = yield* Effect.gen(function* () {
        yield* Layer.build(failing.layer)
        const report = yield* BootReport.BootReport
        yield* report.milestone("boot-complete", { by: "test" })
        return JSON.stringify(yield* report.current)
      }).pipe(Effect.provide(TestMachine.platform(machine)), Effect.scoped)
      const read = yield* BootRecord.fromJson(written)
      assert.deepStrictEqual(JSON.parse(written), read)
      assert.strictEqual(read.clock, "CLOCK_MONOTONIC")
      assert.strictEqual(read.kernelRelease, "6.12.0-kios")
      assert.deepStrictEqual(
        read.stages.map(({ criticality, name, outcome, requires }) => [name, outcome, criticality, requires]),
        [
          ["disk", "up", "required", []],
          ["net", "failed", "optional", ["disk"]],
          ["web", "skipped", "optional", ["net", "disk"]],
        ],
      )
      assert.strictEqual(read.stages[1]?.reason, "no; cable")
      assert.include(read.stages[2]?.reason ?? "", "test/Net")
    }),
  )

  it.effect("a node whose /proc cannot be read is reported without its name and kernel", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      machine.failOn("readText", "EIO", { path: "/proc/sys/kernel/osrelease" })
      machine.failOn("readText", "EIO", { path: "/proc/sys/kernel/hostname" })
      const written = yield* BootReport.BootReport.use((report) => report.current).pipe(
        Effect.provide(TestMachine.platform(machine)),
      )
      assert.deepStrictEqual(written, { version: 1, clock: "CLOCK_MONOTONIC", stages: [], milestones: [] })
    }),
  )

  it("keys that a later version of the format adds are ignored", () => {
    const later = { ...large(), firmware: "OVMF" }
    assert.deepStrictEqual(Effect.runSync(BootRecord.fromUnknown(later)), large())
  })

  it("says what is wrong with a file, and where", () => {
    assert.include(message([]), "/run/kios/boot.json")
    assert.include(
      message({ ...large(), version: 2 }),
      'Expected 1, got 2 at ["version"]'.split(",")[0] ?? "",
    )
    assert.include(message(record([ran("a", 2, 1)])), 'stage "a" ends before it starts')
    assert.include(message(record([ran("a", 1, 2), ran("a", 1, 2)])), 'stage "a" is there twice')
    assert.include(message(record([ran("a", 1, 2, ["b"])])), 'requires "b", which is not in the record')
    assert.include(message(record([ran("a", -1, 2)])), '["startMs"]')
    assert.include(message(record([{ ...ran("a", 1, 2), outcome: "gone" as "up" }])), '["outcome"]')
    const error = Effect.runSync(Effect.flip(BootRecord.fromJson('{"version": 1,')))
    assert.match(error.message, /not a boot record.*JSON/u)
    assert.notInclude(error.message, "\n")
  })

  it("durations are those of the stages that ended", () => {
    const stages = [ran("a", 1, 5), ran("b", 5, null, ["a"])]
    assert.deepStrictEqual(BootRecord.durations(record(stages)), { a: 4 })
  })

  it("the published JSON Schema is up to date (vitest -u writes it)", async () => {
    const text = `${JSON.stringify(BootRecord.jsonSchema(), null, 2)}\n`
    assert.include(text, "CLOCK_MONOTONIC")
    await expect(text).toMatchFileSnapshot("../../../docs/reference/boot.schema.json")
  })
})
