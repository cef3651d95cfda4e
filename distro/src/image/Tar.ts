/**
 * Reproducible tar archives: ustar with pax records where ustar is too
 * narrow, times 0, no owner names. Same entries, same bytes.
 *
 * Source: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Header Block".
 *
 * @module
 */
import { TarError } from "./ImageError.ts"
import { ByteReader, chunks, type Content, contentChunks, contentSize } from "./internal/InputFile.ts"
import { CHUNK } from "./internal/OutputFile.ts"
import { BLOCK, decode, decodePax, encode, padding, type TarHeader } from "./internal/TarHeader.ts"
import { arrange, normalisePath } from "./internal/Tree.ts"

/**
 * One thing in an archive; `path` with or without a leading slash, `mode` the
 * permission bits. Owner root unless given.
 */
export type Entry = { readonly path: string; readonly uid?: number; readonly gid?: number } & (
  | { readonly _tag: "Directory"; readonly mode: number }
  | { readonly _tag: "File"; readonly mode: number; readonly content: Content }
  | { readonly _tag: "Symlink"; readonly target: string }
)

/**
 * How {@link stream} treats its entries.
 *
 * - `keepOrder`: as listed, and no parents are made (archives whose readers
 *   expect some file first); otherwise sorted, parents first, missing parents
 *   made with mode 0755.
 */
export interface StreamOptions {
  readonly keepOrder?: boolean
  readonly signal?: AbortSignal
}

const fail = (reason: TarError["reason"], path: string, detail: string): never => {
  throw new TarError({ reason, path, detail })
}

const headerOf = (entry: Entry, size: number): TarHeader => ({
  name: entry._tag === "Directory" ? `${entry.path}/` : entry.path,
  mode: entry._tag === "Symlink" ? 0o777 : entry.mode,
  uid: entry.uid ?? 0,
  gid: entry.gid ?? 0,
  size,
  mtime: 0,
  type: { Directory: "5", File: "0", Symlink: "2" }[entry._tag],
  target: entry._tag === "Symlink" ? entry.target : "",
})

const within = (n: number, max: number): boolean => Number.isInteger(n) && n >= 0 && n <= max

const verify = (entry: Entry): void => {
  if (entry._tag !== "Symlink" && !within(entry.mode, 0o7777)) {
    fail("InvalidMode", entry.path, `mode 0o${entry.mode.toString(8)} is not within 0 and 0o7777`)
  }
  for (const id of [entry.uid ?? 0, entry.gid ?? 0]) {
    if (!within(id, 2 ** 32 - 2)) fail("InvalidMode", entry.path, `owner ${id} is not a user or group number`)
  }
  if (entry._tag === "Symlink" && (entry.target === "" || entry.target.includes("\0"))) {
    fail("InvalidPath", entry.path, "the link's target is empty or has a NUL")
  }
}

const makeDirectory = (path: string): Entry => ({ _tag: "Directory", path, mode: 0o755 })

/**
 * The bytes of an archive, in pieces; the end is two blocks of zeros. Throws
 * {@link TarError} before the first piece when an entry cannot be written.
 */
export async function* stream(
  entries: Iterable<Entry>,
  options: StreamOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const given = [...entries]
  const arranged = arrange<Entry>(given, makeDirectory, fail)
  const listed =
    options.keepOrder === true
      ? given.map((entry) => ({ ...entry, path: normalisePath(entry.path) ?? entry.path }))
      : arranged
  const sized: Array<readonly [Entry, number]> = []
  for (const entry of listed) {
    verify(entry)
    const size =
      entry._tag !== "File"
        ? 0
        : ((await contentSize(entry.content)) ??
          fail("NotARegularFile", entry.path, "its source is not a regular file"))
    sized.push([entry, size])
  }
  for (const [entry, size] of sized) {
    yield encode(headerOf(entry, size))
    if (entry._tag === "File") yield* contentChunks(entry.content, size, options.signal)
    yield new Uint8Array(padding(size))
  }
  yield new Uint8Array(2 * BLOCK)
}

/**
 * An entry as found: `offset` is where its content begins in the file.
 */
export interface ReadEntry {
  readonly type: "File" | "Directory" | "Symlink" | "HardLink" | "Other"
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  readonly size: number
  readonly offset: number
  readonly target: string
}

const kinds: Readonly<Record<string, ReadEntry["type"]>> = {
  "0": "File",
  "7": "File",
  "5": "Directory",
  "2": "Symlink",
  "1": "HardLink",
}

/**
 * Reads an archive entry by entry. `visit` gets each entry and its content in
 * pieces, which it need not take. ustar, pax and GNU long names are known.
 *
 * Throws {@link TarError} `NotATar` (with what it looks like instead) or
 * `Truncated`.
 */
export const read = async (
  file: string,
  visit: (entry: ReadEntry, content: AsyncIterable<Uint8Array>) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> => {
  const reader = new ByteReader(chunks(file, {}, signal))
  try {
    let pending = new Map<string, string>()
    for (let first = true; ; first = false) {
      const bytes = await reader.take(BLOCK)
      if (bytes.length < BLOCK) {
        if (first) fail("NotATar", file, `not a tar archive: ${bytes.length} bytes`)
        fail("Truncated", file, `cut short at byte ${reader.position}: the end of the archive is missing`)
      }
      if (bytes.every((b) => b === 0)) {
        if (first) fail("NotATar", file, "not a tar archive, or an empty one: it begins with zeros")
        return
      }
      const header = decode(bytes)
      if (header === undefined || Number.isNaN(header.size)) {
        fail(
          first ? "NotATar" : "Truncated",
          file,
          first
            ? `not a tar archive${likeness(bytes)}`
            : `byte ${reader.position - BLOCK}: no tar header here; damaged`,
        )
      }
      pending = await readOne(reader, file, header!, pending, visit)
    }
  } finally {
    await reader.close()
  }
}

const likeness = (bytes: Buffer): string => {
  const magic = bytes.toString("hex", 0, 4)
  if (magic.startsWith("1f8b")) return ": it is compressed by gzip; unpack it with gunzip first"
  if (magic === "28b52ffd") return ": it is compressed by zstd; unpack it with zstd -d first"
  return ""
}

/** One header and its content; the result is what the next header inherits. */
const readOne = async (
  reader: ByteReader,
  file: string,
  header: TarHeader,
  pending: Map<string, string>,
  visit: (entry: ReadEntry, content: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<Map<string, string>> => {
  const truncated = (name: string): never =>
    fail("Truncated", file, `cut short at byte ${reader.position}, within ${name}`)
  const meta = { x: "pax", g: "global", L: "path", K: "linkpath" }[header.type]
  if (meta !== undefined) {
    if (header.size > CHUNK) fail("NotATar", file, `an extended header of ${header.size} bytes`)
    const body = await reader.take(header.size)
    if (body.length < header.size) truncated("an extended header")
    await reader.take(padding(header.size))
    if (meta === "global") return pending
    const text = body.toString("utf8").replace(/\0.*$/su, "")
    return new Map([...pending, ...(meta === "pax" ? decodePax(body) : [[meta, text] as const])])
  }
  const size = Number(pending.get("size") ?? header.size)
  const path = (pending.get("path") ?? header.name).replace(/^(\.?\/)+/u, "").replace(/\/+$/u, "")
  const entry: ReadEntry = {
    type: kinds[header.type] ?? "Other",
    path,
    mode: header.mode & 0o7777,
    uid: Number(pending.get("uid") ?? header.uid),
    gid: Number(pending.get("gid") ?? header.gid),
    mtime: header.mtime,
    size,
    offset: reader.position,
    target: pending.get("linkpath") ?? header.target,
  }
  const start = reader.position
  await visit(entry, reader.pieces(size))
  for await (const _ of reader.pieces(size - (reader.position - start))) void _
  if (reader.position - start < size) truncated(path)
  await reader.take(padding(size))
  return new Map()
}
