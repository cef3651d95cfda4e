import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { Readable, Transform } from "node:stream"
import { pipeline } from "node:stream/promises"
import { DiskFull, FileFailure } from "./ComponentError.ts"

/** A regular file of a resolved component. `path` is relative, with `/`; `mode` is 0o644 or 0o755. */
export interface ComponentFile {
  readonly path: string
  readonly sha256: string
  readonly size: number
  readonly mode: number
}

/** The errno name of a Node.js error, or its text when it has none. */
export const errnoOf = (cause: unknown): string => {
  const code = (cause as { readonly code?: unknown } | undefined)?.code
  return typeof code === "string" ? code : String((cause as Error | undefined)?.message ?? cause)
}

/** The closest directory above `file` that exists. */
export const existingParent = (file: string): string => {
  let at = path.resolve(file)
  while (!fs.existsSync(at) && path.dirname(at) !== at) at = path.dirname(at)
  return at
}

/** Bytes that can still be written below `directory` (statfs f_bavail), or undefined when that can not be told. */
export const freeBytes = (directory: string): Effect.Effect<number | undefined> =>
  Effect.promise(() =>
    fsp.statfs(existingParent(directory)).then(
      (stat) => Number(stat.bavail) * Number(stat.bsize),
      () => undefined,
    ),
  )

/** `DiskFull` for a path, with what is free there now. */
export const diskFull = (doing: string, file: string): Effect.Effect<never, DiskFull> =>
  Effect.flatMap(freeBytes(file), (free) =>
    Effect.fail(new DiskFull({ doing, directory: file, freeBytes: free })),
  )

/** Run file operations of node, with ENOSPC and EDQUOT as {@link DiskFull} and the rest as {@link FileFailure}. */
export const io = <A>(
  doing: string,
  file: string,
  run: (signal: AbortSignal) => Promise<A>,
): Effect.Effect<A, DiskFull | FileFailure> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) => new FileFailure({ doing, path: file, errno: errnoOf(cause) }),
  }).pipe(
    Effect.catchIf(
      (error) => error.errno === "ENOSPC" || error.errno === "EDQUOT",
      () => diskFull(doing, file),
    ),
  )

/** The sha256 of a file in lower-case hex, read as a stream. */
export const sha256File = (file: string): Effect.Effect<string, DiskFull | FileFailure> =>
  io("reading", file, async (signal) => {
    const hash = createHash("sha256")
    await pipeline(fs.createReadStream(file), hash, { signal })
    return hash.digest("hex")
  })

/** Write a stream to a file and tell its sha256 and size. The file is synced. */
export const writeStream = (
  doing: string,
  body: AsyncIterable<Uint8Array>,
  file: string,
  mode = 0o644,
): Effect.Effect<{ readonly sha256: string; readonly size: number }, DiskFull | FileFailure> =>
  io(doing, file, async (signal) => {
    const hash = createHash("sha256")
    let size = 0
    const count = new Transform({
      transform(chunk: Buffer, _encoding, next) {
        hash.update(chunk)
        size += chunk.length
        next(null, chunk)
      },
    })
    await pipeline(Readable.from(body), count, fs.createWriteStream(file, { mode, flush: true }), { signal })
    return { sha256: hash.digest("hex"), size }
  })

/** Write a small file so that readers see the old or the new content and never a part. */
export const writeAtomically = (file: string, text: string): Effect.Effect<void, DiskFull | FileFailure> =>
  io("writing", file, async () => {
    const temporary = `${file}.${process.pid}.tmp`
    try {
      await fsp.writeFile(temporary, text, { flush: true })
      await fsp.rename(temporary, file)
    } catch (cause) {
      await fsp.rm(temporary, { force: true })
      throw cause
    }
  })

/** All regular files below a directory, sorted by path, hashed, with modes made 0o755 or 0o644 on disk. */
export const listTree = (root: string): Effect.Effect<ReadonlyArray<ComponentFile>, DiskFull | FileFailure> =>
  Effect.gen(function* () {
    const names = yield* io("reading", root, async () =>
      (await fsp.readdir(root, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
        .sort(),
    )
    return yield* Effect.forEach(
      names,
      (name) =>
        Effect.gen(function* () {
          const file = path.join(root, name)
          const sha256 = yield* sha256File(file)
          const stat = yield* io("reading", file, async () => {
            const found = await fsp.stat(file)
            // Two modes only: what a package had beyond "executable or not" must not decide what is in an image.
            const mode = (found.mode & 0o111) === 0 ? 0o644 : 0o755
            await fsp.chmod(file, mode)
            return { size: found.size, mode }
          })
          return { path: name, sha256, ...stat }
        }),
      { concurrency: 4 },
    )
  })
