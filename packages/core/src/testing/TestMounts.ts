/**
 * The mount table of an in-memory machine and the walk of paths through it:
 * mount(2), umount2(2), path_resolution(7), and shared subtrees as
 * Documentation/filesystems/sharedsubtree.rst has them.
 */
import type { MountFlag } from "../Kernel.ts"
import { type BlockDevice, Directory, type Inode, refuse, Symlink } from "./TestFiles.ts"

/** A mounted filesystem's superblock. */
export interface Filesystem {
  readonly type: string
  readonly root: Directory
  readonly options: string
  readOnly: boolean
  /** The disk or partition that it is on. */
  readonly device?: BlockDevice
  /** Bytes that its files may hold together. */
  readonly limit?: number
}

export type Propagation = "private" | "shared" | "slave" | "unbindable"

/** A mount: a filesystem, or a part of one, at a place in another. */
export interface Mount {
  readonly id: number
  readonly filesystem: Filesystem
  readonly source: string
  /** What of the filesystem is seen: its root, or what was bound. */
  readonly root: Inode
  parent: Mount | undefined
  /** The inode of the parent that it covers. */
  at: Inode | undefined
  /** `MS_RDONLY`, `MS_NOSUID` ...: the mount's own, besides the superblock's. */
  flags: ReadonlySet<MountFlag>
  propagation: Propagation
  /** Peer group of a shared mount, or the group that a slave receives from. */
  group: number
  expiring: boolean
}

/** Where a path leads. */
export interface Location {
  readonly mount: Mount
  readonly inode: Inode
}

/** The result of a walk: the last component may be missing. */
export interface Walk {
  readonly parent: Location
  readonly name: string
  readonly found: Location | undefined
}

const MAX_LINKS = 40

/** The flags that a mount keeps; the others tell mount(2) what to do. */
export const attributes: ReadonlyArray<MountFlag> = [
  "MS_RDONLY",
  "MS_NOSUID",
  "MS_NODEV",
  "MS_NOEXEC",
  "MS_NOATIME",
  "MS_RELATIME",
]

const atime = new Set<MountFlag>(["MS_NOATIME", "MS_RELATIME"])

export class MountTable {
  readonly mounts: Array<Mount> = []
  root: Location
  cwd: Location
  #ids = 20
  #groups = 0

  constructor(rootfs: Filesystem) {
    // The kernel mounts it for itself, without what mount(2) adds: relatime.
    const mount = this.#make(rootfs, rootfs.root, "rootfs", new Set())
    this.mounts.push(mount)
    this.root = { mount, inode: rootfs.root }
    this.cwd = this.root
  }

  #make(filesystem: Filesystem, root: Inode, source: string, flags: ReadonlySet<MountFlag>): Mount {
    return {
      id: ++this.#ids,
      filesystem,
      source,
      root,
      parent: undefined,
      at: undefined,
      flags,
      propagation: "private",
      group: 0,
      expiring: false,
    }
  }

  /** What covers a place, if anything does. */
  #top(location: Location): Location {
    for (;;) {
      const over = this.mounts.find((mount) => mount.parent === location.mount && mount.at === location.inode)
      if (over === undefined) return location
      location = { mount: over, inode: over.root }
    }
  }

  #up({ inode, mount }: Location): Location {
    for (;;) {
      if (mount === this.root.mount && inode === this.root.inode) return { mount, inode }
      if (inode !== mount.root) return this.#top({ mount, inode: inode.parent ?? inode })
      if (mount.parent === undefined || mount.at === undefined) return { mount, inode }
      inode = mount.at
      mount = mount.parent
    }
  }

  /** Walks a path; a missing directory on the way fails with ENOENT, a file on the way with ENOTDIR. */
  walk(path: string, follow: boolean): Walk {
    if (path === "") return refuse("ENOENT")
    if (Buffer.byteLength(path) > 4095) return refuse("ENAMETOOLONG")
    const todo = path.split("/").filter((part) => part !== "")
    const wantsDirectory = path.endsWith("/")
    let at = path.startsWith("/") ? this.root : this.cwd
    let links = 0
    for (let name = todo.shift(); name !== undefined; name = todo.shift()) {
      const directory = at.inode
      if (!(directory instanceof Directory)) return refuse("ENOTDIR")
      if (Buffer.byteLength(name) > 255) return refuse("ENAMETOOLONG")
      if (name === ".") continue
      if (name === "..") {
        at = this.#up(at)
        continue
      }
      const inode = directory.lookup(name)
      const last = todo.length === 0
      if (inode === undefined) return last ? { parent: at, name, found: undefined } : refuse("ENOENT")
      if (inode instanceof Symlink && (!last || follow || wantsDirectory)) {
        if (++links > MAX_LINKS) return refuse("ELOOP")
        todo.unshift(...inode.target.split("/").filter((part) => part !== ""))
        if (inode.target.startsWith("/")) at = this.root
        continue
      }
      const found = this.#top({ mount: at.mount, inode })
      if (last && !wantsDirectory) return { parent: at, name, found }
      if (!(found.inode instanceof Directory)) return refuse("ENOTDIR")
      at = found
    }
    return { parent: at, name: ".", found: at }
  }

  /** Where a path leads; fails with ENOENT when there is nothing. */
  find(path: string, follow = true): Location {
    return this.walk(path, follow).found ?? refuse("ENOENT")
  }

  /** Fails with EROFS where nothing can be written. */
  assertWritable({ mount }: Location): void {
    if (mount.flags.has("MS_RDONLY") || mount.filesystem.readOnly) refuse("EROFS")
  }

  /** The path of a place as this machine's init sees it. */
  pathOf({ inode, mount }: Location): string {
    const names: Array<string> = []
    for (;;) {
      if (mount === this.root.mount && inode === this.root.inode) break
      if (inode === mount.root) {
        if (mount.parent === undefined || mount.at === undefined) break
        inode = mount.at
        mount = mount.parent
        continue
      }
      names.unshift(inode.name)
      if (inode.parent === undefined) break
      inode = inode.parent
    }
    return `/${names.join("/")}`
  }

  /** Whether a mount can be seen from the root that init has now. */
  isVisible(mount: Mount): boolean {
    for (let next: Mount | undefined = mount; next !== undefined; next = next.parent)
      if (next === this.root.mount) return true
    return false
  }

  #isBelow(inode: Inode, root: Inode): boolean {
    for (let next: Inode | undefined = inode; next !== undefined; next = next.parent)
      if (next === root) return true
    return false
  }

  children(mount: Mount): ReadonlyArray<Mount> {
    return this.mounts.filter((other) => other.parent === mount)
  }

  /** The places that see what is mounted on a shared mount: its peers and their slaves. */
  #receivers(mount: Mount, at: Inode): ReadonlyArray<Mount> {
    if (mount.propagation !== "shared") return []
    return this.mounts.filter(
      (other) =>
        other !== mount &&
        other.group === mount.group &&
        (other.propagation === "shared" || other.propagation === "slave") &&
        this.#isBelow(at, other.root),
    )
  }

  /** Puts a tree of mounts at a place and at the places that see it. */
  #attach(tree: Mount, place: Location): void {
    const top = this.#top(place)
    tree.parent = top.mount
    tree.at = top.inode
    if (!this.mounts.includes(tree)) this.mounts.push(tree)
    if (top.mount.propagation === "shared") for (const mount of this.#tree(tree)) this.#share(mount)
    for (const receiver of this.#receivers(top.mount, top.inode)) {
      const copy = this.#copy(tree, true)
      if (receiver.propagation === "slave") copy.propagation = "slave"
      copy.parent = receiver
      copy.at = top.inode
      this.mounts.push(copy)
    }
  }

  #tree(mount: Mount): ReadonlyArray<Mount> {
    return [mount, ...this.children(mount).flatMap((child) => this.#tree(child))]
  }

  #share(mount: Mount): void {
    if (mount.propagation === "shared") return
    mount.propagation = "shared"
    mount.group = ++this.#groups
  }

  /** A mount of the same; with everything mounted on it when `recursive`. */
  #copy(mount: Mount, recursive: boolean, root: Inode = mount.root): Mount {
    const copy = this.#make(mount.filesystem, root, mount.source, mount.flags)
    copy.propagation = mount.propagation
    copy.group = mount.group
    if (!recursive) return copy
    for (const child of this.children(mount)) {
      if (child.at === undefined || child.propagation === "unbindable" || !this.#isBelow(child.at, root))
        continue
      const inner = this.#copy(child, true)
      inner.parent = copy
      inner.at = child.at
      this.mounts.push(inner)
    }
    return copy
  }

  /** A new mount of a filesystem. */
  add(filesystem: Filesystem, source: string, place: Location, flags: ReadonlyArray<MountFlag>): void {
    if (!(place.inode instanceof Directory)) refuse("ENOTDIR")
    if (place.mount.filesystem === filesystem && place.inode === place.mount.root) refuse("EBUSY")
    const kept = attributes.filter((flag) => flags.includes(flag))
    // Linux gives every mount relatime that does not ask for something else.
    if (!kept.some((flag) => atime.has(flag))) kept.push("MS_RELATIME")
    this.#attach(this.#make(filesystem, filesystem.root, source, new Set(kept)), place)
  }

  /** MS_BIND: the flags are those of the source's mount. */
  bind(source: Location, place: Location, recursive: boolean): void {
    if (source.mount.propagation === "unbindable") refuse("EINVAL")
    if (source.inode instanceof Directory !== place.inode instanceof Directory) refuse("ENOTDIR")
    this.#attach(this.#copy(source.mount, recursive, source.inode), place)
  }

  #mountAt(place: Location): Mount {
    return place.inode === place.mount.root ? place.mount : refuse("EINVAL")
  }

  /** MS_REMOUNT, with or without MS_BIND: replaces the flags; times are kept when no flag is about them. */
  remount(place: Location, flags: ReadonlyArray<MountFlag>): void {
    const mount = this.#mountAt(place)
    const next = new Set(attributes.filter((flag) => flags.includes(flag)))
    if (![...next].some((flag) => atime.has(flag)))
      for (const flag of mount.flags) if (atime.has(flag)) next.add(flag)
    mount.flags = next
    if (!flags.includes("MS_BIND")) mount.filesystem.readOnly = flags.includes("MS_RDONLY")
  }

  /** MS_MOVE. */
  move(source: Location, place: Location): void {
    const mount = this.#mountAt(source)
    if (mount.parent === undefined || mount.parent.propagation === "shared") refuse("EINVAL")
    if (source.inode instanceof Directory !== place.inode instanceof Directory) refuse("EINVAL")
    if (
      place.mount.propagation === "shared" &&
      this.#tree(mount).some((one) => one.propagation === "unbindable")
    )
      refuse("EINVAL")
    if (this.#tree(mount).includes(place.mount)) refuse("ELOOP")
    this.#attach(mount, place)
  }

  /** MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE. */
  propagate(place: Location, propagation: Propagation, recursive: boolean): void {
    const mount = this.#mountAt(place)
    for (const one of recursive ? this.#tree(mount) : [mount]) {
      if (propagation === "shared") this.#share(one)
      // A mount that was not shared has nobody to be the slave of.
      else if (propagation === "slave") {
        const peers = this.mounts.filter((other) => other !== one && other.group === one.group)
        if (one.propagation === "shared") one.propagation = peers.length > 0 ? "slave" : "private"
      } else {
        one.propagation = propagation
        one.group = 0
      }
    }
  }

  /** umount2(2). */
  umount(
    place: Location,
    flags: { readonly detach: boolean; readonly expire: boolean; readonly force: boolean },
  ): void {
    if (place.inode !== place.mount.root) refuse("EINVAL")
    const { mount } = place
    if (mount === this.root.mount && !flags.detach) {
      // umount of one's own root makes it read-only (fs/namespace.c, do_umount_root).
      mount.filesystem.readOnly = true
      return
    }
    if (mount.parent === undefined) refuse("EINVAL")
    if (flags.expire && (flags.force || flags.detach)) refuse("EINVAL")
    if (!flags.detach && (this.children(mount).length > 0 || this.cwd.mount === mount)) refuse("EBUSY")
    if (flags.expire && !mount.expiring) {
      mount.expiring = true
      refuse("EAGAIN")
    }
    const { at, parent } = mount
    if (parent !== undefined && at !== undefined)
      for (const receiver of this.#receivers(parent, at)) {
        const copy = this.mounts.find((other) => other.parent === receiver && other.at === at)
        if (copy !== undefined && (flags.detach || this.children(copy).length === 0)) this.#detach(copy)
      }
    this.#detach(mount)
  }

  #detach(mount: Mount): void {
    for (const one of this.#tree(mount)) this.mounts.splice(this.mounts.indexOf(one), 1)
  }
}
