/**
 * The archives of an initramfs, as `init/initramfs.c` reads them.
 */
import * as crypto from "node:crypto"
import type { HostToolsService } from "../HostTools.ts"
import { InitramfsError } from "../ImageError.ts"
import type { ReadEntry } from "../Initramfs.ts"
import { decompressed } from "./Compression.ts"
import { ByteReader } from "./InputFile.ts"
import { align4, decodeHeader, HEADER_BYTES, type NewcHeader, S_IFMT, TRAILER, types } from "./Newc.ts"

type Malformed = (detail: string) => never

/** All archives, whatever each of them is compressed by; files of up to `keep` bytes with their content. */
export const readSegments = async (
  reader: ByteReader,
  name: string,
  keep: number,
  tools: HostToolsService,
  signal: AbortSignal,
): Promise<Array<ReadEntry>> => {
  const entries: Array<ReadEntry> = []
  await eachArchive(reader, async () => {
    const plain = await decompressed(reader, tools, signal)
    if (plain === undefined) return readArchive(reader, entries, keep, malformedAt(reader, name))
    const inner = new ByteReader(plain)
    try {
      await eachArchive(inner, () => readArchive(inner, entries, keep, malformedAt(inner, name)))
    } finally {
      await inner.close()
    }
  })
  return entries.length > 0 ? entries : malformedAt(reader, name)("there is nothing in it")
}

const malformedAt =
  (reader: ByteReader, name: string): Malformed =>
  (detail) => {
    throw new InitramfsError({
      reason: "Malformed",
      path: name,
      detail: `byte ${reader.position}: ${detail}`,
    })
  }

/** To the end of the reader. Between two archives, and only there, the kernel skips zeros. */
const eachArchive = async (reader: ByteReader, read: () => Promise<void>): Promise<void> => {
  for (;;) {
    const start = await reader.take(1)
    if (start.length === 0) return
    if (start[0] === 0) continue
    reader.putBack(start)
    await read()
  }
}

/** One archive, with its trailer. */
const readArchive = async (
  reader: ByteReader,
  entries: Array<ReadEntry>,
  keep: number,
  malformed: Malformed,
): Promise<void> => {
  if (reader.position % 4 !== 0) malformed("no newc header here: an archive begins at a multiple of 4")
  for (;;) {
    const header = decodeHeader(await reader.take(HEADER_BYTES))
    if (header === undefined)
      return malformed("no newc header here; the archive is cut short or not a cpio archive")
    const nameField = await reader.take(align4(HEADER_BYTES + header.namesize) - HEADER_BYTES)
    const path = nameField.subarray(0, header.namesize - 1).toString()
    if (header.namesize < 1 || nameField.length < header.namesize || nameField[header.namesize - 1] !== 0) {
      return malformed("the name is cut short or not terminated")
    }
    if (path === TRAILER) return
    entries.push(await readEntry(reader, header, path, keep, malformed))
  }
}

const readEntry = async (
  reader: ByteReader,
  header: NewcHeader,
  path: string,
  keep: number,
  malformed: Malformed,
): Promise<ReadEntry> => {
  const hash = crypto.createHash("sha256")
  const kind = header.mode & S_IFMT
  const type = (Object.keys(types) as Array<keyof typeof types>).find((k) => types[k] === kind) ?? "Other"
  const kept: Array<Buffer> = []
  const keeping = type === "Symlink" || header.filesize <= keep
  let seen = 0
  for await (const piece of reader.pieces(header.filesize)) {
    hash.update(piece)
    seen += piece.length
    if (keeping) kept.push(piece)
  }
  if (seen < header.filesize) malformed(`${path} ends after ${seen} of ${header.filesize} bytes`)
  await reader.take(align4(seen) - seen)
  const content = Buffer.concat(kept)
  return {
    type,
    path,
    mode: header.mode & 0o7777,
    size: header.filesize,
    header,
    ...(type === "Symlink" ? { target: content.toString() } : {}),
    ...(type === "File" ? { sha256: hash.digest("hex") } : {}),
    ...(type === "File" && keeping && keep > 0 ? { content } : {}),
  }
}
