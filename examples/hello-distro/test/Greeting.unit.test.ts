import { Hostname } from "@kios/core/capabilities/Hostname"
import { Kubelet } from "@kios/core/capabilities/Kubelet"
import { BootReport } from "@kios/core/BootReport"
import * as Pipeline from "@kios/core/Pipeline"
import * as Plan from "@kios/core/Plan"
import * as Stage from "@kios/core/Stage"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Greeting from "../Greeting.ts"
import { pipeline } from "../pipeline.ts"

const PRODUCT = "/sys/class/dmi/id/product_name"

// What the stage requires, without a kubelet and without a host name that was set.
const hostname = Stage.make({
  name: "hostname",
  description: "a name",
  provides: [Hostname],
  layer: Layer.succeed(Hostname, { name: "node-7" }),
})
const kubelet = Stage.make({
  name: "kubelet",
  description: "a kubelet that is up",
  provides: [Kubelet],
  layer: Layer.succeed(Kubelet, {
    process: {
      name: "kubelet",
      state: Effect.succeed({ _tag: "Up" as const, pid: 42 }),
      lastDeath: Effect.sync(() => undefined),
      starts: Effect.succeed(1),
      awaitUp: () => Effect.void,
      restart: Effect.void,
    },
  }),
})
const small = Pipeline.make([hostname, kubelet, Greeting.stage])

/** Boots the small pipeline on a machine and gives its boot report. */
const boot = (machine: TestMachine.TestMachine) =>
  Effect.gen(function* () {
    yield* Layer.build(small.layer)
    return yield* BootReport.use((report) => report.current)
  }).pipe(Effect.provide(TestMachine.platform(machine)), Effect.scoped)

it.effect("tells the node and its machine", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files: { [PRODUCT]: "Standard PC\n" } })
    const { milestones } = yield* boot(machine)
    assert.deepStrictEqual(milestones[0]?.attributes, { node: "node-7", product: "Standard PC" })
    assert.include(machine.kmsg.join("\n"), 'milestone hello node=node-7 product="Standard PC"')
  }),
)

it.effect("a machine without a product name is unknown", () =>
  Effect.gen(function* () {
    const { milestones } = yield* boot(TestMachine.make())
    assert.deepStrictEqual(milestones[0]?.attributes, { node: "node-7", product: "unknown" })
  }),
)

it.effect("an unreadable name fails this stage and not the boot", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files: { [PRODUCT]: "Standard PC\n" } })
    machine.failOn("readText", "EIO", { path: PRODUCT })
    const { milestones, stages } = yield* boot(machine)
    assert.deepStrictEqual(milestones, [])
    const greeting = stages.find((stage) => stage.name === "greeting")
    assert.strictEqual(greeting?.outcome, "failed")
    assert.include(greeting?.reason ?? "", "EIO")
  }),
)

it("the distro has the greeting and no machine-id", () => {
  const plan = Plan.make(pipeline.stages)
  const names = plan.stages.map((stage) => stage.name)
  assert.notInclude(names, "machine-id")
  assert.deepStrictEqual(plan.stages.find((stage) => stage.name === "greeting")?.after, [
    "hostname",
    "kubelet",
  ])
})
