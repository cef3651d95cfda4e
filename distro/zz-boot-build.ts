import { Effect, Layer } from "effect"
import * as Build from "@kios/distro/Build"
import { recipe } from "@kios/distro/recipe"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { Progress, renderProgress } from "@kios/distro/components/Progress"
const b = await Effect.runPromise(Build.build({ recipe, output: process.env.OUT ?? "/tmp/tc/boot/kios.efi" }).pipe(Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)), Effect.provideService(Progress, { report: (e) => console.log(renderProgress(e)) })))
console.log(b)
