/**
 * Files of modules that the running kernel cannot decompress itself.
 *
 * A kernel decompresses modules of one kind, the one that its own are of
 * (CONFIG_MODULE_COMPRESS_*, CONFIG_MODULE_DECOMPRESS): it says in
 * `/sys/module/compression` which. The others that Node knows are decompressed
 * here. The signature is at the end of the module itself, so that the kernel
 * checks it either way.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import { KernelError } from "../KernelError.ts"
import * as files from "./files.ts"

/** Larger than any module, so that a file that unpacks without end does not take all memory. Bytes. */
const LARGEST = 256 * 1024 ** 2

const kernelKnows = (kind: string): boolean => {
  try {
    return fs.readFileSync("/sys/module/compression", "utf8").trim() === kind
  } catch {
    return false
  }
}

const read = (path: string): Effect.Effect<Uint8Array, KernelError> =>
  files.attempt("read", path, () => {
    const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
    try {
      return fs.readFileSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  })

/**
 * The module in a file, where it has to be decompressed here; undefined where the kernel takes the file as it is.
 * Fails with ENOEXEC when the file is damaged.
 */
export const decompressor = (path: string): Effect.Effect<Uint8Array, KernelError> | undefined => {
  const kind = path.endsWith(".zst") ? "zstd" : path.endsWith(".gz") ? "gzip" : undefined
  if (kind === undefined || kernelKnows(kind)) return undefined
  return Effect.flatMap(read(path), (bytes) => {
    const zlib = process.getBuiltinModule("node:zlib")
    const limit = { maxOutputLength: LARGEST }
    return Effect.try({
      try: () => (kind === "zstd" ? zlib.zstdDecompressSync(bytes, limit) : zlib.gunzipSync(bytes, limit)),
      catch: () =>
        new KernelError({ syscall: "init_module", errno: "ENOEXEC", path, args: { compression: kind } }),
    })
  })
}
