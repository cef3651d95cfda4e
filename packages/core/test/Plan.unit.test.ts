import { assert, it } from "@effect/vitest"
import { Context, Layer } from "effect"
import * as Plan from "@kios/core/Plan"
import * as Stage from "@kios/core/Stage"

class Disk extends Context.Service<Disk, {}>()("t/Disk") {}
class Net extends Context.Service<Net, {}>()("t/Net") {}
class Runtime extends Context.Service<Runtime, {}>()("t/Runtime") {}

const stages = [
  Stage.make({
    name: "disk",
    description: "find the disk",
    provides: [Disk],
    layer: Layer.succeed(Disk, {}),
  }),
  Stage.make({
    name: "net",
    description: "bring up the network",
    provides: [Net],
    layer: Layer.succeed(Net, {}),
  }),
  Stage.make({
    name: "runtime",
    description: "start the runtime",
    requires: [Disk, Net],
    provides: [Runtime],
    layer: Layer.succeed(Runtime, {}),
  }),
  Stage.make({
    name: "images",
    description: "load images",
    criticality: "optional",
    requires: [Runtime, Disk],
    layer: Layer.empty,
  }),
]

it("says what waits for what, and what can start together", () => {
  const plan = Plan.make(stages)
  assert.deepStrictEqual(
    plan.stages.map(({ after, criticality, depth, name, provides, requires }) => ({
      after,
      criticality,
      depth,
      name,
      provides,
      requires,
    })),
    [
      { name: "disk", criticality: "required", requires: [], provides: ["t/Disk"], after: [], depth: 0 },
      { name: "net", criticality: "required", requires: [], provides: ["t/Net"], after: [], depth: 0 },
      {
        name: "runtime",
        criticality: "required",
        requires: ["t/Disk", "t/Net"],
        provides: ["t/Runtime"],
        after: ["disk", "net"],
        depth: 1,
      },
      {
        name: "images",
        criticality: "optional",
        requires: ["t/Runtime", "t/Disk"],
        provides: [],
        after: ["runtime", "disk"],
        depth: 2,
      },
    ],
  )
})
it("without durations the critical path is the longest chain, with them the slowest", () => {
  assert.deepStrictEqual(Plan.make(stages).criticalPath, ["disk", "runtime", "images"])
  assert.deepStrictEqual(Plan.make(stages, { disk: 5, net: 80, runtime: 10, images: 1 }).criticalPath, [
    "net",
    "runtime",
    "images",
  ])
  assert.deepStrictEqual(Plan.make(stages, { disk: 5, net: 800, runtime: 10, images: 1 }).criticalPathMs, 811)
})
it("nothing is an empty plan, and can be printed", () => {
  assert.deepStrictEqual(Plan.make([]).criticalPath, [])
  assert.include(Plan.toText(Plan.make([])), "critical path")
  assert.strictEqual(Plan.toMermaid(Plan.make([])), "flowchart LR")
})
it("as text: a line a stage, by depth, the critical path marked", () => {
  assert.deepStrictEqual(Plan.toText(Plan.make(stages)).split("\n"), [
    " 0 * disk    required find the disk",
    " 0   net     required bring up the network",
    " 1 * runtime required start the runtime (after disk, net)",
    " 2 * images  optional load images (after runtime, disk)",
    "",
    "* critical path: disk > runtime > images",
  ])
})
it("as Mermaid: optional stages are round, the critical path is thick", () => {
  assert.deepStrictEqual(Plan.toMermaid(Plan.make(stages)).split("\n"), [
    "flowchart LR",
    '  disk["disk"]',
    '  net["net"]',
    '  runtime["runtime"]',
    '  images(["images"])',
    "  disk ==> runtime",
    "  net --> runtime",
    "  runtime ==> images",
    "  disk --> images",
  ])
})
