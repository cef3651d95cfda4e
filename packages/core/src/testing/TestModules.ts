/**
 * Files of modules of an in-memory machine: what is in them tells which module
 * it is, also where they are compressed or copied.
 */
import { refuse } from "./TestFiles.ts"

/** What a module's file holds. */
export const contentOf = (name: string): Uint8Array => Buffer.from(`\x7fELF of module ${name}.`)

const zlib = () => process.getBuiltinModule("node:zlib")

/** Compresses as the file's name says; xz, which Node has not, is only marked. */
export const pack = (content: Uint8Array, path: string): Uint8Array =>
  path.endsWith(".zst")
    ? zlib().zstdCompressSync(content)
    : path.endsWith(".gz")
      ? zlib().gzipSync(content)
      : path.endsWith(".xz")
        ? Buffer.concat([Buffer.from("xz:"), content])
        : content

const unpack = (content: Uint8Array, path: string): Uint8Array => {
  try {
    if (path.endsWith(".zst")) return zlib().zstdDecompressSync(content)
    if (path.endsWith(".gz")) return zlib().gunzipSync(content)
  } catch {
    return refuse("ENOEXEC")
  }
  if (!path.endsWith(".xz")) return content
  return Buffer.from(content.subarray(0, 3)).toString("latin1") === "xz:"
    ? content.subarray(3)
    : refuse("EINVAL")
}

/** Which module a file is, as the kernel would find out: ENOEXEC when it is none. */
export const nameIn = (content: Uint8Array, path: string): string =>
  /^\x7fELF of module (\S+)\.$/u.exec(Buffer.from(unpack(content, path)).toString("latin1"))?.[1] ??
  refuse("ENOEXEC")
