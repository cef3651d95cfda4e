/**
 * The two compressions that the kernel unpacks and that are worth having
 * (measured: lz4 fastest, zstd smaller), to and from a stream.
 */
import { pipeline as connect, Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import * as zlib from "node:zlib"
import type { HostToolsService } from "../HostTools.ts"
import type { ByteReader } from "./InputFile.ts"
import { LZ4_LEGACY_MAGIC, lz4Frame } from "./Lz4Frame.ts"
import { CHUNK, type OutputFile } from "./OutputFile.ts"
import { ZSTD_MAGIC, zstdFrame } from "./ZstdFrame.ts"

export type Compression = "none" | "lz4" | "zstd"

// A block of no length. Without it the kernel takes what an EFI stub puts behind (its /.extra/os-release) for a
// block: lib/decompress_unlz4.c, "Initramfs unpacking failed: Decoding failed".
const LZ4_END = Buffer.alloc(4)
// 32 MB: docs/performance.md has what other windows give.
const WINDOW_LOG = 25

/**
 * Compresses `source` into `out`; resolves to the bytes before compression.
 *
 * lz4 is the legacy frame (`lz4 -l`): the kernel's lib/decompress_unlz4.c
 * knows no other. zstd has no checksum, which costs time in the boot and
 * guards nothing that Secure Boot and the image's digest do not, and a window
 * of 32 MB of the 128 MB that lib/decompress_unzstd.c takes.
 */
export const compress = async (
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  level: number,
  out: OutputFile,
  tools: HostToolsService,
  signal: AbortSignal,
): Promise<number> => {
  let uncompressed = 0
  const counted = blocks(source, (n) => {
    uncompressed += n
  })
  const consume = async (from: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const chunk of from) await out.write(chunk)
  }
  switch (compression) {
    case "none":
      await consume(counted)
      break
    case "zstd": {
      const {
        ZSTD_c_checksumFlag,
        ZSTD_c_compressionLevel,
        ZSTD_c_enableLongDistanceMatching,
        ZSTD_c_windowLog,
      } = zlib.constants
      const zstd = zlib.createZstdCompress({
        chunkSize: 1 << 17,
        params: {
          [ZSTD_c_compressionLevel]: level,
          [ZSTD_c_checksumFlag]: 0,
          // Go binaries repeat each other's packages, megabytes apart.
          [ZSTD_c_enableLongDistanceMatching]: 1,
          [ZSTD_c_windowLog]: WINDOW_LOG,
        },
      })
      // The callback is called too when `zstd` throws into our reader.
      await consume(connect(Readable.from(counted, { objectMode: false }), zstd, () => {}))
      break
    }
    case "lz4": {
      const filter = tools.open({ tool: "lz4", args: ["-l", `-${level}`, "-q", "-z", "-c"] }, signal)
      await filtering(filter.done, [
        pipeline(Readable.from(counted, { objectMode: false }), filter.stdin, { signal }),
        consume(filter.stdout as AsyncIterable<Buffer>),
      ])
      await out.write(LZ4_END)
    }
  }
  return uncompressed
}

/** The filter's own complaint says more than the broken pipe it causes. */
const filtering = async (done: Promise<void>, streams: ReadonlyArray<Promise<void>>): Promise<void> => {
  const [own, ...rest] = await Promise.allSettled([done, ...streams])
  for (const result of [own, ...rest]) if (result.status === "rejected") throw result.reason
}

/**
 * Pieces of exactly CHUNK bytes (but for the last), so that what a compressor
 * gives does not depend on how the source happened to be cut.
 */
async function* blocks(
  source: AsyncIterable<Uint8Array>,
  count: (n: number) => void,
): AsyncGenerator<Buffer> {
  let block = Buffer.allocUnsafe(CHUNK)
  let used = 0
  for await (const chunk of source) {
    count(chunk.length)
    for (let at = 0; at < chunk.length;) {
      const n = Math.min(chunk.length - at, CHUNK - used)
      block.set(chunk.subarray(at, at + n), used)
      used += n
      at += n
      if (used === CHUNK) {
        yield block
        block = Buffer.allocUnsafe(CHUNK)
        used = 0
      }
    }
  }
  if (used > 0) yield block.subarray(0, used)
}

/**
 * Undoes the compression of what begins at the reader's position, by its first
 * bytes: one frame. Undefined for anything else, of which nothing is taken.
 */
export const decompressed = async (
  reader: ByteReader,
  tools: HostToolsService,
  signal: AbortSignal,
): Promise<AsyncGenerator<Buffer> | undefined> => {
  const magic = await reader.take(4)
  reader.putBack(magic)
  switch (magic.toString("hex")) {
    case ZSTD_MAGIC:
      return inflate(zstdFrame(reader))
    case LZ4_LEGACY_MAGIC:
      return throughLz4(lz4Frame(reader), tools, signal)
    default:
      return undefined
  }
}

async function* inflate(source: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  yield* connect(Readable.from(source, { objectMode: false }), zlib.createZstdDecompress(), () => {})
}

async function* throughLz4(
  source: AsyncGenerator<Buffer>,
  tools: HostToolsService,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const filter = tools.open({ tool: "lz4", args: ["-d", "-q", "-c"] }, signal)
  const fed = pipeline(Readable.from(source, { objectMode: false }), filter.stdin, { signal })
  const ended = filtering(filter.done, [fed])
  ended.catch(() => {})
  try {
    yield* filter.stdout as AsyncIterable<Buffer>
  } finally {
    filter.stdin.end()
  }
  // The failure of the filter is ours.
  await ended
}
