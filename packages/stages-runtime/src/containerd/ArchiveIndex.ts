/**
 * What an image archive says it holds: its index.json, found without reading layers.
 *
 * A tar has no directory. Its headers are walked with one read of 512 bytes each, so that the cost is the
 * number of blobs and not their size, and nothing but index.json is ever held in memory.
 *
 * Sources: image-layout.md of the OCI image specification; pax(1) for ustar.
 */
import * as Effect from "effect/Effect"
import type { FileUnreadable, OpenFile } from "./ArchiveUpload.ts"
import type { Image } from "./Images.ts"

/** An image that an archive names. */
export interface ArchivedImage {
  /** Of its manifest or index. */
  readonly digest: string
  /** Complete names, or tags alone: what the annotations say. */
  readonly names: ReadonlyArray<string>
}

// The image specification asks registries to take manifests of 4 MiB.
const maxIndexBytes = 4 * 1024 * 1024
const block = 512

const field = (header: Buffer, start: number, end: number): string => {
  const nul = header.subarray(start, end).indexOf(0)
  return header.toString("latin1", start, nul === -1 ? end : start + nul)
}

/** The size of an entry: octal digits, or from 8 GiB on a number of which the first bit is set. */
const sizeOf = (header: Buffer): number =>
  header[124]! < 128
    ? Number.parseInt(field(header, 124, 136).trim() || "0", 8)
    : Number(header.readBigUInt64BE(128))

const nameKeys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]

/** The images of an index.json that have a name; undefined when it is not one. */
const parse = (text: string): ReadonlyArray<ArchivedImage> | undefined => {
  try {
    const { manifests } = JSON.parse(text) as {
      readonly manifests: ReadonlyArray<{
        readonly digest: string
        readonly annotations?: Readonly<Record<string, string>>
      }>
    }
    const named = manifests.flatMap(({ annotations, digest }) => {
      const names = nameKeys.flatMap((key) => annotations?.[key] ?? [])
      return names.length === 0 ? [] : [{ digest, names }]
    })
    return named.every(({ digest }) => /^[a-z0-9]+:[0-9a-f]{32,}$/u.test(digest)) ? named : undefined
  } catch {
    return undefined
  }
}

/**
 * The named images of an OCI archive. Undefined when that cannot be told: the archive is compressed, is no
 * tar, or has no index.json (`docker save` before version 25).
 */
export const readIndex = (
  file: OpenFile,
): Effect.Effect<ReadonlyArray<ArchivedImage> | undefined, FileUnreadable> =>
  Effect.gen(function* () {
    const header = Buffer.alloc(block)
    for (let at = 0; at < file.size;) {
      const read = yield* file.read(header, at)
      if (read < block || field(header, 257, 262) !== "ustar") return undefined
      const size = sizeOf(header)
      if (!Number.isSafeInteger(size) || size < 0) return undefined
      const isFile = header[156] === 0 || header[156] === 0x30
      if (isFile && /^(?:\.\/)?index\.json$/u.test(field(header, 0, 100))) {
        if (size > maxIndexBytes) return undefined
        const content = Buffer.alloc(size)
        return (yield* file.read(content, at + block)) < size ? undefined : parse(content.toString("utf8"))
      }
      at += block + Math.ceil(size / block) * block
    }
    return undefined
  })

/**
 * The records by which containerd has an archive's images, each under its name, with its digest and all of
 * the labels; undefined when one is missing, or the archive names none.
 */
export const recordsOf = (
  archived: ReadonlyArray<ArchivedImage>,
  prefix: string,
  labels: Readonly<Record<string, string>>,
  there: ReadonlyArray<Image>,
): ReadonlyArray<Image> | undefined => {
  const records: Array<Image> = []
  for (const { digest, names } of archived) {
    const record = there.find(
      (image) =>
        image.digest === digest &&
        // As containerd names it: see encodeImport of Transfer.ts.
        names.some((name) => image.name === name || image.name === `${prefix}:${name}`) &&
        Object.entries(labels).every(([key, value]) => image.labels[key] === value),
    )
    if (record === undefined) return undefined
    records.push(record)
  }
  return records.length === 0 ? undefined : records
}
