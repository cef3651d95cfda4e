/**
 * Where a zstd frame ends, RFC 8878 section 3.1.1. Node's decompressor stops
 * at the end of the first frame of a stream and does not say where that was;
 * the kernel's goes on there with what follows.
 */
import type { ByteReader } from "./InputFile.ts"

export const ZSTD_MAGIC = "28b52ffd"

const RLE = 1

/**
 * The bytes of one frame, from the reader's position to the frame's end. Ends
 * early where the reader does: the decompressor then says what is missing.
 */
export async function* zstdFrame(reader: ByteReader): AsyncGenerator<Buffer> {
  const start = await reader.take(5)
  yield start
  const descriptor = start[4] ?? 0
  const single = (descriptor & 0x20) !== 0
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0
  const contentSize = [single ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0
  yield* reader.pieces((single ? 0 : 1) + dictionary + contentSize)
  for (let last = false; !last;) {
    const header = await reader.take(3)
    yield header
    if (header.length < 3) return
    const block = header.readUIntLE(0, 3)
    last = (block & 1) !== 0
    yield* reader.pieces(((block >> 1) & 3) === RLE ? 1 : block >> 3)
  }
  if ((descriptor & 0x04) !== 0) yield* reader.pieces(4)
}
