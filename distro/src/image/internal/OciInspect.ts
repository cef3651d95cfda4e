/**
 * Reads an OCI image archive and verifies it as a whole, see `OciArchive.inspect`.
 */
import { Effect, Schema } from "effect"
import * as crypto from "node:crypto"
import { type ImageError, isImageError, OciArchiveError } from "../ImageError.ts"
import { contentSize, readAt } from "./InputFile.ts"
import { Config, type Descriptor, DOCKER_LIST, Index, INDEX, LAYER, Layout, Manifest } from "./OciSchema.ts"
import { attempt } from "./OutputFile.ts"
import * as Tar from "../Tar.ts"

/**
 * An image of an archive. `name` comes from the annotation
 * `io.containerd.image.name`, or else `org.opencontainers.image.ref.name`;
 * `size` is manifest, config and layers together, in bytes.
 */
export interface ImageSummary {
  readonly name: string | undefined
  readonly manifestDigest: string
  readonly configDigest: string
  readonly layers: ReadonlyArray<{
    readonly mediaType: string
    readonly digest: string
    readonly size: number
  }>
  readonly architecture: string
  readonly os: string
  readonly size: number
}

/**
 * An archive: `bytes` is the file's size; at least one image.
 */
export interface Info {
  readonly bytes: number
  readonly images: readonly [ImageSummary, ...Array<ImageSummary>]
}

interface Stored {
  readonly offset: number
  readonly size: number
}

/** JSON of an image is small; more is damage, or an attempt on our memory. */
const MAX_JSON = 4 << 20

class Archive {
  readonly file: string
  readonly files = new Map<string, Stored>()

  constructor(file: string) {
    this.file = file
  }

  fail(reason: OciArchiveError["reason"], detail: string): never {
    throw new OciArchiveError({ reason, path: this.file, detail })
  }

  async json<S extends Schema.Top & { readonly DecodingServices: never }>(
    at: string,
    schema: S,
    absent: OciArchiveError["reason"],
  ): Promise<S["Type"]> {
    const stored = this.files.get(at) ?? this.fail(absent, `it has no ${at}`)
    if (stored.size > MAX_JSON) this.fail("BadJson", `${at} has ${stored.size} bytes`)
    const text = (await readAt(this.file, stored.offset, stored.size)).toString("utf8")
    try {
      return await Schema.decodeUnknownPromise(schema)(JSON.parse(text))
    } catch (cause) {
      return this.fail(
        "BadJson",
        `${at} is not valid: ${cause instanceof Error ? cause.message : String(cause)}`,
      )
    }
  }

  has(descriptor: Descriptor): boolean {
    return this.files.has(blobPath(descriptor.digest))
  }

  /** Present and of the promised size; digests were verified when it was read. */
  require(descriptor: Descriptor, role: string): void {
    const stored =
      this.files.get(blobPath(descriptor.digest)) ??
      this.fail("MissingBlob", `the ${role} ${descriptor.digest} is not in it`)
    if (stored.size !== descriptor.size) {
      this.fail(
        "BadSize",
        `the ${role} ${descriptor.digest} has ${stored.size} bytes instead of ${descriptor.size}`,
      )
    }
  }
}

const blobPath = (digest: string): string => `blobs/sha256/${digest.slice("sha256:".length)}`

/** Goes through the whole file once, hashing each blob. */
const scan = async (file: string, signal: AbortSignal): Promise<Archive> => {
  const archive = new Archive(file)
  try {
    await Tar.read(
      file,
      async (entry, content) => {
        if (entry.type !== "File") return
        const hash = crypto.createHash("sha256")
        let seen = 0
        for await (const piece of content) {
          hash.update(piece)
          seen += piece.length
        }
        archive.files.set(entry.path, { offset: entry.offset, size: entry.size })
        const named = /^blobs\/sha256\/(.*)$/u.exec(entry.path)?.[1]
        const digest = hash.digest("hex")
        if (named !== undefined && seen === entry.size && digest !== named) {
          archive.fail("BadDigest", `the blob sha256:${named} is damaged: its content has sha256:${digest}`)
        }
      },
      signal,
    )
  } catch (cause) {
    if (!isImageError(cause) || cause._tag !== "TarError") throw cause
    archive.fail(cause.reason === "Truncated" ? "Truncated" : "NotATar", cause.detail)
  }
  return archive
}

const summarise = async (
  archive: Archive,
  descriptor: Descriptor,
  name: string | undefined,
): Promise<ImageSummary> => {
  archive.require(descriptor, "manifest")
  const manifest = await archive.json(blobPath(descriptor.digest), Manifest, "MissingBlob")
  archive.require(manifest.config, "config")
  for (const layer of manifest.layers) archive.require(layer, "layer")
  const config = await archive.json(blobPath(manifest.config.digest), Config, "MissingBlob")
  const ids = config.rootfs.diff_ids
  for (const [i, layer] of manifest.layers.entries()) {
    if (ids.length !== manifest.layers.length || (layer.mediaType === LAYER && ids[i] !== layer.digest)) {
      archive.fail("BadDigest", `the config ${manifest.config.digest} lists other layers than the manifest`)
    }
  }
  return {
    name,
    manifestDigest: descriptor.digest,
    configDigest: manifest.config.digest,
    layers: manifest.layers.map(({ digest, mediaType, size }) => ({ mediaType, digest, size })),
    architecture: config.architecture,
    os: config.os,
    size: [descriptor, manifest.config, ...manifest.layers].reduce((sum, d) => sum + d.size, 0),
  }
}

/** An index in an index is an image of several platforms; those here count. */
const collect = async (
  archive: Archive,
  descriptors: ReadonlyArray<Descriptor>,
  inherited: string | undefined,
  depth: number,
): Promise<Array<ImageSummary>> => {
  const images: Array<ImageSummary> = []
  for (const descriptor of descriptors) {
    if (depth > 0 && !archive.has(descriptor)) continue
    const name =
      descriptor.annotations?.["io.containerd.image.name"] ??
      descriptor.annotations?.["org.opencontainers.image.ref.name"] ??
      inherited
    if (descriptor.mediaType !== INDEX && descriptor.mediaType !== DOCKER_LIST) {
      images.push(await summarise(archive, descriptor, name))
      continue
    }
    if (depth > 2) archive.fail("BadJson", "indexes are nested too deep")
    archive.require(descriptor, "index")
    const index = await archive.json(blobPath(descriptor.digest), Index, "MissingBlob")
    images.push(...(await collect(archive, index.manifests, name, depth + 1)))
  }
  return images
}

/**
 * Reads an OCI image archive, ours or another tool's, and verifies it: the
 * tar is whole, every blob has the digest that it is named after, manifest,
 * config and layers are there in the sizes that are promised.
 *
 * Fails with {@link OciArchiveError}: `NotATar`, `Truncated`, `MissingLayout`,
 * `MissingIndex`, `MissingBlob`, `BadDigest`, `BadSize`, `BadJson`, `NoImage`;
 * with `ImageFileError` when the file cannot be read.
 *
 * @example
 * ```ts
 * import * as OciArchive from "@kios/distro/image/OciArchive"
 *
 * const info = OciArchive.inspect("busybox.tar")
 * ```
 */
export const inspect = (file: string): Effect.Effect<Info, ImageError> =>
  attempt("read", file, async (signal) => {
    const archive = await scan(file, signal)
    const index = await archive.json("index.json", Index, "MissingIndex")
    const layout = await archive.json("oci-layout", Layout, "MissingLayout")
    if (!layout.imageLayoutVersion.startsWith("1.")) {
      archive.fail("BadJson", `its layout has version ${layout.imageLayoutVersion}, we know 1.0.0`)
    }
    const [first, ...rest] = await collect(archive, index.manifests, undefined, 0)
    if (first === undefined) return archive.fail("NoImage", "there is no image in it")
    return { bytes: (await contentSize({ path: file })) ?? 0, images: [first, ...rest] }
  })
