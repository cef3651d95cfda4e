/**
 * OCI image archives: what `ctr images import` and kiOS's image preload take.
 * A tar of an OCI image layout with one uncompressed layer: there is nothing
 * to unpack at import, and the image that carries it is compressed as a whole.
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
import { attempt, io, OutputFile, partialName, withOutput } from "./internal/OutputFile.ts"
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
 * (`localhost/kios/busybox:1.37`). `architecture` is Go's name. `config` as in
 * the specification: what runs, as whom, where. `labels` are sorted; `env` is
 * kept in order (`NAME=value`).
 */
export interface Recipe {
  readonly name: string
  readonly architecture: "amd64" | "arm64"
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
 * A written archive: sizes in bytes, digests as `sha256:<hex>`.
 */
export interface Written {
  readonly name: string
  readonly manifestDigest: string
  readonly configDigest: string
  readonly layerDigest: string
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
    hex: sha256(bytes),
    descriptor: { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length },
  }
}

/** The specification's spelling; what is not given is left out. */
const configOf = (recipe: Recipe, layerDigest: string) => {
  const { cmd, entrypoint, env, labels, user, workingDir } = recipe.config
  const sorted = labels && Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))
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
    rootfs: { type: "layers", diff_ids: [layerDigest] },
    history: [{ created: "1970-01-01T00:00:00Z", created_by: "kios" }],
  }
}

/**
 * Builds an image archive. Memory does not grow with the files.
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
 *   {
 *     name: "localhost/kios/busybox:1.37",
 *     architecture: "amd64",
 *     files: [{ path: "bin/busybox", mode: 0o755, source: "/usr/bin/busybox" }],
 *     config: { entrypoint: ["/bin/busybox"], cmd: ["httpd", "-f"] },
 *   },
 *   "busybox.tar",
 * )
 * ```
 */
export const build = (recipe: Recipe, output: string): Effect.Effect<Written, ImageError> =>
  Effect.gen(function* () {
    const { tag } = yield* verify(recipe)
    const scratch = partialName(path.resolve(output))
    return yield* Effect.acquireUseRelease(
      attempt("create", scratch, () => OutputFile.create(scratch)),
      (layer) => assemble(recipe, tag, output, layer),
      (layer) =>
        Effect.promise(async () => {
          await layer.discard()
          await fs.rm(layer.path, { force: true }).catch(() => {})
        }),
    )
  })

const file = (at: string, content: Content): Tar.Entry => ({ _tag: "File", path: at, mode: 0o644, content })
const directory = (at: string): Tar.Entry => ({ _tag: "Directory", path: at, mode: 0o755 })

/** The layer goes to a file first: its digest is its name in the archive. */
const assemble = (
  recipe: Recipe,
  tag: string,
  output: string,
  layer: OutputFile,
): Effect.Effect<Written, ImageError> =>
  Effect.gen(function* () {
    const hex = yield* attempt("write", layer.path, async (signal) => {
      for await (const chunk of Tar.stream(recipe.files.map(tarEntry), { signal })) await layer.write(chunk)
      const digest = await layer.sha256(signal)
      await layer.commit()
      return digest
    })
    const layerDigest = `sha256:${hex}`
    const config = blob(configOf(recipe, layerDigest), CONFIG)
    const manifest = blob(
      {
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: config.descriptor,
        layers: [{ mediaType: LAYER, digest: layerDigest, size: layer.position }],
      },
      MANIFEST,
    )
    const index = {
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: [
        {
          ...manifest.descriptor,
          annotations: { "io.containerd.image.name": recipe.name, "org.opencontainers.image.ref.name": tag },
          platform: { architecture: recipe.architecture, os: "linux" },
        },
      ],
    }
    const entries = [
      file("oci-layout", { bytes: Buffer.from(`{"imageLayoutVersion":"1.0.0"}`) }),
      file("index.json", { bytes: Buffer.from(JSON.stringify(index)) }),
      directory("blobs"),
      directory("blobs/sha256"),
      file(`blobs/sha256/${manifest.hex}`, { bytes: manifest.bytes }),
      file(`blobs/sha256/${config.hex}`, { bytes: config.bytes }),
      file(`blobs/sha256/${hex}`, { path: layer.path }),
    ]
    const written = yield* withOutput(output, async (out, signal) => {
      for await (const chunk of Tar.stream(entries, { keepOrder: true, signal })) await out.write(chunk)
      return { bytes: out.position, sha256: await out.sha256(signal) }
    })
    yield* attempt("remove", layer.path, () =>
      io("remove", layer.path, () => fs.rm(layer.path, { force: true })),
    )
    return {
      name: recipe.name,
      manifestDigest: manifest.descriptor.digest,
      configDigest: config.descriptor.digest,
      layerDigest,
      ...written,
    }
  })
