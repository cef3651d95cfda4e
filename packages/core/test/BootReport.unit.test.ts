import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, References } from "effect"
import { TestClock } from "effect/testing"
import { BootReport, formatAttributes } from "@kios/core/BootReport"
import { formatRecord, Kmsg, loggerLayer } from "@kios/core/Kmsg"
import * as TestMachine from "@kios/core/testing/TestMachine"

describe("BootReport", () => {
  const run = <A, E>(body: (report: BootReport["Service"]) => Effect.Effect<A, E>) => {
    const machine = TestMachine.make()
    return Effect.map(
      Effect.flatMap(BootReport, body).pipe(Effect.provide(TestMachine.platform(machine))),
      (result) => ({ result, kmsg: machine.kmsg }),
    )
  }

  it.effect("the console's lines, exactly", () =>
    Effect.gen(function* () {
      const { kmsg } = yield* run((report) =>
        Effect.gen(function* () {
          yield* report.milestone("init")
          yield* report.stageStarted("root-switch")
          yield* TestClock.adjust("1234 micros" as never)
          yield* report.stageUp("root-switch")
          yield* report.stageStarted("disk")
          yield* TestClock.adjust("2 seconds")
          yield* report.stageFailed("disk", 'no "disk"', "optional")
          yield* report.stageSkipped("user", "disk did not come up")
          yield* report.stageStarted("net")
          yield* report.stageFailed("net", "ENODEV", "required")
          yield* report.stageStarted("slow")
          yield* report.stageInterrupted("slow")
          yield* report.milestone("pod-running", { pod: "default/hello", note: "two words" })
        }),
      )
      assert.deepStrictEqual(kmsg, [
        "notice milestone init",
        "notice stage root-switch up ms=1.2",
        'warning stage disk failed ms=2000.0 criticality=optional reason="no \\"disk\\""',
        'warning stage user skipped reason="disk did not come up"',
        "err stage net failed ms=0.0 criticality=required reason=ENODEV",
        'notice milestone pod-running pod=default/hello note="two words"',
      ])
    }),
  )

  it.effect("a milestone is told once, with other attributes again", () =>
    Effect.gen(function* () {
      const { kmsg, result } = yield* run((report) =>
        Effect.gen(function* () {
          for (const pod of ["a", "b", "a", "a"]) yield* report.milestone("pod-running", { pod })
          return yield* report.current
        }),
      )
      assert.deepStrictEqual(kmsg, [
        "notice milestone pod-running pod=a",
        "notice milestone pod-running pod=b",
      ])
      assert.deepStrictEqual(
        result.milestones.map((milestone) => milestone.attributes["pod"]),
        ["a", "b"],
      )
    }),
  )

  it.effect("times are milliseconds of the kernel's clock", () =>
    Effect.gen(function* () {
      const { result } = yield* run((report) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("1500 millis")
          yield* report.stageStarted("a")
          yield* TestClock.adjust("250 millis")
          yield* report.stageUp("a")
          yield* report.stageStarted("b")
          return yield* report.current
        }),
      )
      const [a, b] = result.stages
      assert.deepInclude(a, { name: "a", startMs: 1500, endMs: 1750, outcome: "up" })
      assert.deepInclude(b, { name: "b", startMs: 1750, endMs: null, outcome: "running" })
    }),
  )

  it.effect("`changed` waits for a change, and again for the next", () =>
    Effect.gen(function* () {
      yield* run((report) =>
        Effect.gen(function* () {
          const first = yield* Effect.forkChild(report.changed, { startImmediately: true })
          assert.isUndefined(first.pollUnsafe())
          yield* report.milestone("one")
          yield* Fiber.join(first)
          const second = yield* Effect.forkChild(report.changed, { startImmediately: true })
          assert.isUndefined(second.pollUnsafe())
          yield* Fiber.interrupt(second)
        }),
      )
    }),
  )

  it("attributes are quoted where they have to be", () => {
    assert.strictEqual(
      formatAttributes({ a: "x/y.z:1@2+3-4_5", b: "", c: "a b", d: 'q"', e: "line\nbreak", f: "größe" }),
      'a=x/y.z:1@2+3-4_5 b="" c="a b" d="q\\"" e="line\\nbreak" f="größe"',
    )
  })
})

describe("Kmsg", () => {
  it("a record has the priority of its severity, facility daemon", () => {
    const priorities = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"] as const
    assert.deepStrictEqual(
      priorities.map((severity) => formatRecord(severity, "x")),
      [24, 25, 26, 27, 28, 29, 30, 31].map((priority) => `<${priority}>kios: x\n`),
    )
  })
  it("a record is one line, and bounded", () => {
    assert.strictEqual(formatRecord("info", "one\n  two \n\nthree"), "<30>kios: one | two | three\n")
    const long = formatRecord("info", "x".repeat(5000))
    assert.isAtMost(Buffer.byteLength(long), 1000)
    assert.match(long, /x\.\.\.\n$/u)
  })
  it.effect("what Effect logs gets its level, stage, process and annotations", () =>
    Effect.gen(function* () {
      const records: Array<string> = []
      yield* Effect.gen(function* () {
        yield* Effect.logInfo("plain")
        yield* Effect.logWarning("careful").pipe(Effect.annotateLogs({ stage: "disk", device: "vda" }))
        yield* Effect.logError("bad", { n: 1 }).pipe(Effect.annotateLogs({ process: "kubelet" }))
        yield* Effect.logFatal("worse")
        yield* Effect.logDebug("dropped")
        yield* Kmsg.use((kmsg) => kmsg.logFrom("debug"))
        yield* Effect.logDebug("detail")
        yield* Kmsg.use((kmsg) => kmsg.logFrom("err"))
        yield* Effect.logWarning("dropped too")
      }).pipe(
        Effect.provide(Layer.provideMerge(loggerLayer, Kmsg.layerArray(records))),
        Effect.provideService(References.MinimumLogLevel, "Debug"),
      )
      assert.deepStrictEqual(records, [
        "info plain",
        'warning warn disk: careful device="vda"',
        'err error kubelet: bad {"n":1}',
        "crit error worse",
        "debug detail",
      ])
    }),
  )
})
