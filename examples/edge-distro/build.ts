/**
 * Builds this distro's EFI and boots it in QEMU until its own milestone:
 * `node build.ts FILE.efi`
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Build from "@kios/distro/Build"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import * as VmRun from "@kios/distro/vm/VmRun"
import { Data, Effect, Layer } from "effect"
import { recipe } from "./recipe.ts"

class NotReached extends Data.TaggedError("NotReached")<{ readonly message: string }> {}

const say = (line: string) => Effect.sync(() => process.stdout.write(`${line}\n`))

const program = Effect.gen(function* () {
  const built = yield* Build.build({ recipe, output: process.argv[2] ?? "dist/edge.efi" })
  yield* say(`${built.efi}  ${(built.bytes / 1e6).toFixed(1)} MB`)
  const result = yield* VmRun.run(
    {
      efi: built.efi,
      boot: "kernel",
      memoryMiB: 1536,
      network: "user",
      // The serial number that the node is named after.
      extraArgs: ["-smbios", "type=1,serial=EDGE/0042"],
      until: { milestones: ["edge-site", "boot-complete"] },
      timeout: "5 minutes",
    },
    (progress) => {
      if (progress._tag !== "Event") return Effect.void
      const { event } = progress
      if (event._tag === "StageFailed") return say(`stage ${event.stage} failed: ${event.reason}`)
      if (event._tag !== "Milestone") return Effect.void
      return say(`${progress.seconds.toFixed(1)} s  ${event.name} ${JSON.stringify(event.fields)}`)
    },
  )
  if (!result.reached) return yield* new NotReached({ message: [result.reason, ...result.tail].join("\n") })
})

NodeRuntime.runMain(program.pipe(Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer))))
