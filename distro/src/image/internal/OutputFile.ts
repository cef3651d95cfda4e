/**
 * A file that appears under its name only when it is complete: bytes go to
 * `<name>.partial-<pid>-<n>` beside it, which is renamed by `commit` and
 * removed by `discard`. A build that dies leaves no half image that looks
 * whole.
 */
import { Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { fromUnknown, type ImageError } from "../ImageError.ts"

/** Bytes read or written at a time: what bounds our memory. */
export const CHUNK = 1 << 20

let serial = 0

/** A name for temporary files beside `output`, unique in this process. */
export const partialName = (output: string): string => `${output}.partial-${process.pid}-${serial++}`

/** Awaits a `node:fs` call and names operation and path when it fails. */
export const io = async <A>(operation: string, file: string, call: () => Promise<A>): Promise<A> => {
  try {
    return await call()
  } catch (cause) {
    throw fromUnknown(operation, file, cause)
  }
}

export class OutputFile {
  readonly path: string
  readonly partial: string
  /** Bytes written so far, including those that are still buffered. */
  position = 0
  readonly #handle: fs.FileHandle
  readonly #buffer = Buffer.allocUnsafe(CHUNK)
  #used = 0
  #flushed = 0
  #open = true
  readonly #tap: ((block: Buffer) => void) | undefined

  private constructor(file: string, partial: string, handle: fs.FileHandle, tap?: (block: Buffer) => void) {
    this.path = file
    this.partial = partial
    this.#handle = handle
    this.#tap = tap
  }

  /**
   * `tap` sees every byte in order, in blocks of CHUNK bytes (the last may be
   * shorter).
   */
  static async create(file: string, tap?: (block: Buffer) => void): Promise<OutputFile> {
    const absolute = path.resolve(file)
    const partial = partialName(absolute)
    await io("create the directory", path.dirname(absolute), () =>
      fs.mkdir(path.dirname(absolute), { recursive: true }),
    )
    const handle = await io("create", partial, () => fs.open(partial, "wx+", 0o644))
    return new OutputFile(absolute, partial, handle, tap)
  }

  async write(bytes: Uint8Array): Promise<void> {
    let offset = 0
    while (offset < bytes.length) {
      const n = Math.min(bytes.length - offset, CHUNK - this.#used)
      this.#buffer.set(bytes.subarray(offset, offset + n), this.#used)
      this.#used += n
      offset += n
      this.position += n
      if (this.#used === CHUNK) await this.flush()
    }
  }

  /** Zeros up to the next multiple of `alignment`. */
  async pad(alignment: number): Promise<void> {
    const rest = this.position % alignment
    if (rest !== 0) await this.write(new Uint8Array(alignment - rest))
  }

  async flush(): Promise<void> {
    if (this.#used === 0) return
    const block = this.#buffer.subarray(0, this.#used)
    this.#tap?.(block)
    let done = 0
    while (done < block.length) {
      const { bytesWritten } = await io("write", this.path, () =>
        this.#handle.write(block, done, block.length - done, this.#flushed + done),
      )
      done += bytesWritten
    }
    this.#flushed += block.length
    this.#used = 0
  }

  /** Overwrites bytes that were written before; `tap` does not see it. */
  async patch(bytes: Uint8Array, position: number): Promise<void> {
    await this.flush()
    await io("write", this.path, () => this.#handle.write(bytes, 0, bytes.length, position))
  }

  /** SHA-256 of what is in the file now, in hexadecimal. */
  async sha256(signal?: AbortSignal): Promise<string> {
    await this.flush()
    const hash = crypto.createHash("sha256")
    const buffer = Buffer.allocUnsafe(CHUNK)
    for (let at = 0; ;) {
      signal?.throwIfAborted()
      const { bytesRead } = await io("read", this.path, () => this.#handle.read(buffer, 0, CHUNK, at))
      if (bytesRead === 0) return hash.digest("hex")
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
  }

  async commit(): Promise<void> {
    await this.flush()
    await this.#close()
    await io("rename the finished file to", this.path, () => fs.rename(this.partial, this.path))
  }

  /** Removes the partial file; does nothing after `commit`. */
  async discard(): Promise<void> {
    if (!this.#open) return
    await this.#close().catch(() => {})
    await fs.rm(this.partial, { force: true }).catch(() => {})
  }

  async #close(): Promise<void> {
    if (!this.#open) return
    this.#open = false
    await io("close", this.path, () => this.#handle.close())
  }
}

/**
 * Runs `body` on a new output file, commits it when `body` succeeds and
 * removes it when `body` fails or is interrupted.
 */
export const withOutput = <A>(
  file: string,
  body: (out: OutputFile, signal: AbortSignal) => Promise<A>,
  tap?: (block: Buffer) => void,
): Effect.Effect<A, ImageError> =>
  Effect.acquireUseRelease(
    attempt("create", file, () => OutputFile.create(file, tap)),
    (out) =>
      attempt("write", file, async (signal) => {
        const result = await body(out, signal)
        signal.throwIfAborted()
        await out.commit()
        return result
      }),
    (out) => Effect.promise(() => out.discard()),
  )

/** `Effect.tryPromise` whose failures are {@link ImageError}s. */
export const attempt = <A>(
  operation: string,
  file: string,
  body: (signal: AbortSignal) => Promise<A>,
): Effect.Effect<A, ImageError> =>
  Effect.tryPromise({ try: body, catch: (cause) => fromUnknown(operation, file, cause) })
