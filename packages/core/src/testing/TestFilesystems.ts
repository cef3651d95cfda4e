/**
 * The filesystem types of an in-memory machine: what mount(2) makes of a type,
 * a source and options, and the errno of what it refuses.
 */
import type { MountFlag } from "../Kernel.ts"
import { CgroupDirectory } from "./TestCgroups.ts"
import type { Volume } from "./TestDisks.ts"
import { Directory, refuse, SpecialFile } from "./TestFiles.ts"
import { OverlayDirectory } from "./TestOverlay.ts"
import type { Filesystem, MountTable } from "./TestMounts.ts"
import type { Processes } from "./TestProcesses.ts"

/** What the types are made from. */
export interface FilesystemSources {
  readonly table: () => MountTable
  readonly proc: Directory
  readonly sys: Directory
  /** What every mount of devtmpfs shows. */
  readonly dev: Directory
  /** What the mount of pstore shows. */
  readonly pstore: Directory
  readonly processes: Processes
  readonly controllers: ReadonlyArray<string>
  /** Bytes of RAM, for sizes in percent. */
  readonly memory: number
}

type Options = ReadonlyMap<string, string>

/** Makes one mount's filesystem. */
type Type = (source: string, options: Options, text: string, flags: ReadonlyArray<MountFlag>) => Filesystem

/** Mount options by name. */
export const parseOptions = (text: string): Options =>
  new Map(
    text
      .split(",")
      .filter((part) => part !== "")
      .map((part) => {
        const at = part.indexOf("=")
        return at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)]
      }),
  )

const onlyKnown = (options: Options, known: ReadonlyArray<string>): void => {
  for (const key of options.keys()) if (!known.includes(key)) refuse("EINVAL")
}

const octal = (text: string): number =>
  /^[0-7]{1,4}$/u.test(text) ? Number.parseInt(text, 8) : refuse("EINVAL")

const sizeOf = (text: string, memory: number): number => {
  const match = /^(\d+)([kmg%]?)$/iu.exec(text) ?? refuse("EINVAL")
  const value = Number(match[1])
  const unit = (match[2] ?? "").toLowerCase()
  if (unit === "%") return Math.floor((memory * value) / 100)
  return value * ({ "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[unit] ?? 1)
}

/** The device nodes of devtmpfs that are no disks. */
export const makeDev = (): Directory => {
  const root = new Directory()
  for (const name of ["null", "zero", "full", "random", "urandom", "tty", "kmsg", "console", "fuse"])
    root.add(name, new SpecialFile("character", undefined, 0o666))
  return root
}

/** The types by name. Which of them a machine has is for it to say. */
export const make = (sources: FilesystemSources): Readonly<Record<string, Type>> => {
  const fresh = (type: string, text: string, root: Directory, limit?: number): Filesystem => ({
    type,
    root,
    options: text,
    readOnly: false,
    ...(limit === undefined ? {} : { limit }),
  })
  const volumes = new Map<Volume, Filesystem>()
  // One superblock for the whole machine, however often it is mounted.
  const single = new Map<string, Filesystem>()
  const once = (key: string, type: string, text: string, root: () => Directory): Filesystem => {
    const found = single.get(key) ?? fresh(type, text, root())
    single.set(key, found)
    return found
  }
  const memory =
    (type: string, known: ReadonlyArray<string>, mode = 0o1777): Type =>
    (_source, options, text) => {
      onlyKnown(options, known)
      const size = options.get("size")
      return fresh(
        type,
        text,
        new Directory(octal(options.get("mode") ?? mode.toString(8))),
        size === undefined || size === "0" ? undefined : sizeOf(size, sources.memory),
      )
    }

  const overlay: Type = (_source, options, text, flags) => {
    onlyKnown(options, [
      "lowerdir",
      "upperdir",
      "workdir",
      "index",
      "metacopy",
      "redirect_dir",
      "xino",
      "volatile",
    ])
    const table = sources.table()
    const locate = (path: string) => {
      const location = table.find(path)
      return location.inode instanceof Directory
        ? { ...location, directory: location.inode }
        : refuse("ENOTDIR")
    }
    const lower = options.get("lowerdir") ?? refuse("EINVAL")
    const below = lower.split(":").map((path) => locate(path).directory)
    const upper = options.get("upperdir")
    if (upper === undefined)
      return { ...fresh("overlay", text, new OverlayDirectory(undefined, below)), readOnly: true }
    const above = locate(upper)
    const work = locate(options.get("workdir") ?? refuse("EINVAL"))
    if (above.mount !== work.mount || above.directory === work.directory) return refuse("EINVAL")
    if (!flags.includes("MS_RDONLY")) table.assertWritable(above)
    return fresh("overlay", text, new OverlayDirectory(above.directory, below))
  }

  const onDevice =
    (type: string): Type =>
    (source, _options, text) => {
      const node = sources.table().find(source).inode
      if (!(node instanceof SpecialFile) || node.device === undefined) return refuse("ENOTBLK")
      const { disk, partition } = node.device
      const volume = disk.volumes.get(partition)
      if (volume === undefined || volume.type !== type) return refuse("EINVAL")
      if (volume.errno !== undefined) return refuse(volume.errno)
      // By the volume and not its name: a disk has one filesystem, wherever its node is.
      const known = volumes.get(volume) ?? { ...fresh(type, text, volume.root), device: { disk, partition } }
      volumes.set(volume, known)
      return known
    }

  return {
    tmpfs: memory("tmpfs", ["mode", "size", "nr_inodes", "nr_blocks", "uid", "gid", "huge"]),
    ramfs: memory("ramfs", ["mode"], 0o755),
    devpts: (_source, options, text) => {
      onlyKnown(options, ["mode", "gid", "uid", "ptmxmode", "newinstance", "max"])
      const root = new Directory()
      root.add("ptmx", new SpecialFile("character", undefined, octal(options.get("ptmxmode") ?? "0")))
      return fresh("devpts", text, root)
    },
    devtmpfs: (_source, options, text) => {
      onlyKnown(options, ["mode", "size", "nr_inodes"])
      return once("devtmpfs", "devtmpfs", text, () => sources.dev)
    },
    proc: (_source, options, text) => {
      onlyKnown(options, ["hidepid", "gid", "subset"])
      return fresh("proc", text, sources.proc)
    },
    sysfs: (_source, options, text) => {
      onlyKnown(options, [])
      return once("sysfs", "sysfs", text, () => sources.sys)
    },
    cgroup2: (_source, options, text) => {
      onlyKnown(options, [
        "nsdelegate",
        "memory_recursiveprot",
        "favordynmods",
        "memory_localevents",
        "pids_localevents",
      ])
      return once(
        "cgroup2",
        "cgroup2",
        text,
        () => new CgroupDirectory(sources.processes, sources.controllers),
      )
    },
    securityfs: (_source, _options, text) => once("securityfs", "securityfs", text, () => new Directory()),
    tracefs: (_source, _options, text) => once("tracefs", "tracefs", text, () => new Directory(0o700)),
    pstore: (_source, options, text) => {
      onlyKnown(options, ["kmsg_bytes"])
      return once("pstore", "pstore", text, () => sources.pstore)
    },
    bpf: memory("bpf", ["mode", "uid", "gid"], 0o1777),
    overlay,
    ext4: onDevice("ext4"),
    erofs: onDevice("erofs"),
  }
}
