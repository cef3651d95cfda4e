/**
 * What an image archive says it holds: its index.json and where its blobs are, found without reading layers.
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
  /** The annotation `io.containerd.image.name`: complete, and what containerd calls the image. */
  readonly name: string | undefined
  /** Of its manifest or index, as index.json describes it. */
  readonly mediaType: string
  readonly annotations: Readonly<Record<string, string>>
}

/** Where a blob is in the archive, in bytes. */
export interface ArchivedBlob {
  readonly at: number
  readonly size: number
}

/** What an archive holds. */
export interface Layout {
  readonly images: ReadonlyArray<ArchivedImage>
  /** By digest, as their names say: nothing has been read. Undefined when not every name is certain. */
  readonly blobs: ReadonlyMap<string, ArchivedBlob> | undefined
}

// The image specification asks registries to take manifests of 4 MiB.
const maxIndexBytes = 4 * 1024 * 1024
const block = 512
// Types of a tar's entries; 0 is an old way to say file.
const FILE = 0x30
const DIRECTORY = 0x35

const field = (header: Buffer, start: number, end: number): string => {
  const nul = header.subarray(start, end).indexOf(0)
  return header.toString("latin1", start, nul === -1 ? end : start + nul)
}

/** The size of an entry: octal digits, or from 8 GiB on a number of which the first bit is set. */
const sizeOf = (header: Buffer): number =>
  header[124]! < 128
    ? Number.parseInt(field(header, 124, 136).trim() || "0", 8)
    : Number(header.readBigUInt64BE(128))

const nameKey = "io.containerd.image.name"
const nameKeys = [nameKey, "org.opencontainers.image.ref.name"]

/** The images of an index.json that have a name; undefined when it is not one. */
const parse = (text: string): ReadonlyArray<ArchivedImage> | undefined => {
  try {
    const { manifests } = JSON.parse(text) as {
      readonly manifests: ReadonlyArray<{
        readonly digest: string
        readonly mediaType?: unknown
        readonly annotations?: Readonly<Record<string, string>>
      }>
    }
    const named = manifests.flatMap(({ annotations = {}, digest, mediaType }) => {
      const names = nameKeys.flatMap((key) => annotations[key] ?? [])
      return names.length === 0
        ? []
        : [
            {
              digest,
              names,
              name: annotations[nameKey],
              mediaType: typeof mediaType === "string" ? mediaType : "",
              annotations,
            },
          ]
    })
    return named.every(({ digest }) => /^[a-z0-9]+:[0-9a-f]{32,}$/u.test(digest)) ? named : undefined
  } catch {
    return undefined
  }
}

/** A file of an archive: its name, and where its content is. */
interface Entry extends ArchivedBlob {
  readonly name: string
}

const isIndex = ({ name }: Entry): boolean => name === "index.json"

/** The files of a tar, and whether each of them has its own name: what follows a header of another kind (pax) may not. */
const filesOf = (
  file: OpenFile,
): Effect.Effect<
  { readonly files: ReadonlyArray<Entry>; readonly plain: boolean } | undefined,
  FileUnreadable
> =>
  Effect.gen(function* () {
    const files: Array<Entry> = []
    const header = Buffer.alloc(block)
    let plain = true
    for (let at = 0; at < file.size;) {
      const read = yield* file.read(header, at)
      // Zeros are the end.
      if (read === block && header[0] === 0 && files.length > 0) break
      const size = sizeOf(header)
      const isHeader = read === block && field(header, 257, 262) === "ustar"
      if (!isHeader || !Number.isSafeInteger(size) || size < 0 || at + block + size > file.size) {
        // What is behind index.json is not needed to know the images.
        if (!files.some(isIndex)) return undefined
        plain = false
        break
      }
      const type = header[156]!
      const isFile = type === 0 || type === FILE
      const prefix = field(header, 345, 500)
      const own = field(header, 0, 100)
      const name = (prefix === "" ? own : `${prefix}/${own}`).replace(/^\.\//u, "")
      if (isFile) files.push({ name, at: at + block, size })
      else if (type !== DIRECTORY) plain = false
      at += block + Math.ceil(size / block) * block
    }
    return { files, plain }
  })

/**
 * The named images of an OCI archive and its blobs. Undefined when they cannot be told: the archive is
 * compressed, is no tar, is cut, or has no index.json (`docker save` before version 25).
 */
export const readLayout = (file: OpenFile): Effect.Effect<Layout | undefined, FileUnreadable> =>
  Effect.gen(function* () {
    const found = yield* filesOf(file)
    const index = found?.files.find(isIndex)
    if (found === undefined || index === undefined || index.size > maxIndexBytes) return undefined
    const content = Buffer.alloc(index.size)
    if ((yield* file.read(content, index.at)) < index.size) return undefined
    const images = parse(content.toString("utf8"))
    if (images === undefined) return undefined
    const blobs = found.files.flatMap(({ at, name, size }) => {
      const [, algorithm, hex] = /^blobs\/(\w+)\/([0-9a-f]+)$/u.exec(name) ?? []
      return hex === undefined ? [] : [[`${algorithm}:${hex}`, { at, size }] as const]
    })
    return { images, blobs: found.plain ? new Map(blobs) : undefined }
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
