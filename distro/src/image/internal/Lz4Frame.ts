/**
 * Where a legacy frame of lz4 ends, which its format does not say: a magic
 * number, and blocks with their lengths. The kernel's lib/decompress_unlz4.c
 * stops at a block of no length and at the end of the file, and goes on after
 * another magic number.
 */
import type { ByteReader } from "./InputFile.ts"

export const LZ4_LEGACY_MAGIC = "02214c18"

/** The bytes of one frame, from the reader's position; the end mark is taken and not given. */
export async function* lz4Frame(reader: ByteReader): AsyncGenerator<Buffer> {
  for (;;) {
    const start = await reader.take(4)
    if (start.every((byte) => byte === 0)) return
    yield start
    if (start.toString("hex") !== LZ4_LEGACY_MAGIC)
      yield* reader.pieces(start.length === 4 ? start.readUInt32LE(0) : 0)
  }
}
