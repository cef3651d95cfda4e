/**
 * Builds this distro's EFI: `node examples/hello-distro/build.ts FILE.efi`
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Build from "@kios/distro/Build"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { recipe } from "@kios/distro/recipe"
import { Effect, Layer } from "effect"
import { fileURLToPath } from "node:url"

const output = process.argv[2] ?? "dist/hello.efi"

const program = Effect.gen(function* () {
  const built = yield* Build.build({
    // The reference distro's files, with our own init in the place of its.
    recipe: { ...recipe, name: "hello", init: fileURLToPath(new URL("init.ts", import.meta.url)) },
    output,
  })
  yield* Effect.sync(() => process.stdout.write(`${built.efi}  ${(built.bytes / 1e6).toFixed(1)} MB\n`))
})

NodeRuntime.runMain(program.pipe(Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer))))
