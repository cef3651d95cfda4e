/**
 * The file operations of the live kernel, by `node:fs`.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { FileKind, KernelShape } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"

/** Turns what `node:fs` throws into the door's error. */
export const toKernelError = (syscall: string, path: string, cause: unknown): KernelError => {
  const error = cause as NodeJS.ErrnoException
  return new KernelError({ syscall: error.syscall ?? syscall, errno: error.code ?? "EIO", path })
}

/** Runs a synchronous file operation; `syscall` is used where Node does not say which call failed. */
export const attempt = <A>(syscall: string, path: string, run: () => A): Effect.Effect<A, KernelError> =>
  Effect.try({ try: run, catch: (cause) => toKernelError(syscall, path, cause) })

const kindOf = (stat: fs.Stats): FileKind =>
  stat.isDirectory()
    ? "directory"
    : stat.isSymbolicLink()
      ? "symlink"
      : stat.isBlockDevice()
        ? "block"
        : stat.isCharacterDevice()
          ? "character"
          : stat.isFIFO()
            ? "fifo"
            : stat.isSocket()
              ? "socket"
              : "file"

// Not Node's own `recursive`: where a filesystem answers ENOENT for a name that it does not make (/proc),
// that never returns, and on a read-only one it says ENOENT instead of EROFS.
const makeDirectory = (path: string, mode: number): void => {
  try {
    fs.mkdirSync(path, { mode })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === "EEXIST" && fs.statSync(path).isDirectory()) return
    const parent = path.slice(0, Math.max(0, path.replace(/\/+$/u, "").lastIndexOf("/")))
    if (code !== "ENOENT" || parent === "" || fs.existsSync(parent)) throw cause
    makeDirectory(parent, mode)
    fs.mkdirSync(path, { mode })
  }
}

const lstat = (path: string): fs.Stats | undefined => {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false })
  } catch (cause) {
    // Below a file there is nothing either.
    if ((cause as NodeJS.ErrnoException).code === "ENOTDIR") return undefined
    throw cause
  }
}

export const operations = {
  readFile: (path) => attempt("read", path, () => fs.readFileSync(path)),
  readText: (path) => attempt("read", path, () => fs.readFileSync(path, "utf8")),
  // Off the event loop: what is read so is a disk, and a disk may take its time.
  readAt: (path, position, length) =>
    Effect.tryPromise({
      try: async () => {
        const file = await fs.promises.open(path, "r")
        try {
          const bytes = Buffer.alloc(length)
          let read = 0
          while (read < length) {
            const { bytesRead } = await file.read(bytes, read, length - read, position + read)
            if (bytesRead === 0) break
            read += bytesRead
          }
          return bytes.subarray(0, read)
        } finally {
          await file.close()
        }
      },
      catch: (cause) => toKernelError("read", path, cause),
    }),
  writeAt: (path, position, content) =>
    Effect.tryPromise({
      try: async () => {
        const file = await fs.promises.open(path, fs.constants.O_WRONLY)
        try {
          let written = 0
          while (written < content.length) {
            const { bytesWritten } = await file.write(
              content,
              written,
              content.length - written,
              position + written,
            )
            written += bytesWritten
          }
          await file.datasync()
        } finally {
          await file.close()
        }
      },
      catch: (cause) => toKernelError("write", path, cause),
    }),
  writeFile: (path, content, mode = 0o644) =>
    attempt("write", path, () => fs.writeFileSync(path, content, { mode })),
  writeControl: (path, value) =>
    attempt("write", path, () => {
      const fd = fs.openSync(path, fs.constants.O_WRONLY)
      try {
        fs.writeSync(fd, value)
      } finally {
        fs.closeSync(fd)
      }
    }),
  makeDirectory: (path, mode = 0o755) => attempt("mkdir", path, () => makeDirectory(path, mode)),
  readDirectory: (path) => attempt("readdir", path, () => fs.readdirSync(path).sort()),
  stat: (path) =>
    attempt("lstat", path, () => {
      const stat = lstat(path)
      return stat === undefined
        ? undefined
        : { kind: kindOf(stat), size: stat.size, mode: stat.mode & 0o7777 }
    }),
  symlink: (target, path) => attempt("symlink", path, () => fs.symlinkSync(target, path)),
  readLink: (path) => attempt("readlink", path, () => fs.readlinkSync(path)),
  rename: (from, to) => attempt("rename", from, () => fs.renameSync(from, to)),
  unlink: (path) => attempt("unlink", path, () => fs.unlinkSync(path)),
} satisfies Partial<KernelShape>
