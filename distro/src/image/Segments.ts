/**
 * An initramfs of several archives, each packed apart; the kernel unpacks them
 * one after the other. What a build shares with the one before, which is all
 * but init while one works on init, is packed once and then taken from a cache.
 *
 * Several compressed archives in one initramfs: kernel
 * Documentation/driver-api/early-userspace/buffer-format.rst.
 */
import { Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileOperation, type ImageError } from "./ImageError.ts"
import * as Initramfs from "./Initramfs.ts"
import { chunks, digest } from "./internal/InputFile.ts"
import { attempt, withOutput } from "./internal/OutputFile.ts"

/** One archive of the initramfs, and how it is packed. */
export interface Segment extends Pick<Initramfs.WriteOptions, "compression" | "level"> {
  readonly entries: ReadonlyArray<Initramfs.Entry>
  /** Whether the next build will have the same, so that it is worth being kept. */
  readonly keep: boolean
}

/** Where they go; `cache` is the directory for what is kept. */
export interface WriteOptions {
  readonly output: string
  readonly cache: string
}

// To be raised when the same entries give other bytes than before.
const FORMAT = 3
// Of each image that is built in turns there is one: the distro's, the bench's floor, the tests' own.
const KEPT = 8

/**
 * Writes the segments in their order into one initramfs; a file of a later one
 * takes the place of an earlier one's.
 *
 * A segment to be kept is found again by all that goes into it: names, modes,
 * the contents' SHA-256, compression and level. The cache has the eight that were
 * used last. Fails as `Initramfs.write` does.
 *
 * @example
 * ```ts
 * import * as Segments from "@kios/distro/image/Segments"
 *
 * const file = (name: string, from: string) =>
 *   ({ _tag: "File", path: name, mode: 0o755, content: { path: from } }) as const
 * const program = Segments.write(
 *   [
 *     { keep: true, compression: "zstd", entries: [file("bin/kubelet", "/cache/kubelet")] },
 *     { keep: false, compression: "lz4", entries: [file("init", "dist/init")] },
 *   ],
 *   { output: "initramfs.img", cache: "/cache/packed" },
 * )
 * ```
 */
export const write = (
  segments: ReadonlyArray<Segment>,
  options: WriteOptions,
): Effect.Effect<Initramfs.Written, ImageError> =>
  Effect.gen(function* () {
    const { cache, output } = options
    const temporary: Array<string> = []
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const file of temporary) fs.rmSync(file, { force: true })
      }),
    )
    const packed: Array<Initramfs.Written & { readonly file: string }> = []
    for (const [index, segment] of segments.entries()) {
      const { entries, keep, ...packing } = segment
      const pack = (file: string) =>
        Effect.map(Initramfs.write(entries, { output: file, ...packing }), (written) => ({
          ...written,
          file,
        }))
      const own = `${path.resolve(output)}.${index}`
      if (!keep) temporary.push(own)
      packed.push(yield* keep ? kept(segment, cache, pack) : pack(own))
    }
    const whole = yield* withOutput(output, async (out, signal) => {
      for (const { file } of packed) {
        for await (const chunk of chunks(file, {}, signal)) await out.write(chunk)
        // Where an archive that is not compressed has to begin.
        await out.pad(4)
      }
      return { bytes: out.position, sha256: await out.sha256(signal) }
    })
    const sum = (of: (one: Initramfs.Written) => number) => packed.reduce((total, one) => total + of(one), 0)
    return {
      ...whole,
      uncompressedBytes: sum(({ uncompressedBytes }) => uncompressedBytes),
      parts: packed.flatMap(({ parts }) => parts),
    }
  }).pipe(Effect.scoped)

/** From the cache, or packed into it. */
const kept = <E, R>(
  { compression, entries, level }: Segment,
  cache: string,
  pack: (file: string) => Effect.Effect<Initramfs.Written & { readonly file: string }, E, R>,
) =>
  Effect.gen(function* () {
    const key = yield* attempt("read the entries of", cache, (signal) =>
      keyOf(entries, `${compression} ${level ?? "usual"}`, signal),
    )
    const file = path.join(path.resolve(cache), `${key}.cpio`)
    const record = `${file}.json`
    const found = readRecord(file, record)
    if (found !== undefined) {
      const now = new Date()
      yield* fileOperation("touch", record, () => fs.utimesSync(record, now, now))
      return { ...found, file }
    }
    const written = yield* pack(file)
    // Last: an archive without its record counts as not there.
    yield* fileOperation("write", record, () => {
      fs.writeFileSync(`${record}.${process.pid}`, JSON.stringify(written))
      fs.renameSync(`${record}.${process.pid}`, record)
    })
    yield* fileOperation("tidy", cache, () => tidy(cache))
    return written
  })

const keyOf = async (
  entries: ReadonlyArray<Initramfs.Entry>,
  packing: string,
  signal: AbortSignal,
): Promise<string> => {
  const hash = crypto.createHash("sha256").update(`${FORMAT} ${packing}\n`)
  for (const entry of entries) {
    const { content, ...rest } = "content" in entry ? entry : { ...entry, content: undefined }
    const of =
      content === undefined
        ? undefined
        : "path" in content
          ? (await digest(content.path, {}, signal)).sha256
          : crypto.createHash("sha256").update(content.bytes).digest("hex")
    hash.update(`${JSON.stringify([rest, of])}\n`)
  }
  return hash.digest("hex")
}

const readRecord = (file: string, record: string): Initramfs.Written | undefined => {
  try {
    const written = JSON.parse(fs.readFileSync(record, "utf8")) as Initramfs.Written
    return fs.statSync(file).size === written.bytes ? written : undefined
  } catch {
    return undefined
  }
}

/** Leaves the segments that were used last. */
const tidy = (cache: string): void => {
  const records = fs.readdirSync(cache).flatMap((name) => {
    const at = name.endsWith(".cpio.json")
      ? fs.statSync(path.join(cache, name), { throwIfNoEntry: false })?.mtimeMs
      : undefined
    return at === undefined ? [] : [{ name, at }]
  })
  for (const { name } of records.toSorted((a, b) => b.at - a.at).slice(KEPT)) {
    const record = path.join(cache, name)
    fs.rmSync(record, { force: true })
    fs.rmSync(record.slice(0, -".json".length), { force: true })
  }
}
