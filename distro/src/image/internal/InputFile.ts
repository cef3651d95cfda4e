/**
 * Reading of big files in pieces, with errors that name the file.
 */
import * as crypto from "node:crypto"
import * as fs from "node:fs/promises"
import { fromUnknown } from "../ImageError.ts"
import { CHUNK, io } from "./OutputFile.ts"

export interface Range {
  readonly offset?: number
  readonly length?: number
}

/** The bytes of a file (or of a part of it), at most CHUNK at a time. */
export async function* chunks(
  file: string,
  range: Range = {},
  signal?: AbortSignal,
): AsyncGenerator<Buffer, void, void> {
  const handle = await io("open", file, () => fs.open(file, "r"))
  try {
    let at = range.offset ?? 0
    let left = range.length ?? Number.POSITIVE_INFINITY
    while (left > 0) {
      signal?.throwIfAborted()
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK, left))
      const { bytesRead } = await io("read", file, () => handle.read(buffer, 0, buffer.length, at))
      if (bytesRead === 0) return
      at += bytesRead
      left -= bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle.close()
  }
}

/** Exactly `length` bytes at `offset`, or fewer at the end of the file. */
export const readAt = async (file: string, offset: number, length: number): Promise<Buffer> => {
  const parts: Array<Buffer> = []
  for await (const chunk of chunks(file, { offset, length })) parts.push(chunk)
  return Buffer.concat(parts)
}

/** What an entry's content is made of: a file of the build machine, or bytes. */
export type Content = { readonly path: string } | { readonly bytes: Uint8Array }

/** Size of a content in bytes; `undefined` when it is not a regular file. */
export const contentSize = async (content: Content): Promise<number | undefined> => {
  if ("bytes" in content) return content.bytes.length
  const stat = await io("read", content.path, () => fs.stat(content.path))
  return stat.isFile() ? stat.size : undefined
}

/**
 * The bytes of a content. A file that is no longer `size` bytes long (it was
 * measured before) is an error: its header is already written.
 */
export async function* contentChunks(
  content: Content,
  size: number,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  if ("bytes" in content) {
    if (size > 0) yield content.bytes
    return
  }
  let seen = 0
  for await (const chunk of chunks(content.path, {}, signal)) {
    seen += chunk.length
    if (seen > size) break
    yield chunk
  }
  if (seen !== size) {
    throw fromUnknown(
      "read",
      content.path,
      new Error(
        `it changed while it was read: it had ${size} bytes, now it has ${seen > size ? "more" : seen}`,
      ),
    )
  }
}

/** Size and SHA-256 (hexadecimal) of a file or a part of it. */
export const digest = async (
  file: string,
  range: Range = {},
  signal?: AbortSignal,
): Promise<{ readonly bytes: number; readonly sha256: string }> => {
  const hash = crypto.createHash("sha256")
  let bytes = 0
  for await (const chunk of chunks(file, range, signal)) {
    hash.update(chunk)
    bytes += chunk.length
  }
  return { bytes, sha256: hash.digest("hex") }
}

/** Takes exact amounts of bytes from a stream of pieces of any size. */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>
  #buffer: Buffer = Buffer.alloc(0)
  /** Bytes taken so far. */
  position = 0

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** `n` bytes (small: they are held in memory), or fewer at the end. */
  async take(n: number): Promise<Buffer> {
    const parts: Array<Buffer> = []
    for await (const part of this.pieces(n)) parts.push(part)
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  /** The next `n` bytes in pieces, or fewer at the end of the stream. */
  async *pieces(n: number): AsyncGenerator<Buffer, void, void> {
    let left = n
    while (left > 0) {
      if (this.#buffer.length === 0) {
        const next = await this.#source.next()
        if (next.done === true) return
        this.#buffer = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength)
        continue
      }
      const piece = this.#buffer.subarray(0, left)
      this.#buffer = this.#buffer.subarray(piece.length)
      left -= piece.length
      this.position += piece.length
      yield piece
    }
  }

  /** Puts back bytes that were taken last. */
  putBack(bytes: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? bytes : Buffer.concat([bytes, this.#buffer])
    this.position -= bytes.length
  }

  /** Stops the source: its file is closed, its process ended. */
  async close(): Promise<void> {
    await this.#source.return?.()
  }
}
