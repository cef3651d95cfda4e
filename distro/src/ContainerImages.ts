/**
 * The container images and static pods of a recipe, as the builder puts them
 * into the EFI.
 */
import { Effect } from "effect"
import * as path from "node:path"
import type { Layer, LayerFile, Origin, Recipe, RecipeFile, RecipeImage } from "./ImageRecipe.ts"
import type { ImageError } from "./image/ImageError.ts"
import * as OciArchive from "./image/OciArchive.ts"

/**
 * The recipe's files with the manifests of its pods among them.
 *
 * @example
 * ```ts
 * import { filesOf } from "@kios/distro/ContainerImages"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const paths = filesOf(recipe).map(({ path }) => path) // ..., "/lib/kios/etc/kubernetes/manifests/dhcp.yaml"
 * ```
 */
export const filesOf = (recipe: Recipe): ReadonlyArray<RecipeFile> => [
  ...recipe.files,
  ...(recipe.pods ?? []).map(({ from, name, why }) => ({
    path: `/lib/kios/etc/kubernetes/manifests/${name}.yaml`,
    mode: 0o644,
    from,
    why,
  })),
]

/**
 * All layers of an image, from the bottom up; one that has no files is left out.
 *
 * @example
 * ```ts
 * import { layersOf } from "@kios/distro/ContainerImages"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const programs = recipe.images.flatMap(layersOf).flat()
 * ```
 */
export const layersOf = (image: RecipeImage): ReadonlyArray<ReadonlyArray<LayerFile>> =>
  [...(image.base ?? []).map(({ files }) => files), image.files].filter((files) => files.length > 0)

/**
 * Where the images' files and the archives come from.
 *
 * @example
 * ```ts
 * import { originsOf } from "@kios/distro/ContainerImages"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const components = originsOf(recipe).flatMap((from) => (from._tag === "Component" ? [from.component] : []))
 * ```
 */
export const originsOf = (recipe: Recipe): ReadonlyArray<Origin> => [
  ...recipe.images.flatMap((image) =>
    layersOf(image)
      .flat()
      .flatMap((file) => ("from" in file ? [file.from] : [])),
  ),
  ...(recipe.archives ?? []).map(({ from }) => from),
]

/** An archive that goes into the EFI. */
export interface ArchiveFile {
  /** File name below /lib/kios/images. */
  readonly name: string
  /** Where it is on the build machine. */
  readonly path: string
  readonly images: ReadonlyArray<{ readonly name: string; readonly manifestDigest: string }>
}

/**
 * Makes the archives of a recipe's images below `work`, and verifies those
 * that it takes as they are. Same recipe, same bytes, wherever it is built.
 *
 * @param pathOf where a file is on the build machine
 *
 * @example
 * ```ts
 * import * as ContainerImages from "@kios/distro/ContainerImages"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const program = ContainerImages.makeArchives(recipe, {
 *   pathOf: (from) => (from._tag === "Local" ? from.file : `/components/${from.component}/${from.file}`),
 *   work: "dist/build",
 * })
 * ```
 */
export const makeArchives = (
  recipe: Recipe,
  options: { readonly pathOf: (from: Origin) => string; readonly work: string },
): Effect.Effect<ReadonlyArray<ArchiveFile>, ImageError> => {
  const files = (list: ReadonlyArray<LayerFile>): ReadonlyArray<OciArchive.RecipeFile> =>
    list.map((file) =>
      "from" in file ? { path: file.path, mode: file.mode, source: options.pathOf(file.from) } : file,
    )
  // One list for all images that have the layer: it is written once.
  const shared = new Map<Layer, ReadonlyArray<OciArchive.RecipeFile>>()
  const layer = (one: Layer) => {
    const made = shared.get(one) ?? files(one.files)
    shared.set(one, made)
    return made
  }
  const byFile = new Map<string, Array<OciArchive.Recipe>>()
  for (const { base, config, file, files: own, name } of recipe.images) {
    const image: OciArchive.Recipe = {
      name,
      architecture: "amd64",
      config,
      ...(base === undefined ? {} : { base: base.map(layer) }),
      files: files(own),
    }
    byFile.set(file, [...(byFile.get(file) ?? []), image])
  }
  const made = Effect.forEach([...byFile], ([file, [first, ...rest]]) => {
    const target = path.join(options.work, `${file}.tar`)
    if (first === undefined) return Effect.die(new RangeError(`archive ${file} has no image`))
    return Effect.map(OciArchive.build([first, ...rest], target), ({ images }) => ({
      name: `${file}.tar`,
      path: target,
      images,
    }))
  })
  const taken = Effect.forEach(recipe.archives ?? [], ({ file, from }) => {
    const at = options.pathOf(from)
    return Effect.map(OciArchive.inspect(at), ({ images }) => ({
      name: `${file}.tar`,
      path: at,
      images: images.map(({ manifestDigest, name = "" }) => ({ name, manifestDigest })),
    }))
  })
  return Effect.map(Effect.all([made, taken]), (both) => both.flat())
}
