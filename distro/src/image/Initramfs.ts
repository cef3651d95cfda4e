/**
 * The initramfs: the tree that the kernel unpacks into RAM, as a newc cpio
 * archive. Same entries, same bytes: times are 0, owners are root, inode
 * numbers count up, entries are sorted.
 *
 * Format and limits: kernel Documentation/driver-api/early-userspace/buffer-format.rst
 * and `init/initramfs.c`.
 *
 * @module
 */
import { Effect } from "effect"
import { type ImageError, InitramfsError, isImageError } from "./ImageError.ts"
import { type Compression, compress } from "./internal/Compression.ts"
import {
  ByteReader,
  chunks,
  type Content,
  contentChunks,
  contentSize,
  type Range,
} from "./internal/InputFile.ts"
import { align4, encodeHeader, HEADER_BYTES, type NewcHeader, TRAILER, types } from "./internal/Newc.ts"
import { attempt, withOutput } from "./internal/OutputFile.ts"
import { readSegments } from "./internal/ReadArchives.ts"
import { arrange } from "./internal/Tree.ts"
import { HostTools } from "./HostTools.ts"

/**
 * One thing in the image. `path` is inside the image, with or without a
 * leading slash; `mode` is the permission bits (0 to 0o7777), the type comes
 * from `_tag`.
 */
export type Entry =
  | { readonly _tag: "Directory"; readonly path: string; readonly mode: number }
  | { readonly _tag: "File"; readonly path: string; readonly mode: number; readonly content: Content }
  | { readonly _tag: "Symlink"; readonly path: string; readonly mode?: number; readonly target: string }
  | {
      readonly _tag: "CharDevice"
      readonly path: string
      readonly mode: number
      readonly major: number
      readonly minor: number
    }

/**
 * How to write an archive.
 *
 * - `compression`: `lz4` unpacks fastest, `zstd` is smaller, `none` is for
 *   firmware or storage that compresses.
 * - `level`: lz4 1 to 12 (default 9); zstd 1 to 19 (default 9; 19 takes minutes; higher ones
 *   make the kernel set aside up to 128 MB to unpack); ignored by `none`.
 */
export interface WriteOptions {
  readonly output: string
  readonly compression: Compression
  readonly level?: number
}

/**
 * What was written. Sizes in bytes; `sha256` in hexadecimal, of the file as
 * written; `parts` is what each entry takes before compression, with header
 * and padding, in the order of the archive.
 */
export interface Written {
  readonly bytes: number
  readonly uncompressedBytes: number
  readonly sha256: string
  readonly parts: ReadonlyArray<{ readonly path: string; readonly bytes: number }>
}

/** `init/initramfs.c` skips names of more than PATH_MAX bytes, NUL included. */
const MAX_NAME = 4095
/** The size field has 8 hexadecimal digits. */
const MAX_FILE = 2 ** 32 - 1

const fail = (reason: InitramfsError["reason"], path: string, detail: string): never => {
  throw new InitramfsError({ reason, path, detail })
}

interface Planned {
  readonly entry: Entry
  readonly size: number
}

/** All that can be wrong is found here, before a byte is written. */
const plan = async (entries: Iterable<Entry>): Promise<Array<Planned>> => {
  const tree = arrange<Entry>(entries, (path) => ({ _tag: "Directory", path, mode: 0o755 }), fail)
  const planned: Array<Planned> = []
  for (const entry of tree) {
    const nameBytes = Buffer.byteLength(entry.path)
    if (nameBytes > MAX_NAME) {
      fail("PathTooLong", entry.path, `the path has ${nameBytes} bytes, the kernel takes ${MAX_NAME}`)
    }
    if (entry.path === TRAILER) fail("InvalidPath", entry.path, "this name marks the end of an archive")
    const mode = entry.mode ?? 0o777
    if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) {
      fail("InvalidMode", entry.path, `mode 0o${mode.toString(8)} is not within 0 and 0o7777`)
    }
    planned.push({ entry, size: await sizeOf(entry) })
  }
  return planned
}

const fits = (n: number, bits: number): boolean => Number.isInteger(n) && n >= 0 && n < 2 ** bits

const sizeOf = async (entry: Entry): Promise<number> => {
  switch (entry._tag) {
    case "Directory":
      return 0
    case "CharDevice": {
      if (!fits(entry.major, 12) || !fits(entry.minor, 20)) {
        fail(
          "InvalidDevice",
          entry.path,
          `device ${entry.major}:${entry.minor} is out of range (12 and 20 bits)`,
        )
      }
      return 0
    }
    case "Symlink": {
      const bytes = Buffer.byteLength(entry.target)
      if (bytes === 0 || bytes > MAX_NAME || entry.target.includes("\0")) {
        fail(
          "InvalidPath",
          entry.path,
          `the link's target has ${bytes} bytes or a NUL (allowed: 1 to ${MAX_NAME})`,
        )
      }
      return bytes
    }
    case "File": {
      const from = "path" in entry.content ? entry.content.path : "bytes"
      const size =
        (await contentSize(entry.content)) ??
        fail("NotARegularFile", entry.path, `its source ${from} is not a regular file`)
      if (size > MAX_FILE) {
        fail(
          "FileTooLarge",
          entry.path,
          `its source ${from} has ${size} bytes; newc ends at ${MAX_FILE} (4 GiB)`,
        )
      }
      return size
    }
  }
}

const headerOf = ({ entry, size }: Planned, ino: number): Buffer =>
  encodeHeader(
    {
      ino,
      mode: types[entry._tag] | (entry.mode ?? 0o777),
      uid: 0,
      gid: 0,
      nlink: entry._tag === "Directory" ? 2 : 1,
      mtime: 0,
      filesize: size,
      rdevmajor: entry._tag === "CharDevice" ? entry.major : 0,
      rdevminor: entry._tag === "CharDevice" ? entry.minor : 0,
    },
    entry.path,
  )

const trailer = (): Buffer =>
  encodeHeader(
    { ino: 0, mode: 0, uid: 0, gid: 0, nlink: 1, mtime: 0, filesize: 0, rdevmajor: 0, rdevminor: 0 },
    TRAILER,
  )

async function* archive(planned: ReadonlyArray<Planned>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for (const [i, item] of planned.entries()) {
    yield headerOf(item, i + 1)
    if (item.entry._tag === "Symlink") yield Buffer.from(item.entry.target)
    if (item.entry._tag === "File") yield* contentChunks(item.entry.content, item.size, signal)
    yield new Uint8Array(align4(item.size) - item.size)
  }
  yield trailer()
}

/**
 * Writes an archive. Memory does not grow with the size of the files.
 *
 * Missing parent directories are made with mode 0755. Fails with
 * {@link InitramfsError} (which names the path) for a path that is listed
 * twice, lies below something that is not a directory, or exceeds the format;
 * with `ImageFileError` for a source that cannot be read; with `MissingTool`
 * when `lz4` is not installed.
 *
 * @example
 * ```ts
 * import * as Initramfs from "@kios/distro/image/Initramfs"
 *
 * const program = Initramfs.write(
 *   [
 *     { _tag: "File", path: "init", mode: 0o755, content: { path: "dist/init" } },
 *     { _tag: "CharDevice", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
 *   ],
 *   { output: "initramfs.lz4", compression: "lz4" },
 * )
 * ```
 */
export const write = (entries: Iterable<Entry>, options: WriteOptions): Effect.Effect<Written, ImageError> =>
  Effect.gen(function* () {
    const tools = yield* HostTools
    const planned = yield* attempt("read the entries of", options.output, () => plan(entries))
    const level = yield* levelOf(options)
    return yield* withOutput(options.output, async (out, signal) => {
      const source = archive(planned, signal)
      const uncompressedBytes = await compress(source, options.compression, level, out, tools, signal)
      const sha256 = await out.sha256(signal)
      const parts = planned.map((item) => ({
        path: item.entry.path,
        bytes: align4(HEADER_BYTES + Buffer.byteLength(item.entry.path) + 1) + align4(item.size),
      }))
      return { bytes: out.position, uncompressedBytes, sha256, parts }
    })
  })

const levelOf = ({ compression, level, output }: WriteOptions): Effect.Effect<number, InitramfsError> => {
  if (compression === "none") return Effect.succeed(0)
  const { max, usual } = { lz4: { max: 12, usual: 9 }, zstd: { max: 19, usual: 9 } }[compression]
  const chosen = level ?? usual
  if (Number.isInteger(chosen) && chosen >= 1 && chosen <= max) return Effect.succeed(chosen)
  const detail = `level ${chosen} is not a level of ${compression} (1 to ${max})`
  return Effect.fail(new InitramfsError({ reason: "InvalidLevel", path: output, detail }))
}

/**
 * An entry as it was found in an archive. `target` of a symbolic link,
 * `major` and `minor` of a device; `sha256` is of a file's content, `content`
 * is there when it was asked for.
 */
export interface ReadEntry {
  readonly type: "Directory" | "File" | "Symlink" | "CharDevice" | "Other"
  readonly path: string
  readonly mode: number
  readonly size: number
  readonly header: NewcHeader
  readonly target?: string
  readonly sha256?: string
  readonly content?: Buffer
}

/**
 * What {@link read} takes: a file, or a part of one (the `.initrd` section of
 * a UKI), or bytes. `contents` keeps files of up to this many bytes.
 */
export type ReadSource = ({ readonly path: string } & Range) | { readonly bytes: Uint8Array }

/**
 * Reads the archives of a file, one after the other as the kernel does: each
 * plain, or compressed by zstd or lz4 (legacy frame).
 * It shares no code with the writer but the header's layout.
 *
 * Fails with {@link InitramfsError} `Malformed` for anything but a whole,
 * well-formed archive; the detail gives the byte.
 *
 * @example
 * ```ts
 * import * as Initramfs from "@kios/distro/image/Initramfs"
 * import { Effect } from "effect"
 *
 * const paths = Effect.map(Initramfs.read({ path: "initramfs.img" }), (entries) =>
 *   entries.map((entry) => entry.path),
 * )
 * ```
 */
export const read = (
  source: ReadSource,
  options: { readonly contents?: number } = {},
): Effect.Effect<ReadonlyArray<ReadEntry>, ImageError> =>
  Effect.flatMap(HostTools, (tools) => {
    const name = "path" in source ? source.path : "archive"
    return attempt("read", name, async (signal) => {
      const raw = "path" in source ? chunks(source.path, source, signal) : once(source.bytes)
      const reader = new ByteReader(raw)
      try {
        return await readSegments(reader, name, options.contents ?? 0, tools, signal)
      } catch (cause) {
        // Neither the file system nor our parser: the decompressor complained.
        if (isImageError(cause) && cause._tag !== "ToolFailed") throw cause
        throw new InitramfsError({
          reason: "Malformed",
          path: name,
          detail: `cannot be decompressed: ${String(cause)}`,
        })
      } finally {
        await reader.close()
      }
    })
  })

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
