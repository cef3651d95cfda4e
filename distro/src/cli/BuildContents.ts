/**
 * What `kios build --image`, `--manifest` and `--without` make of a recipe.
 * All that can be wrong with the input is found here, before anything is built.
 */
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as YAML from "yaml"
import { local, type Origin, type Recipe, type RecipePod } from "../ImageRecipe.ts"
import * as OciArchive from "../image/OciArchive.ts"
import { BadInput } from "./BadInput.ts"

/** What was given on the command line: files, and names of pods and images. */
export interface Contents {
  readonly image: ReadonlyArray<string>
  readonly manifest: ReadonlyArray<string>
  readonly without: ReadonlyArray<string>
}

/** The last word of an image's name: `dhcp` of `localhost/kios/dhcp:1`. */
const shortName = (name: string): string => path.posix.basename(name).replace(/:.*$/u, "")

const bad = (file: string, reason: string) => Effect.fail(new BadInput({ file, reason }))

const read = (file: string) =>
  Effect.try({
    try: () => fs.readFileSync(file, "utf8"),
    catch: (cause) =>
      new BadInput({
        file,
        reason: `cannot be read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
      }),
  })

interface Container {
  readonly name?: unknown
  readonly image?: unknown
  readonly imagePullPolicy?: unknown
}

/** A manifest's pod, as far as the image has to do with it. */
interface Pod {
  readonly containers: ReadonlyArray<Container>
}

/** Fails unless `text` is one pod with a name and containers. */
const parsePod = (file: string, text: string): Effect.Effect<Pod, BadInput> => {
  const documents = YAML.parseAllDocuments(text)
  if (!Array.isArray(documents) || documents.length !== 1) {
    return bad(file, `has ${documents.length} documents; a static pod's manifest is one`)
  }
  const [document] = documents
  const error = document?.errors[0]
  if (error !== undefined) return bad(file, error.message.split("\n")[0] ?? "is no YAML")
  const pod = document?.toJS() as
    | { kind?: unknown; metadata?: { name?: unknown }; spec?: Record<string, unknown> }
    | null
    | undefined
  if (pod?.kind !== "Pod") return bad(file, `is of kind ${JSON.stringify(pod?.kind)}; a static pod is a Pod`)
  if (typeof pod.metadata?.name !== "string") return bad(file, "has no metadata.name")
  const containers = ["initContainers", "containers"].flatMap((key) => {
    const list = pod.spec?.[key]
    return Array.isArray(list) ? (list as Array<Container>) : []
  })
  return containers.length === 0 ? bad(file, "has no containers") : Effect.succeed({ containers })
}

/** A manifest of a local file; those of components are not looked into. */
const podOf = (from: Origin): Effect.Effect<Pod | undefined, BadInput> =>
  from._tag === "Local"
    ? Effect.flatMap(read(from.file), (text) => parsePod(from.file, text))
    : Effect.succeed(undefined)

const leaveOut = (recipe: Recipe, names: ReadonlyArray<string>): Effect.Effect<Recipe, BadInput> =>
  Effect.gen(function* () {
    const pods = recipe.pods ?? []
    const known = new Set([
      ...pods.map(({ name }) => name),
      ...recipe.images.map(({ name }) => shortName(name)),
    ])
    for (const name of names) {
      if (name === "pause") return yield* bad("--without pause", "every pod needs the pause image")
      if (!known.has(name)) {
        const all = [...known].filter((one) => one !== "pause").join(", ")
        return yield* bad(`--without ${name}`, `there is no such pod or image; there are ${all}`)
      }
    }
    return {
      ...recipe,
      pods: pods.filter(({ name }) => !names.includes(name)),
      images: recipe.images.filter(({ name }) => !names.includes(shortName(name))),
    }
  })

const withImages = (recipe: Recipe, files: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const names = new Map(recipe.images.map(({ name }) => [name, "the distro"]))
    const taken = new Set(recipe.images.map(({ file }) => file))
    const archives = [...(recipe.archives ?? [])]
    for (const file of files) {
      const { images } = yield* OciArchive.inspect(file).pipe(
        Effect.mapError(
          (error) => new BadInput({ file, reason: "detail" in error ? error.detail : error.message }),
        ),
      )
      for (const { architecture, name, os } of images) {
        if (name === undefined)
          return yield* bad(file, "has an image without a name: tag it when you save it")
        if (`${os}/${architecture}` !== "linux/amd64")
          return yield* bad(file, `has ${name} for ${os}/${architecture}; the node is linux/amd64`)
        const other = names.get(name)
        if (other !== undefined) return yield* bad(file, `has the image ${name}, as has ${other}`)
        names.set(name, file)
      }
      const stem = path
        .basename(file)
        .replace(/(?:\.(?:oci|tar))+$/u, "")
        .replaceAll(/[^A-Za-z0-9._-]+/gu, "-")
      if (taken.has(stem))
        return yield* bad(file, `another archive is called ${stem} already; rename the file`)
      taken.add(stem)
      archives.push({
        file: stem,
        why: `given by --image: ${images.map(({ name }) => name).join(", ")}`,
        from: local(path.resolve(file)),
      })
    }
    return { recipe: { ...recipe, archives }, names: new Set(names.keys()) }
  })

const withManifests = (recipe: Recipe, files: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const added: Array<RecipePod> = []
    for (const file of files) {
      yield* Effect.flatMap(read(file), (text) => parsePod(file, text))
      const name = path.basename(file).replace(/\.(?:ya?ml|json)$/u, "")
      if (added.some((pod) => pod.name === name)) {
        return yield* bad(file, "another --manifest has the same file name; rename one")
      }
      added.push({ name, why: "given by --manifest", from: local(path.resolve(file)) })
    }
    const own = (recipe.pods ?? []).filter(({ name }) => !added.some((pod) => pod.name === name))
    return { ...recipe, pods: [...own, ...added] }
  })

/**
 * The recipe with `image` archives and `manifest` files added, and the pods and
 * images named by `without` left out. A manifest with the file name of one of
 * the distro's pods replaces it.
 *
 * Fails with `BadInput`, which names the file and what is wrong: an archive
 * that is damaged, nameless or for another machine; a manifest that is no pod;
 * a pod whose image is to be there (`imagePullPolicy: Never`) and is not.
 */
export const apply = (recipe: Recipe, contents: Contents): Effect.Effect<Recipe, BadInput> =>
  Effect.gen(function* () {
    const smaller = yield* leaveOut(recipe, contents.without)
    const { names, recipe: larger } = yield* withImages(smaller, contents.image)
    const whole = yield* withManifests(larger, contents.manifest)
    for (const { from, name } of whole.pods) {
      const pod = yield* podOf(from)
      for (const { image, imagePullPolicy, name: container } of pod?.containers ?? []) {
        if (imagePullPolicy !== "Never" || typeof image !== "string" || names.has(image)) continue
        return yield* bad(
          `${name}.yaml`,
          `its container ${String(container)} wants the image ${image}, which nothing brings (imagePullPolicy is Never): give it by --image, or leave the pod out by --without ${name}`,
        )
      }
    }
    return whole
  })
