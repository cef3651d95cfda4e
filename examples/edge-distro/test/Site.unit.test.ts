import { BootReport } from "@kios/core/BootReport"
import * as Cmdline from "@kios/core/Cmdline"
import * as Pipeline from "@kios/core/Pipeline"
import * as Plan from "@kios/core/Plan"
import * as Stage from "@kios/core/Stage"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as AssetName from "../AssetName.ts"
import { pipeline } from "../pipeline.ts"
import * as Site from "../Site.ts"

// What the two stages require, without the machine that it takes to bring it up.
const below = Stage.make({
  name: "below",
  description: "filesystems and a command line",
  provides: [PseudoFilesystems, EphemeralFilesystems, Cmdline.Cmdline],
  layer: Layer.mergeAll(
    Layer.succeed(PseudoFilesystems, { mounted: [] }),
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.effect(Cmdline.Cmdline, Cmdline.read),
  ),
})
const small = Pipeline.make([below, AssetName.stage, Site.stage])

const files = {
  "/proc/cmdline": "console=ttyS0\n",
  "/sys/class/dmi/id/product_serial": "EDGE/0042\n",
  [Site.FILE]: '{ "site": "harbour-3", "region": "north" }',
}

/** Boots the small pipeline on a machine and gives its boot report. */
const boot = (machine: TestMachine.TestMachine) =>
  Effect.gen(function* () {
    yield* Layer.build(small.layer)
    return yield* BootReport.use((report) => report.current)
  }).pipe(Effect.provide(TestMachine.platform(machine)), Effect.scoped)

it.effect("the node is called after its serial number and tells its site", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files })
    const { milestones } = yield* boot(machine)
    assert.strictEqual(machine.hostname(), "edge-0042")
    assert.strictEqual(machine.read("/run/edge/site"), "north/harbour-3\n")
    assert.deepStrictEqual(milestones[0]?.attributes, { site: "harbour-3", node: "edge-0042" })
  }),
)

it.effect("the command line's name wins, and a machine without a serial number is edge", () =>
  Effect.gen(function* () {
    const told = TestMachine.make({ files: { ...files, "/proc/cmdline": "kios.hostname=gate-1\n" } })
    yield* boot(told)
    assert.strictEqual(told.hostname(), "gate-1")
    const { "/sys/class/dmi/id/product_serial": _, ...rest } = files
    const bare = TestMachine.make({ files: rest })
    yield* boot(bare)
    assert.strictEqual(bare.hostname(), "edge")
  }),
)

it.effect("a damaged site file fails the boot, and the reason says which file and what to do", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files: { ...files, [Site.FILE]: '{ "site": "" }' } })
    const error = yield* Effect.flip(boot(machine))
    assert.strictEqual(error.stage, "site")
    assert.match(error.reason, /site\.json: .*site.*region.*build the image again/su)
  }),
)

it.effect("a name that the kernel refuses is the boot's failure, with its errno", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files })
    machine.failOn("setHostname", "EPERM")
    const error = yield* Effect.flip(boot(machine))
    assert.strictEqual(error.stage, "asset-name")
    assert.include(error.reason, "EPERM")
    assert.isFalse(machine.exists("/run/edge/site"))
  }),
)

it("serial numbers become host names", () => {
  assert.strictEqual(AssetName.nameOf("  SN 12_3/ "), "sn-12-3")
  assert.isUndefined(AssetName.nameOf("...\n"))
})

it("the distro has the one stage in the other's place", () => {
  const { stages } = Plan.make(pipeline.stages)
  const names = stages.map((stage) => stage.name)
  assert.notInclude(names, "hostname")
  assert.deepStrictEqual(stages.find((stage) => stage.name === "site")?.after, [
    "ephemeral-filesystems",
    "asset-name",
  ])
  // @ts-expect-error  the site stage needs the host name's
  assert.throws(() => Pipeline.without(pipeline, "asset-name"))
})
