/**
 * The files of an in-memory machine: inodes with the operations that differ
 * between filesystems, and the errno that each refusal has on Linux.
 */
import type { FileKind } from "../Kernel.ts"
import type { TestDisk } from "./TestDisks.ts"
import type { Program } from "./TestPrograms.ts"

/** A refusal, as errno(3) names it; `syscall` where it is not the operation's usual one. */
export class Errno extends Error {
  readonly code: string
  readonly syscall: string | undefined
  constructor(code: string, syscall?: string) {
    super(code)
    this.code = code
    this.syscall = syscall
  }
}

/** Fails an operation. */
export const refuse = (code: string, syscall?: string): never => {
  throw new Errno(code, syscall)
}

/** What a path leads to. An inode has one name: there are no hard links on this machine. */
export abstract class Inode {
  abstract readonly kind: FileKind
  mode: number
  name = ""
  parent: Directory | undefined
  constructor(mode: number) {
    this.mode = mode
  }
  get size(): number {
    return 0
  }
}

const bytesOf = (content: string | Uint8Array): Uint8Array =>
  typeof content === "string" ? Buffer.from(content) : content

/** A regular file. */
export class RegularFile extends Inode {
  readonly kind = "file"
  /** What runs when the file is started; without it, starting it is ENOEXEC. */
  program: Program | undefined
  protected content: Uint8Array
  constructor(content: string | Uint8Array = "", mode = 0o644) {
    super(mode)
    this.content = bytesOf(content)
  }
  override get size(): number {
    return this.content.length
  }
  read(): Uint8Array {
    return this.content
  }
  /** Replaces the content, as opening with O_TRUNC and writing does. */
  write(content: string | Uint8Array): void {
    this.content = Uint8Array.from(bytesOf(content))
    this.parent?.tell(this.name)
  }
  /** One write at the start of the file, without truncation. */
  overwrite(content: string | Uint8Array): void {
    const bytes = bytesOf(content)
    this.write(Buffer.concat([bytes, this.read().subarray(bytes.length)]))
  }
}

/** A file of /proc, /sys or a cgroup: computed when it is read, acted upon when it is written. */
export class ControlFile extends RegularFile {
  readonly #show: () => string | Uint8Array
  readonly #store: ((value: string) => void) | undefined
  constructor(show: () => string | Uint8Array, store?: (value: string) => void) {
    super("", store === undefined ? 0o444 : 0o644)
    this.#show = show
    this.#store = store
  }
  // As on Linux: such files have no size until they are read.
  override get size(): number {
    return 0
  }
  override read(): Uint8Array {
    return bytesOf(this.#show())
  }
  override write(content: string | Uint8Array): void {
    if (this.#store === undefined) return refuse("EACCES", "open")
    const value = typeof content === "string" ? content : Buffer.from(content).toString()
    if (value !== "") this.#store(value.replace(/\n$/u, ""))
  }
  override overwrite(content: string | Uint8Array): void {
    this.write(content)
  }
}

/** A symbolic link. */
export class Symlink extends Inode {
  readonly kind = "symlink"
  readonly target: string
  constructor(target: string) {
    super(0o777)
    this.target = target
  }
  override get size(): number {
    return Buffer.byteLength(this.target)
  }
}

/** A device node, FIFO or socket. */
export class SpecialFile extends Inode {
  readonly kind: "block" | "character" | "fifo" | "socket"
  /** What a block device reads from. */
  readonly device: BlockDevice | undefined
  constructor(kind: "block" | "character" | "fifo" | "socket", device?: BlockDevice, mode = 0o600) {
    super(mode)
    this.kind = kind
    this.device = device
  }
}

/** A disk, or one of its partitions. */
export interface BlockDevice {
  readonly disk: TestDisk
  /** 0 is the whole disk. */
  readonly partition: number
}

/** A directory. Filesystems that do not allow every change override the methods. */
export class Directory extends Inode {
  readonly kind = "directory"
  protected readonly entries = new Map<string, Inode>()
  /** Told the name of an entry that comes, goes or is written to. */
  readonly watchers = new Set<(name: string) => void>()
  constructor(mode = 0o755) {
    super(mode)
  }
  lookup(name: string): Inode | undefined {
    return this.entries.get(name)
  }
  names(): ReadonlyArray<string> {
    return [...this.entries.keys()]
  }
  /** Puts an inode there, in the place of one that is there already. */
  add<I extends Inode>(name: string, inode: I): I {
    inode.name = name
    inode.parent = this
    this.entries.set(name, inode)
    this.tell(name)
    return inode
  }
  remove(name: string): void {
    this.entries.delete(name)
    this.tell(name)
  }
  tell(name: string): void {
    for (const watcher of this.watchers) watcher(name)
  }
  /** What mkdir(2) does here. */
  makeDirectory(name: string, mode: number): Directory {
    return this.add(name, new Directory(mode))
  }
  /** What creating a file, link or node does here. */
  create<I extends Inode>(name: string, inode: I): I {
    return this.add(name, inode)
  }
}

/** A directory whose entries only the kernel makes (sysfs, proc). */
export class KernelDirectory extends Directory {
  readonly #mkdirErrno: string
  readonly #createErrno: string
  constructor(mkdirErrno = "EPERM", createErrno = "EACCES") {
    super(0o755)
    this.#mkdirErrno = mkdirErrno
    this.#createErrno = createErrno
  }
  override makeDirectory(_name: string, _mode: number): Directory {
    return refuse(this.#mkdirErrno)
  }
  override create<I extends Inode>(_name: string, inode: I): I {
    return refuse(inode.kind === "file" ? this.#createErrno : this.#mkdirErrno)
  }
  /** The directory at a path below, made where it is missing. */
  within(path: string): KernelDirectory {
    return path
      .split("/")
      .filter((part) => part !== "")
      .reduce<KernelDirectory>((directory, part) => {
        const found = directory.lookup(part)
        return found instanceof KernelDirectory
          ? found
          : directory.add(part, new KernelDirectory(this.#mkdirErrno, this.#createErrno))
      }, this)
  }
}

/** How a test writes a file down: its content, or what kind of node it is. */
export type FileSpec =
  | string
  | Uint8Array
  | { readonly content: string | Uint8Array; readonly mode?: number }
  | { readonly directory: true; readonly mode?: number }
  | { readonly symlink: string }
  | { readonly node: "character" | "fifo" | "socket" }

/** Files by absolute path. A path that ends in `/` is an empty directory. */
export type FileTree = Readonly<Record<string, FileSpec>>

const inodeOf = (spec: FileSpec): Inode => {
  if (typeof spec === "string" || spec instanceof Uint8Array) return new RegularFile(spec)
  if ("content" in spec) return new RegularFile(spec.content, spec.mode)
  if ("symlink" in spec) return new Symlink(spec.symlink)
  if ("node" in spec) return new SpecialFile(spec.node)
  return new Directory(spec.mode)
}

/** Puts files into a directory, with the directories on the way to them. */
export const plant = (root: Directory, tree: FileTree): void => {
  for (const [path, spec] of Object.entries(tree)) {
    const parts = path.split("/").filter((part) => part !== "")
    const last = path.endsWith("/") ? undefined : parts.pop()
    let directory = root
    for (const part of parts) {
      const found = directory.lookup(part)
      if (found !== undefined && !(found instanceof Directory)) throw new Error(`${path}: ${part} is a file`)
      directory = found ?? directory.add(part, new Directory())
    }
    if (last === undefined) continue
    const inode = inodeOf(spec)
    const found = directory.lookup(last)
    if (inode instanceof Directory && found instanceof Directory) found.mode = inode.mode
    else directory.add(last, inode)
  }
}

/** Bytes in the regular files of a tree. */
export const bytesBelow = (directory: Directory): number =>
  directory.names().reduce((total, name) => {
    const inode = directory.lookup(name)
    return total + (inode instanceof Directory ? bytesBelow(inode) : (inode?.size ?? 0))
  }, 0)
