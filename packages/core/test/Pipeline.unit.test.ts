// When stages start, what a failure does to the others, and what is released when.
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Exit, Fiber, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { BootReport, type BootRecord } from "@kios/core/BootReport"
import * as Pipeline from "@kios/core/Pipeline"
import * as Plan from "@kios/core/Plan"
import * as Stage from "@kios/core/Stage"
import * as TestMachine from "@kios/core/testing/TestMachine"

class Boom extends Data.TaggedError("Boom")<{ readonly message: string }> {}
class A extends Context.Service<A, { readonly v: number }>()("t/A") {}
class B extends Context.Service<B, { readonly v: number }>()("t/B") {}
class C extends Context.Service<C, { readonly v: number }>()("t/C") {}
class D extends Context.Service<D, { readonly v: number }>()("t/D") {}

/** Comes up after a time and says so, and when it is released. */
const up = <I>(tag: Context.Key<I, { readonly v: number }>, log: Array<string>, ms = 0) =>
  Layer.effect(
    tag,
    Effect.acquireRelease(
      Effect.sleep(ms).pipe(
        Effect.andThen(
          Effect.sync(() => {
            log.push(`+${tag.key}`)
            return { v: 1 }
          }),
        ),
        Effect.onInterrupt(() => Effect.sync(() => log.push(`!${tag.key}`))),
      ),
      () => Effect.sync(() => log.push(`-${tag.key}`)),
      { interruptible: true },
    ),
  )

type AnyPipeline = { readonly layer: Layer.Layer<never, Pipeline.StageFailed, Stage.Platform> }

/** Boots, gives the clock that many milliseconds, and tells how it went. */
const boot = (pipeline: unknown, ms = 0) =>
  Effect.gen(function* () {
    const machine = TestMachine.make()
    const done = yield* Deferred.make<BootRecord>()
    const fiber = yield* Layer.build((pipeline as AnyPipeline).layer).pipe(
      Effect.scoped,
      Effect.onExit(() =>
        Effect.flatMap(BootReport, (report) =>
          Effect.flatMap(report.current, (now) => Deferred.succeed(done, now)),
        ),
      ),
      Effect.provide(TestMachine.platform(machine)),
      Effect.forkChild({ startImmediately: true }),
    )
    yield* TestClock.adjust(ms)
    const exit = yield* Fiber.await(fiber)
    return { exit, record: yield* Deferred.await(done), kmsg: machine.kmsg }
  })

const timesOf = (record: BootRecord) =>
  Object.fromEntries(
    record.stages.map((stage) => [stage.name, [stage.startMs, stage.endMs, stage.outcome] as const]),
  )

describe("schedule", () => {
  it.effect("a stage starts when its own requirements are up, and not later", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { exit, record } = yield* boot(
        Pipeline.make([
          Stage.make({ name: "a", description: "", provides: [A], layer: up(A, log, 100) }),
          Stage.make({ name: "b", description: "", provides: [B], requires: [A], layer: up(B, log, 300) }),
          Stage.make({ name: "c", description: "", provides: [C], layer: up(C, log, 50) }),
          Stage.make({ name: "d", description: "", provides: [D], requires: [A, C], layer: up(D, log, 10) }),
        ]),
        1000,
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(timesOf(record), {
        a: [0, 100, "up"],
        b: [100, 400, "up"],
        c: [0, 50, "up"],
        d: [100, 110, "up"],
      })
      assert.deepStrictEqual(log.slice(0, 4), ["+t/C", "+t/A", "+t/D", "+t/B"])
    }),
  )

  it.effect("a service is built once, however many need it, and released after all of them", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* boot(
        Pipeline.make([
          Stage.make({ name: "a", description: "", provides: [A], layer: up(A, log) }),
          Stage.make({ name: "b", description: "", provides: [B], requires: [A], layer: up(B, log, 5) }),
          Stage.make({ name: "c", description: "", provides: [C], requires: [A, B], layer: up(C, log, 5) }),
        ]),
        100,
      )
      assert.deepStrictEqual(log, ["+t/A", "+t/B", "+t/C", "-t/C", "-t/B", "-t/A"])
    }),
  )

  const Graph = Schema.Array(
    Schema.Struct({
      ms: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 500 })),
      after: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff })),
    }),
  ).check(Schema.isMaxLength(12))
  it.effect.prop(
    "on any graph the boot takes as long as its critical path",
    [Graph],
    ([graph]) =>
      Effect.gen(function* () {
        const keys = graph.map((_, index) => Context.Service<never, { readonly v: number }>(`t/${index}`))
        const stages = graph.map(({ after, ms }, index) =>
          Stage.make({
            name: `s${index}`,
            description: "",
            provides: [keys[index]] as never,
            requires: keys.filter((_, other) => other < index && (after & (1 << other)) !== 0) as never,
            layer: up(keys[index] as never, [], ms) as never,
          }),
        )
        const durations = Object.fromEntries(graph.map(({ ms }, index) => [`s${index}`, ms]))
        const path = Plan.make(stages, durations).criticalPath
        const expected = path.reduce((total, name) => total + (durations[name] ?? 0), 0)
        const { record } = yield* boot(Pipeline.make(stages as never), 10_000)
        assert.strictEqual(Math.max(0, ...record.stages.map((stage) => stage.endMs ?? Number.NaN)), expected)
        for (const [index, { after }] of graph.entries()) {
          const ends = graph.flatMap((_, other) =>
            other < index && (after & (1 << other)) !== 0
              ? [timesOf(record)[`s${other}`]?.[1] ?? Number.NaN]
              : [],
          )
          assert.strictEqual(timesOf(record)[`s${index}`]?.[0], Math.max(0, ...ends))
        }
      }),
    { arbitrary: { runs: 60 } },
  )

  it("a list without stages is a boot that is over at once", () => {
    assert.deepStrictEqual(Pipeline.make([]).stages, [])
  })
  it.effect("and can be run", () =>
    Effect.gen(function* () {
      const { exit } = yield* boot(Pipeline.make([]))
      assert.isTrue(Exit.isSuccess(exit))
    }),
  )
})

const failing = (message: string, ms = 0) =>
  Effect.andThen(Effect.sleep(ms), Effect.fail(new Boom({ message })))

describe("failure", () => {
  it.effect("a required stage that fails interrupts the others and releases in reverse order", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { exit, kmsg, record } = yield* boot(
        Pipeline.make([
          Stage.make({ name: "a", description: "", provides: [A], layer: up(A, log, 1) }),
          Stage.make({ name: "b", description: "", provides: [B], requires: [A], layer: up(B, log, 1) }),
          Stage.make({
            name: "slow",
            description: "",
            provides: [C],
            layer: up(C, log, 60_000),
            timeout: "2 minutes",
          }),
          Stage.make({
            name: "bad",
            description: "",
            provides: [D],
            requires: [B],
            layer: Layer.effect(D, failing("the disk\n  is gone", 5)),
          }),
        ]),
        10,
      )
      assert.deepStrictEqual(log, ["+t/A", "+t/B", "!t/C", "-t/B", "-t/A"])
      assert.deepStrictEqual(timesOf(record), {
        a: [0, 1, "up"],
        b: [1, 2, "up"],
        slow: [0, 7, "interrupted"],
        bad: [2, 7, "failed"],
      })
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.message, 'stage "bad" failed: the disk; is gone')
      assert.instanceOf(error.cause, Boom)
      assert.include(kmsg, 'err stage bad failed ms=5.0 criticality=required reason="the disk; is gone"')
    }),
  )

  it.effect("a defect of a stage is its failure too", () =>
    Effect.gen(function* () {
      const { exit } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "bad",
            description: "",
            layer: Layer.effectDiscard(Effect.die(new TypeError("x is undefined"))),
          }),
        ]),
      )
      assert.strictEqual((yield* Effect.flip(exit)).message, 'stage "bad" failed: x is undefined')
    }),
  )

  it.effect("an optional stage that fails skips what rests on it, and the boot goes on", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { exit, kmsg, record } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "opt",
            description: "",
            criticality: "optional",
            provides: [A],
            layer: Layer.effect(A, failing("no")),
          }),
          Stage.make({
            name: "b",
            description: "",
            criticality: "optional",
            provides: [B],
            requires: [A],
            layer: up(B, log),
          }),
          Stage.make({
            name: "c",
            description: "",
            criticality: "optional",
            provides: [C],
            requires: [B],
            layer: up(C, log),
          }),
          Stage.make({ name: "d", description: "", provides: [D], layer: up(D, log) }),
        ]),
        10,
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(log, ["+t/D", "-t/D"])
      assert.deepStrictEqual(
        record.stages.map((stage) => [stage.name, stage.outcome, stage.reason]).toSorted(),
        [
          ["b", "skipped", 'stage "b" was skipped: t/A did not come up'],
          ["c", "skipped", 'stage "c" was skipped: t/B did not come up'],
          ["d", "up", undefined],
          ["opt", "failed", "no"],
        ],
      )
      // Told once each: skipped is not failed as well.
      assert.strictEqual(kmsg.filter((line) => line.includes("stage b ")).length, 1)
      assert.include(kmsg, "warning stage opt failed ms=0.0 criticality=optional reason=no")
    }),
  )

  it.effect("a stage that is not up in time has failed, also when its acquisition does not listen", () =>
    Effect.gen(function* () {
      const { exit } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "slow",
            description: "",
            timeout: "2 seconds",
            layer: Layer.effectDiscard(Effect.never),
          }),
        ]),
        2000,
      )
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.message, 'stage "slow" failed: stage "slow" was not up within 2s')
      assert.instanceOf(error.cause, Pipeline.StageTimeout)
    }),
  )

  it.effect("a timeout covers all attempts together", () =>
    Effect.gen(function* () {
      const { exit, record } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "again",
            description: "",
            timeout: "1 second",
            retry: Schedule.spaced("300 millis"),
            layer: Layer.effectDiscard(failing("not yet")),
          }),
        ]),
        5000,
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(timesOf(record)["again"], [0, 1000, "failed"])
    }),
  )
})

describe("retry", () => {
  it.effect("builds the layer anew, after releasing what the failed attempt had acquired", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      let attempts = 0
      const { exit, record } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "flaky",
            description: "",
            provides: [A],
            retry: Schedule.spaced("100 millis"),
            layer: Layer.effect(
              A,
              Effect.gen(function* () {
                const attempt = ++attempts
                yield* Effect.acquireRelease(
                  Effect.sync(() => log.push(`+${attempt}`)),
                  () => Effect.sync(() => log.push(`-${attempt}`)),
                )
                if (attempt < 3) return yield* new Boom({ message: `attempt ${attempt}` })
                return { v: attempt }
              }),
            ),
          }),
          Stage.make({
            name: "user",
            description: "",
            requires: [A],
            layer: Layer.effectDiscard(A.use(({ v }) => Effect.sync(() => log.push(`used ${v}`)))),
          }),
        ]),
        1000,
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(log, ["+1", "-1", "+2", "-2", "+3", "used 3", "-3"])
      assert.deepStrictEqual(timesOf(record)["flaky"], [0, 200, "up"])
    }),
  )

  it.effect("builds what the layer is made of anew as well", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      let attempts = 0
      const part = Layer.effect(
        B,
        Effect.acquireRelease(
          Effect.sync(() => {
            log.push("+part")
            return { v: 1 }
          }),
          () => Effect.sync(() => log.push("-part")),
        ),
      )
      const whole = Layer.effect(
        A,
        B.use((b) => (++attempts < 2 ? Effect.fail(new Boom({ message: "no" })) : Effect.succeed(b))),
      )
      const { exit } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "flaky",
            description: "",
            provides: [A],
            retry: Schedule.spaced("100 millis"),
            layer: Layer.provide(whole, part),
          }),
        ]),
        1000,
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(log, ["+part", "-part", "+part", "-part"])
    }),
  )

  it.effect("a schedule that ends leaves the last failure as the reason", () =>
    Effect.gen(function* () {
      let attempts = 0
      const { exit } = yield* boot(
        Pipeline.make([
          Stage.make({
            name: "flaky",
            description: "",
            retry: Schedule.recurs(2),
            layer: Layer.effectDiscard(
              Effect.suspend(() => Effect.fail(new Boom({ message: `attempt ${++attempts}` }))),
            ),
          }),
        ]),
        1000,
      )
      assert.strictEqual((yield* Effect.flip(exit)).reason, "attempt 3")
    }),
  )
})
