/**
 * OCI image archives: what `ctr images import` and kiOS's image preload take.
 * A tar of an OCI image layout with uncompressed layers: there is nothing to
 * unpack at import, and the image that carries it is compressed as a whole.
 * Same recipe, same bytes, wherever it is built.
 *
 * Source: OCI image specification v1.1, image-layout.md, manifest.md, config.md.
 *
 * @module
 */
import { Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { type ImageError, OciArchiveError } from "./ImageError.ts"
import type { Content } from "./internal/InputFile.ts"
import { CONFIG, INDEX, LAYER, MANIFEST } from "./internal/OciSchema.ts"
import { partialName, withOutput } from "./internal/OutputFile.ts"
import * as Tar from "./Tar.ts"

export { type ImageSummary, inspect, type Info } from "./internal/OciInspect.ts"

/**
 * A file, link or directory of the image's root. `source` is a path of the
 * build machine.
 */
export type RecipeFile = { readonly path: string; readonly uid?: number; readonly gid?: number } & (
  | { readonly mode: number; readonly source: string | { readonly bytes: Uint8Array } }
  | { readonly symlink: string }
  | { readonly directory: true; readonly mode: number }
)

/**
 * An image. `name` is complete: registry host, path and tag
 * (`localhost/kios/busybox:1.37`). `architecture` is Go's name. `base` are
 * layers below `files`, from the bottom up: images of one archive share those
 * that are equal. `config` as in the specification: what runs, as whom, where.
 * `labels` are sorted; `env` is kept in order (`NAME=value`).
 */
export interface Recipe {
  readonly name: string
  readonly architecture: "amd64" | "arm64"
  readonly base?: ReadonlyArray<ReadonlyArray<RecipeFile>>
  readonly files: ReadonlyArray<RecipeFile>
  readonly config: {
    readonly entrypoint?: ReadonlyArray<string>
    readonly cmd?: ReadonlyArray<string>
    readonly env?: ReadonlyArray<string>
    readonly user?: string
    readonly workingDir?: string
    readonly labels?: Readonly<Record<string, string>>
  }
}

/**
 * An image of a written archive: digests as `sha256:<hex>`, layers from the
 * bottom up.
 */
export interface WrittenImage {
  readonly name: string
  readonly manifestDigest: string
  readonly configDigest: string
  readonly layerDigests: ReadonlyArray<string>
}

/**
 * A written archive: its size in bytes, and its digest in hexadecimal.
 */
export interface Written {
  readonly images: ReadonlyArray<WrittenImage>
  readonly bytes: number
  readonly sha256: string
}

const NAME =
  /^(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::[0-9]+)?(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+:([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$/u

const verify = (recipe: Recipe): Effect.Effect<{ readonly tag: string }, OciArchiveError> => {
  const fail = (detail: string) =>
    Effect.fail(new OciArchiveError({ reason: "InvalidRecipe", path: recipe.name, detail }))
  const tag = NAME.exec(recipe.name)?.[1]
  if (tag === undefined) {
    return fail("the name is not complete: expected host/path:tag, such as localhost/kios/busybox:1.37")
  }
  const { cmd, entrypoint, env, workingDir } = recipe.config
  const badEnv = env?.find((e) => !/^[^=\0]+=[^\0]*$/u.test(e))
  if (badEnv !== undefined) return fail(`env "${badEnv}" is not NAME=value`)
  if (workingDir !== undefined && !workingDir.startsWith("/")) {
    return fail(`workingDir "${workingDir}" does not begin with /`)
  }
  const bare = entrypoint === undefined && cmd === undefined
  return bare ? fail("neither entrypoint nor cmd: nothing to run") : Effect.succeed({ tag })
}

const tarEntry = (file: RecipeFile): Tar.Entry => {
  const owner = {
    path: file.path,
    ...(file.uid === undefined ? {} : { uid: file.uid }),
    ...(file.gid === undefined ? {} : { gid: file.gid }),
  }
  if ("symlink" in file) return { ...owner, _tag: "Symlink", target: file.symlink }
  if ("directory" in file) return { ...owner, _tag: "Directory", mode: file.mode }
  const content = typeof file.source === "string" ? { path: file.source } : file.source
  return { ...owner, _tag: "File", mode: file.mode, content }
}

const sha256 = (bytes: Uint8Array): string => crypto.createHash("sha256").update(bytes).digest("hex")

const blob = (value: unknown, mediaType: string) => {
  const bytes = Buffer.from(JSON.stringify(value))
  return {
    bytes,
    descriptor: { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length },
  }
}

/** The specification's spelling; what is not given is left out. */
const configOf = (recipe: Recipe, layers: ReadonlyArray<Layer>) => {
  const { cmd, entrypoint, env, labels, user, workingDir } = recipe.config
  const sorted = labels && Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))
  const history = { created: "1970-01-01T00:00:00Z", created_by: "kios" }
  return {
    created: "1970-01-01T00:00:00Z",
    architecture: recipe.architecture,
    os: "linux",
    config: {
      User: user,
      Env: env,
      Entrypoint: entrypoint,
      Cmd: cmd,
      WorkingDir: workingDir,
      Labels: sorted,
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ digest }) => digest) },
    history: layers.map(() => history),
  }
}

interface Layer {
  readonly digest: string
  readonly size: number
  /** Where its bytes are until the archive has them. */
  readonly path: string
}

/**
 * Builds an archive of one image or several. Memory does not grow with the
 * files. Layers that are equal are in it once.
 *
 * Fails with {@link OciArchiveError} `InvalidRecipe`; with `TarError` for a
 * file list with a path twice, below a file, or with a source that is not a
 * regular file; with `ImageFileError`.
 *
 * @example
 * ```ts
 * import * as OciArchive from "@kios/distro/image/OciArchive"
 *
 * const program = OciArchive.build(
 *   [
 *     {
 *       name: "localhost/kios/busybox:1.37",
 *       architecture: "amd64",
 *       files: [{ path: "bin/busybox", mode: 0o755, source: "/usr/bin/busybox" }],
 *       config: { entrypoint: ["/bin/busybox"], cmd: ["httpd", "-f"] },
 *     },
 *   ],
 *   "busybox.tar",
 * )
 * ```
 */
export const build = (
  recipes: readonly [Recipe, ...ReadonlyArray<Recipe>],
  output: string,
): Effect.Effect<Written, ImageError> =>
  Effect.gen(function* () {
    const tagged = yield* Effect.forEach(recipes, (recipe) =>
      Effect.map(verify(recipe), ({ tag }) => ({ recipe, tag })),
    )
    const names = recipes.map(({ name }) => name)
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    if (twice !== undefined) {
      const detail = "the archive would have two images of this name"
      return yield* new OciArchiveError({ reason: "InvalidRecipe", path: twice, detail })
    }
    return yield* Effect.acquireUseRelease(
      Effect.sync((): Array<string> => []),
      (scratch) => assemble(tagged, output, scratch),
      (scratch) =>
        Effect.promise(async () => {
          for (const file of scratch) await fs.rm(file, { force: true }).catch(() => {})
        }),
    )
  })

const file = (at: string, content: Content): Tar.Entry => ({ _tag: "File", path: at, mode: 0o644, content })
const directory = (at: string): Tar.Entry => ({ _tag: "Directory", path: at, mode: 0o755 })

/** A layer goes to a file first: its digest is its name in the archive. */
const writeLayer = (files: ReadonlyArray<RecipeFile>, output: string, scratch: Array<string>) => {
  const at = partialName(path.resolve(output))
  scratch.push(at)
  return withOutput(at, async (layer, signal): Promise<Layer> => {
    for await (const chunk of Tar.stream(files.map(tarEntry), { signal })) await layer.write(chunk)
    return { digest: `sha256:${await layer.sha256(signal)}`, size: layer.position, path: at }
  })
}

const assemble = (
  images: ReadonlyArray<{ readonly recipe: Recipe; readonly tag: string }>,
  output: string,
  scratch: Array<string>,
): Effect.Effect<Written, ImageError> =>
  Effect.gen(function* () {
    // By the list itself: images that share a layer share it as a value.
    const byFiles = new Map<ReadonlyArray<RecipeFile>, Layer>()
    const layerOf = Effect.fnUntraced(function* (files: ReadonlyArray<RecipeFile>) {
      const made = byFiles.get(files) ?? (yield* writeLayer(files, output, scratch))
      byFiles.set(files, made)
      return made
    })
    const blobs = new Map<string, Content>()
    const written: Array<WrittenImage> = []
    const manifests: Array<unknown> = []
    for (const { recipe, tag } of images) {
      const base = recipe.base ?? []
      // All of an image can be in its base.
      const lists = recipe.files.length === 0 && base.length > 0 ? base : [...base, recipe.files]
      const layers = yield* Effect.forEach(lists, layerOf)
      const config = blob(configOf(recipe, layers), CONFIG)
      const manifest = blob(
        {
          schemaVersion: 2,
          mediaType: MANIFEST,
          config: config.descriptor,
          layers: layers.map(({ digest, size }) => ({ mediaType: LAYER, digest, size })),
        },
        MANIFEST,
      )
      blobs.set(manifest.descriptor.digest, { bytes: manifest.bytes })
      blobs.set(config.descriptor.digest, { bytes: config.bytes })
      for (const layer of layers) blobs.set(layer.digest, { path: layer.path })
      manifests.push({
        ...manifest.descriptor,
        annotations: { "io.containerd.image.name": recipe.name, "org.opencontainers.image.ref.name": tag },
        platform: { architecture: recipe.architecture, os: "linux" },
      })
      written.push({
        name: recipe.name,
        manifestDigest: manifest.descriptor.digest,
        configDigest: config.descriptor.digest,
        layerDigests: layers.map(({ digest }) => digest),
      })
    }
    const index = { schemaVersion: 2, mediaType: INDEX, manifests }
    const entries = [
      file("oci-layout", { bytes: Buffer.from(`{"imageLayoutVersion":"1.0.0"}`) }),
      file("index.json", { bytes: Buffer.from(JSON.stringify(index)) }),
      directory("blobs"),
      directory("blobs/sha256"),
      ...[...blobs].map(([digest, content]) =>
        file(`blobs/sha256/${digest.slice("sha256:".length)}`, content),
      ),
    ]
    return yield* withOutput(output, async (out, signal) => {
      for await (const chunk of Tar.stream(entries, { keepOrder: true, signal })) await out.write(chunk)
      return { images: written, bytes: out.position, sha256: await out.sha256(signal) }
    })
  })
