import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schedule } from "effect"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import { Supervisor } from "@kios/core/Supervisor"
import * as Readiness from "@kios/core/Readiness"
import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { forever } from "@kios/core/testing/TestPrograms"

class One extends Context.Service<One, object>()("test/One") {}

const PATH = "/one"
const machine = () => TestMachine.make({ files: { [PATH]: "1" }, programs: { "/bin/x": forever } })
const read = Kernel.use((kernel) => kernel.readText(PATH))
const stageOf = (
  body: Effect.Effect<unknown, unknown, Kernel>,
  options: {
    readonly criticality?: Stage.Criticality
    readonly tolerates?: ReadonlyArray<Stage.Tolerance>
    readonly retry?: Schedule.Schedule<unknown>
  } = {},
) =>
  Stage.make({
    name: "one",
    description: "one",
    provides: [One],
    ...options,
    layer: Layer.effect(One, Effect.as(body, {})),
  })

/** What became of the boot in which the only call of the stage failed with EIO. */
const outcomeOf = (stage: ReturnType<typeof stageOf>, more: ReadonlyArray<Stage.Any> = []) =>
  Effect.gen(function* () {
    const stages = [stage, ...more] as ReadonlyArray<Stage.Any>
    // Its types want to know each stage; these are made for the test.
    const { layer } = Pipeline.make(stages as unknown as [typeof stage])
    const { trials, undeclared } = yield* ErrnoSweep.sweep({
      pipeline: { stages, layer },
      machine,
      errnos: { readText: ["EIO"] },
      within: "1 second",
      only: (site) => site.stage === "one",
    })
    assert.strictEqual(trials.length, 1)
    assert.deepStrictEqual(
      undeclared,
      trials.filter(({ outcome }) => outcome === undefined),
    )
    return [trials[0]?.outcome, trials[0]?.told] as const
  })

const tolerates = (more: Partial<Stage.Tolerance> = {}): { tolerates: ReadonlyArray<Stage.Tolerance> } => ({
  tolerates: [{ operation: "readText" as keyof KernelShape, because: "of no use", ...more }],
})
const told = Effect.catch(read, (error) => Effect.logWarning(error.message))
const needsOne = (body: Effect.Effect<void, unknown>) =>
  Stage.make({
    name: "two",
    description: "two",
    requires: [One],
    layer: Layer.effectDiscard(Effect.andThen(One, body)),
  })

describe("a call that fails is declared when", () => {
  const cases: Record<string, readonly [ErrnoSweep.Outcome, ReturnType<typeof outcomeOf>]> = {
    "a required stage fails with the errno": ["failed", outcomeOf(stageOf(read))],
    "an optional stage fails with it": ["degraded", outcomeOf(stageOf(read, { criticality: "optional" }))],
    "the stage tolerates it and says so": ["tolerated", outcomeOf(stageOf(told, tolerates()))],
    "the stage tolerates it, silently as declared": [
      "tolerated",
      outcomeOf(stageOf(Effect.ignore(read), tolerates({ silent: true, path: /^\/one$/u, errno: ["EIO"] }))),
    ],
    "the stage tries again": ["retried", outcomeOf(stageOf(read, { retry: Schedule.recurs(1) }))],
  }
  for (const [name, [outcome, result]] of Object.entries(cases))
    it.live(name, () => Effect.map(result, ([found, why]) => assert.strictEqual(found, outcome, why)))

  const breaking = (more: Partial<Stage.Tolerance>) => {
    let works = true
    return outcomeOf(
      stageOf(
        Effect.catch(
          Effect.tap(read, () => Effect.sync(() => (works = true))),
          (error) => {
            works = false
            return Effect.logWarning(error.message)
          },
        ),
        tolerates(more),
      ),
      [needsOne(Effect.suspend(() => (works ? Effect.void : Effect.fail(new Error("for want of one")))))],
    )
  }
  it.live("another stage fails for it, as declared", () =>
    Effect.map(breaking({ breaks: ["two"] }), ([found, why]) => assert.strictEqual(found, "failed", why)),
  )
  it.live("and not when that stage was not declared", () =>
    Effect.map(breaking({}), (result) =>
      assert.deepStrictEqual(result, [undefined, 'stage "two" failed: for want of one']),
    ),
  )
})

describe("a call that fails is undeclared when", () => {
  const cases: Record<string, readonly [RegExp, ReturnType<typeof outcomeOf>]> = {
    "the stage swallows it": [/does not say that it tolerates EIO/u, outcomeOf(stageOf(Effect.ignore(read)))],
    "the stage logs it but does not declare it": [/does not say/u, outcomeOf(stageOf(told))],
    "the stage tolerates it without a word": [
      /nothing in the log names EIO/u,
      outcomeOf(stageOf(Effect.ignore(read), tolerates())),
    ],
    "it is another errno that is tolerated": [
      /does not say/u,
      outcomeOf(stageOf(told, tolerates({ errno: ["ENOENT"] }))),
    ],
    "it is another file that is tolerated": [
      /does not say/u,
      outcomeOf(stageOf(told, tolerates({ path: /^\/two$/u }))),
    ],
    "the stage fails of what it says it tolerates": [
      /stage "one" failed/u,
      outcomeOf(stageOf(read, tolerates())),
    ],
    "the reason does not name the errno": [
      /^stage "one" failed: no$/u,
      outcomeOf(stageOf(Effect.mapError(read, () => new Error("no")))),
    ],
    "the boot hangs": [/hangs/u, outcomeOf(stageOf(Effect.catch(read, () => Effect.never)))],
  }
  for (const [name, [why, result]] of Object.entries(cases))
    it.live(name, () =>
      Effect.map(result, ([outcome, words]) => {
        assert.isUndefined(outcome)
        assert.match(words ?? "", why)
      }),
    )
})

it.live("knows calls by their stage, process and order, and those of nobody", () =>
  Effect.gen(function* () {
    const supervised = Stage.make({
      name: "x",
      description: "x",
      layer: Layer.effectDiscard(
        Effect.gen(function* () {
          yield* read
          yield* read
          const process = yield* (yield* Supervisor).supervise({
            name: "px",
            command: "/bin/x",
            args: [],
            env: {},
            readiness: Readiness.make("at once", Effect.void),
          })
          yield* process.awaitUp("5 seconds")
        }),
      ),
    })
    const swept = yield* ErrnoSweep.sweep({ pipeline: Pipeline.make([supervised]), machine })
    assert.deepStrictEqual(ErrnoSweep.describe(swept.undeclared), "")
    assert.deepStrictEqual(
      swept.sites.map((site) => [site.stage, site.process, site.operation, site.path, site.ordinal]),
      [
        ["x", undefined, "readText", "/one", 1],
        ["x", undefined, "readText", "/one", 2],
        ["x", "px", "openOutput", undefined, 1],
        ["x", "px", "spawn", "/bin/x", 1],
        [undefined, undefined, "readText", "/proc/sys/kernel/osrelease", 1],
        [undefined, undefined, "readText", "/proc/sys/kernel/hostname", 1],
      ],
    )
    assert.deepStrictEqual(
      ErrnoSweep.toMarkdown([swept]),
      [
        "| stage  | operation  | sites | boots | failed | degraded | tolerated | retried | unaffected | undeclared |",
        "| ------ | ---------- | ----: | ----: | -----: | -------: | --------: | ------: | ---------: | ---------: |",
        "| x      | openOutput |     1 |     2 |      0 |        0 |         0 |       2 |          0 |          0 |",
        "| x      | readText   |     2 |    10 |     10 |        0 |         0 |       0 |          0 |          0 |",
        "| x      | spawn      |     1 |     5 |      0 |        0 |         0 |       5 |          0 |          0 |",
        "| (none) | readText   |     2 |    10 |      0 |        0 |         0 |       0 |         10 |          0 |",
        "| all    |            |     6 |    27 |     10 |        0 |         0 |       7 |         10 |          0 |",
      ].join("\n"),
    )
  }),
)
