/** The two images that are compared, and variants of them with more pods. */
import * as Build from "@kios/distro/Build"
import { buildReporter, megabytes, Output } from "@kios/distro/cli/Output"
import { Progress } from "@kios/distro/components/Progress"
import { local, type Recipe, type RecipePod } from "@kios/distro/ImageRecipe"
import { recipe } from "@kios/distro/recipe"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as FloorImage from "./FloorImage.ts"

/** kiOS, and the yardstick. */
export const names = ["kios", "floor"] as const

/** One of {@link names}. */
export type Name = (typeof names)[number]

/** A static pod that an image has besides those of the recipe. */
export interface Pod {
  readonly name: string
  /** JSON or YAML. */
  readonly manifest: string
}

/** The recipe with more pods, whose manifests are put into `directory`. */
const withPods = Effect.fnUntraced(function* (pods: ReadonlyArray<Pod>, directory: string) {
  const more = yield* FloorImage.attempt(directory, () => {
    fs.mkdirSync(directory, { recursive: true })
    return pods.map(({ manifest, name }): RecipePod => {
      const file = path.join(directory, `${name}.yaml`)
      fs.writeFileSync(file, manifest)
      return { name, why: "the bench's", from: local(file) }
    })
  })
  return { ...recipe, pods: [...(recipe.pods ?? []), ...more] } satisfies Recipe
})

/** Builds one of the two into `directory`; an image with pods of its own is named after its `variant`. */
export const build = Effect.fnUntraced(
  function* (name: Name, directory: string, variant = "", pods: ReadonlyArray<Pod> = []) {
    const output = yield* Output
    const full = variant === "" ? name : `${name}-${variant}`
    const ours = yield* withPods(pods, path.join(directory, "build", `pods-${full}`))
    const wanted =
      name === "kios"
        ? ours
        : yield* FloorImage.of(ours, path.join(directory, "build", `floor-files-${full}`))
    const built = yield* Build.build({ recipe: wanted, output: path.join(directory, `${full}.efi`) })
    output.line(
      `= ${built.efi}  ${megabytes(built.bytes)}, unpacked ${megabytes(built.initramfs.uncompressedBytes)}`,
    )
    return built
  },
  (effect) =>
    Effect.gen(function* () {
      const output = yield* Output
      return yield* effect.pipe(
        Effect.provideService(Progress, buildReporter(output)),
        Effect.ensuring(Effect.sync(() => output.status(undefined))),
      )
    }),
)

/** Both, one after the other: they share what they are packed from. */
export const both = (directory: string, variant = "", pods: ReadonlyArray<Pod> = []) =>
  Effect.all({
    kios: build("kios", directory, variant, pods),
    floor: build("floor", directory, variant, pods),
  })
