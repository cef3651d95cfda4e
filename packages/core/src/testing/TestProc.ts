/**
 * /proc and /sys of an in-memory machine: the views that stages read.
 */
import { ControlFile, Directory, type Inode, KernelDirectory, refuse, Symlink } from "./TestFiles.ts"
import type { Processes } from "./TestProcesses.ts"
import type { TestDisk } from "./TestDisks.ts"
import { deviceName } from "./TestDisks.ts"

/** A kernel parameter: its value, or its value and which writes are taken (others are EINVAL). */
export type SysctlSpec = string | { readonly value: string; readonly accepts: (value: string) => boolean }

/** What the views show. */
export interface ProcSources {
  readonly cmdline: string
  readonly osrelease: string
  readonly processes: Processes
  readonly mountinfo: () => string
  readonly filesystems: () => ReadonlyArray<string>
  readonly modules: () => ReadonlyArray<string>
  readonly hostname: { name: string }
  readonly uuid: () => string
  /** Bytes of RAM. */
  readonly memory: number
}

class ProcDirectory extends KernelDirectory {
  readonly #processes: Processes
  constructor(processes: Processes) {
    // A name that no process and no file has does not exist, whatever is done with it.
    super("ENOENT", "ENOENT")
    this.#processes = processes
  }
  override lookup(name: string): Inode | undefined {
    const fixed = super.lookup(name)
    if (fixed !== undefined || !/^\d+$/u.test(name)) return fixed
    const process = this.#processes.table.get(Number(name))
    if (process === undefined) return undefined
    const directory = new KernelDirectory("ENOENT", "ENOENT")
    directory.name = name
    directory.parent = this
    directory.add(
      "cmdline",
      new ControlFile(() =>
        process.status === undefined ? [process.command, ...process.args, ""].join("\0") : "",
      ),
    )
    directory.add(
      "oom_score_adj",
      new ControlFile(
        () => `${process.oomScoreAdj}\n`,
        (value) => {
          const score = Number(value)
          if (!Number.isInteger(score) || Math.abs(score) > 1000) return refuse("EINVAL")
          process.oomScoreAdj = score
        },
      ),
    )
    // proc_pid_stat(5): the first fields are those that people read, the rest is there so that it is whole.
    directory.add(
      "stat",
      new ControlFile(() => {
        const name = process.command.split("/").at(-1)?.slice(0, 15) ?? ""
        const state = process.status === undefined ? "S" : "Z"
        const rest = [
          process.parent,
          process.pid,
          process.pid,
          0,
          -1,
          0x400000,
          ...Array.from({ length: 43 }, () => 0),
        ]
        return `${process.pid} (${name}) ${state} ${rest.join(" ")}\n`
      }),
    )
    directory.add("cgroup", new ControlFile(() => `0::${process.cgroup ?? "/"}\n`))
    directory.within("ns").add("pid", new Symlink(PID_NAMESPACE))
    return directory
  }
  override names(): ReadonlyArray<string> {
    return [...super.names(), ...[...this.#processes.table.keys()].map(String)]
  }
}

// The first one of a kernel (include/linux/proc_ns.h); no process of this machine is in another.
const PID_NAMESPACE = "pid:[4026531836]"

/** Puts parameters below a `sys` directory, by their names in sysctl(8). */
export const plantSysctls = (
  sys: KernelDirectory,
  values: Map<string, string>,
  table: Readonly<Record<string, SysctlSpec>>,
): void => {
  for (const [key, spec] of Object.entries(table)) {
    const accepts = typeof spec === "string" ? () => true : spec.accepts
    values.set(key, typeof spec === "string" ? spec : spec.value)
    // Dots separate directories and a slash in a key stands for a dot in a name.
    const parts = key.split(".").map((part) => part.replaceAll("/", "."))
    const name = parts.pop() ?? key
    sys.within(parts.join("/")).add(
      name,
      new ControlFile(
        () => `${values.get(key) ?? ""}\n`,
        (value) => {
          if (!accepts(value)) return refuse("EINVAL")
          values.set(key, value)
        },
      ),
    )
  }
}

/** The tree that every mount of proc shows. */
export const makeProc = (
  sources: ProcSources,
): { readonly root: Directory; readonly sys: KernelDirectory } => {
  const root = new ProcDirectory(sources.processes)
  const self = new KernelDirectory("ENOENT", "ENOENT")
  root.add("cmdline", new ControlFile(() => `${sources.cmdline}\n`))
  root.add("version", new ControlFile(() => `Linux version ${sources.osrelease} (test machine)\n`))
  root.add(
    "filesystems",
    new ControlFile(() =>
      sources
        .filesystems()
        .map((name) => `\t${name}\n`)
        .join(""),
    ),
  )
  root.add(
    "modules",
    new ControlFile(() =>
      sources
        .modules()
        .map((name) => `${name} 16384 0 - Live 0x0\n`)
        .join(""),
    ),
  )
  root.add(
    "meminfo",
    new ControlFile(() => {
      const line = (name: string, bytes: number) =>
        `${`${name}:`.padEnd(16)}${String(Math.floor(bytes / 1024)).padStart(8)} kB\n`
      const free = Math.floor(sources.memory / 2)
      return `${line("MemTotal", sources.memory)}${line("MemFree", free)}${line("MemAvailable", free)}${line("Unevictable", 0)}`
    }),
  )
  root.add("mounts", new Symlink("self/mounts"))
  root.add("self", new Symlink("1"))
  root.add("1", self)
  self.within("ns").add("pid", new Symlink(PID_NAMESPACE))
  self.add("mountinfo", new ControlFile(sources.mountinfo))
  self.add("cmdline", new ControlFile(() => "/init\0"))
  self.add("cgroup", new ControlFile(() => `0::${sources.processes.initCgroup}\n`))
  self.add(
    "oom_score_adj",
    new ControlFile(
      () => "0\n",
      () => {},
    ),
  )
  const sys = root.add("sys", new KernelDirectory("ENOENT", "EACCES"))
  const kernel = sys.within("kernel")
  kernel.add("osrelease", new ControlFile(() => `${sources.osrelease}\n`))
  kernel.add(
    "hostname",
    new ControlFile(
      () => `${sources.hostname.name}\n`,
      (value) => {
        sources.hostname.name = value
      },
    ),
  )
  sys.within("kernel/random").add("uuid", new ControlFile(() => `${sources.uuid()}\n`))
  return { root, sys }
}

/** The tree of sysfs: the mount points that the kernel's features bring. */
export const makeSys = (features: ReadonlySet<string>): KernelDirectory => {
  const root = new KernelDirectory()
  for (const path of ["block", "bus", "class/net", "fs/cgroup", "kernel", "module"]) root.within(path)
  if (features.has("securityfs")) root.within("kernel/security")
  if (features.has("tracefs")) root.within("kernel/tracing")
  if (features.has("bpf")) root.within("fs/bpf")
  if (features.has("pstore")) root.within("fs/pstore")
  return root
}

// Always in units of 512 bytes, whatever the sector is.
const inUnits = (bytes: number) => `${Math.floor(bytes / 512)}\n`

/** A partition that the kernel has, in sysfs. */
export const plantPartition = (sys: KernelDirectory, name: string, disk: TestDisk, number: number): void => {
  const directory = sys.within(`block/${name}/${deviceName(name, number)}`)
  const range = () => disk.partitions.get(number) ?? { start: 0, end: 0 }
  directory.add("partition", new ControlFile(() => `${number}\n`))
  directory.add("start", new ControlFile(() => inUnits(range().start)))
  directory.add("size", new ControlFile(() => inUnits(range().end - range().start)))
}

/** A disk in sysfs, with its partitions. */
export const plantDisk = (sys: KernelDirectory, name: string, disk: TestDisk): void => {
  const directory = sys.within(`block/${name}`)
  directory.add("size", new ControlFile(() => inUnits(disk.bytes.length)))
  directory.add("removable", new ControlFile(() => (disk.removable === true ? "1\n" : "0\n")))
  directory.within("queue").add("logical_block_size", new ControlFile(() => `${disk.sectorBytes}\n`))
  for (const number of disk.partitions.keys()) plantPartition(sys, name, disk, number)
}

const IFF_UP = 0x1
const IFF_BROADCAST = 0x2
const IFF_LOOPBACK = 0x8
const IFF_MULTICAST = 0x1000

/** An interface in sysfs, with its flags as netdevice(7) numbers them. */
export const plantInterface = (sys: KernelDirectory, name: string, isUp: () => boolean): void => {
  const kind = name === "lo" ? IFF_LOOPBACK : IFF_BROADCAST | IFF_MULTICAST
  sys
    .within(`class/net/${name}`)
    .add("flags", new ControlFile(() => `0x${(kind | (isUp() ? IFF_UP : 0)).toString(16)}\n`))
}

/** Devices on their buses, by `BUS/NAME`, with the modalias that drivers know them by. */
export const plantDevices = (sys: KernelDirectory, devices: Readonly<Record<string, string>>): void => {
  for (const [device, modalias] of Object.entries(devices)) {
    const at = device.indexOf("/")
    sys
      .within(`bus/${device.slice(0, at)}/devices/${device.slice(at + 1)}`)
      .add("modalias", new ControlFile(() => `${modalias}\n`))
  }
}
