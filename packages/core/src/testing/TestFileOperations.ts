/**
 * The file operations of the in-memory door.
 */
import * as Effect from "effect/Effect"
import type { FileStat, KernelShape } from "../Kernel.ts"
import type { KernelError } from "../KernelError.ts"
import type { Call, Operation } from "./TestCalls.ts"
import { contentOf } from "./TestDisks.ts"
import {
  bytesBelow,
  ControlFile,
  Directory,
  Errno,
  refuse,
  RegularFile,
  SpecialFile,
  Symlink,
} from "./TestFiles.ts"
import type { Location, MountTable } from "./TestMounts.ts"

/** What an error of the door says besides the system call and errno. */
export type About = Omit<ConstructorParameters<typeof KernelError>[0], "syscall" | "errno">

/** Records a call, fails it as a test asked for, or does `body`, whose refusals become the door's errors. */
export type Operate = <A>(
  operation: Operation,
  syscall: string,
  text: string,
  about: About,
  body: (call: Call) => A,
) => Effect.Effect<A, KernelError>

/** A string as strace(1) prints it. */
export const quote = (text: string): string =>
  JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}...` : text)
const octal = (mode: number): string => `0${mode.toString(8)}`
const show = (content: string | Uint8Array): string =>
  typeof content === "string" ? quote(content) : `<${content.length} bytes>`

/** What is refused here is refused by open(2). */
export const opening = <A>(body: () => A): A => {
  try {
    return body()
  } catch (cause) {
    if (cause instanceof Errno) return refuse(cause.code, cause.syscall ?? "open")
    throw cause
  }
}

type FileOperation =
  | "readFile"
  | "readText"
  | "readAt"
  | "writeFile"
  | "writeControl"
  | "makeDirectory"
  | "readDirectory"
  | "stat"
  | "makeFifo"
  | "symlink"
  | "readLink"
  | "rename"
  | "unlink"

/** Makes the operations. */
export const make = (operate: Operate, table: MountTable): Pick<KernelShape, FileOperation> => {
  const openFile = (path: string): Location => opening(() => table.find(path))

  const bytesAt = ({ inode }: Location): Uint8Array => {
    if (inode instanceof RegularFile) return inode.read()
    if (inode instanceof SpecialFile && inode.device !== undefined)
      return contentOf(inode.device.disk, inode.device.partition)
    return inode instanceof Directory ? refuse("EISDIR", "read") : new Uint8Array(0)
  }
  const read = (operation: Operation, path: string, text = `read(${quote(path)})`) =>
    operate(operation, "read", text, { path }, () => bytesAt(openFile(path)))

  /** Writes as much as the filesystem has room for, and fails if that is not all. */
  const fill = (file: RegularFile, location: Location, content: string | Uint8Array): void => {
    const { limit, root } = location.mount.filesystem
    const bytes = typeof content === "string" ? Buffer.from(content) : content
    const room = limit === undefined ? bytes.length : Math.max(0, limit - bytesBelow(root))
    file.write(bytes.subarray(0, room))
    if (room < bytes.length) refuse("ENOSPC")
  }

  const makeDirectory: KernelShape["makeDirectory"] = (path, mode = 0o755) =>
    operate("makeDirectory", "mkdir", `mkdir(${quote(path)}, ${octal(mode)})`, { path }, () => {
      const parts = path.split("/").filter((part) => part !== "")
      let at = path.startsWith("/") ? "/" : "."
      for (const part of parts) {
        at = at === "/" ? `/${part}` : `${at}/${part}`
        const { found, name, parent } = table.walk(at, true)
        if (found?.inode instanceof Directory) continue
        if (found !== undefined) return refuse(at === path ? "EEXIST" : "ENOTDIR")
        table.assertWritable(parent)
        ;(parent.inode as Directory).makeDirectory(name, mode)
      }
    })

  const rename: KernelShape["rename"] = (from, to) =>
    operate("rename", "rename", `rename(${quote(from)}, ${quote(to)})`, { path: from }, () => {
      const source = table.walk(from, false)
      const target = table.walk(to, false)
      const moved = source.found?.inode ?? refuse("ENOENT")
      if (source.parent.mount !== target.parent.mount) return refuse("EXDEV")
      table.assertWritable(source.parent)
      if (source.found?.mount !== source.parent.mount) return refuse("EBUSY")
      const there = target.found?.inode
      if (there !== undefined && target.found?.mount !== target.parent.mount) return refuse("EBUSY")
      if (there === moved) return
      for (let above = target.parent.inode.parent ?? target.parent.inode; ; above = above.parent) {
        if (above === moved || target.parent.inode === moved) return refuse("EINVAL")
        if (above.parent === undefined) break
      }
      if (there instanceof Directory && !(moved instanceof Directory)) return refuse("EISDIR")
      if (there !== undefined && !(there instanceof Directory) && moved instanceof Directory)
        return refuse("ENOTDIR")
      if (there instanceof Directory && there.names().length > 0) return refuse("ENOTEMPTY")
      ;(source.parent.inode as Directory).remove(source.name)
      ;(target.parent.inode as Directory).create(target.name, moved)
    })

  return {
    readFile: (path) => Effect.map(read("readFile", path), (bytes) => Uint8Array.from(bytes)),
    readText: (path) => Effect.map(read("readText", path), (bytes) => Buffer.from(bytes).toString()),
    readAt: (path, position, length) =>
      Effect.map(read("readAt", path, `pread(${quote(path)}, ${length}, ${position})`), (bytes) =>
        Uint8Array.from(bytes.subarray(position, position + length)),
      ),
    writeFile: (path, content, mode = 0o644) =>
      operate(
        "writeFile",
        "write",
        `write(${quote(path)}, ${show(content)}, ${octal(mode)})`,
        { path },
        () => {
          const { file, location } = opening(() => {
            const { found, name, parent } = table.walk(path, true)
            if (found === undefined) {
              table.assertWritable(parent)
              return {
                file: (parent.inode as Directory).create(name, new RegularFile("", mode)),
                location: parent,
              }
            }
            if (found.inode instanceof Directory) return refuse("EISDIR")
            if (found.inode instanceof RegularFile) table.assertWritable(found)
            return { file: found.inode, location: found }
          })
          if (!(file instanceof RegularFile)) return
          // O_TRUNC has emptied it before the write can fail.
          if (!(file instanceof ControlFile)) file.write("")
          fill(file, location, content)
        },
      ),
    writeControl: (path, value) =>
      operate("writeControl", "write", `write(${quote(path)}, ${quote(value)})`, { path }, () => {
        const location = openFile(path)
        const { inode } = location
        if (inode instanceof Directory) return refuse("EISDIR", "open")
        if (inode instanceof RegularFile) {
          opening(() => table.assertWritable(location))
          inode.overwrite(value)
        }
      }),
    makeDirectory,
    readDirectory: (path) =>
      operate("readDirectory", "scandir", `readdir(${quote(path)})`, { path }, () => {
        const { inode } = table.find(path)
        return inode instanceof Directory ? [...inode.names()].sort() : refuse("ENOTDIR")
      }),
    stat: (path) =>
      operate("stat", "lstat", `lstat(${quote(path)})`, { path }, (): FileStat | undefined => {
        try {
          const { inode } = table.find(path, false)
          return { kind: inode.kind, size: inode.size, mode: inode.mode }
        } catch (cause) {
          if (cause instanceof Errno && (cause.code === "ENOENT" || cause.code === "ENOTDIR"))
            return undefined
          throw cause
        }
      }),
    makeFifo: (path, mode = 0o600) =>
      operate("makeFifo", "mkfifo", `mkfifo(${quote(path)}, 0${mode.toString(8)})`, { path }, () => {
        const { found, name, parent } = table.walk(path, false)
        if (found !== undefined) return refuse("EEXIST")
        table.assertWritable(parent)
        ;(parent.inode as Directory).create(name, new SpecialFile("fifo", undefined, mode))
      }),
    symlink: (target, path) =>
      operate("symlink", "symlink", `symlink(${quote(target)}, ${quote(path)})`, { path }, () => {
        const { found, name, parent } = table.walk(path, false)
        if (found !== undefined) return refuse("EEXIST")
        table.assertWritable(parent)
        ;(parent.inode as Directory).create(name, new Symlink(target))
      }),
    readLink: (path) =>
      operate("readLink", "readlink", `readlink(${quote(path)})`, { path }, () => {
        const { inode } = table.find(path, false)
        return inode instanceof Symlink ? inode.target : refuse("EINVAL")
      }),
    rename,
    unlink: (path) =>
      operate("unlink", "unlink", `unlink(${quote(path)})`, { path }, () => {
        const { found, name, parent } = table.walk(path, false)
        if (found === undefined) return refuse("ENOENT")
        if (found.inode instanceof Directory) return refuse("EISDIR")
        table.assertWritable(parent)
        if (found.mount !== parent.mount) return refuse("EBUSY")
        ;(parent.inode as Directory).remove(name)
      }),
  }
}
