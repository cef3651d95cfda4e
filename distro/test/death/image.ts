/**
 * The EFI of the machine that dies: the reference distro without what runs
 * pods, so that a boot takes seconds.
 */
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import type { Recipe } from "../../src/ImageRecipe.ts"
import { recipe } from "../../src/recipe.ts"
import { buildVariant } from "../boot/support.ts"
import { inImage } from "./modules.ts"

const needed =
  /^\/(init|lib\/(lib(c|m|dl|pthread|stdc\+\+|gcc_s)\.so\..*|kios\/koffi\.node)|lib64\/.*|bin\/mount)$/u

const variant: Recipe = {
  ...recipe,
  init: fileURLToPath(new URL("init.ts", import.meta.url)),
  files: recipe.files.filter(({ path }) => needed.test(path)),
  images: [],
  hardware: {
    name: "death",
    kernel: "kernel",
    modules: [{ name: "all", why: "what its boots need", modules: inImage, loaded: "boot" }],
  },
  compression: { compression: "lz4", level: 1 },
}

export const image = (directory: string) => Effect.orDie(buildVariant(variant, directory))
