/**
 * A machine in memory, behind the same door as Linux: what a stage does to it
 * can be looked at, and what it would refuse can be chosen.
 *
 * Its mount table, files, processes and errnos are held to those of Linux by
 * the contract suite in `test/contract`, which runs on both.
 */
import type * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import { BootReport } from "../BootReport.ts"
import { Events } from "../Events.ts"
import { Kernel, type KernelShape, type Peer, type RebootCommand, type Signal } from "../Kernel.ts"
import { Kmsg, loggerLayer } from "../Kmsg.ts"
import { Shutdown } from "../Shutdown.ts"
import { Supervisor } from "../Supervisor.ts"
import { assertLines, type Call, CallLog, lineOf, type Operation, type Syscall } from "./TestCalls.ts"
import { deviceName, type TestDisk } from "./TestDisks.ts"
import { Directory, type FileTree, plant, refuse, RegularFile, SpecialFile } from "./TestFiles.ts"
import * as Filesystems from "./TestFilesystems.ts"
import * as TestInput from "./TestInput.ts"
import * as TestKernel from "./TestKernel.ts"
import { MountTable } from "./TestMounts.ts"
import * as MountView from "./TestMountView.ts"
import {
  makeProc,
  makeSys,
  plantDevices,
  plantDisk,
  plantInterface,
  plantPartition,
  plantSysctls,
  type SysctlSpec,
} from "./TestProc.ts"
import * as TestModules from "./TestModules.ts"
import { Processes, type ProcessEntry } from "./TestProcesses.ts"
import type { Program } from "./TestPrograms.ts"
import * as TestFirmware from "./TestFirmware.ts"
import { Sockets, type TestConnection } from "./TestSockets.ts"
import type { WatchdogSpec, WatchdogState } from "./TestWatchdog.ts"

/** A kernel module that the machine has a file of. */
export interface ModuleSpec {
  /** Modules that must be in before it (ENOENT otherwise). */
  readonly needs?: ReadonlyArray<string>
  /** Filesystem types that it brings. */
  readonly filesystems?: ReadonlyArray<string>
  /** Kernel parameters that it brings. */
  readonly sysctls?: Readonly<Record<string, SysctlSpec>>
  /** Interfaces that it brings. */
  readonly interfaces?: ReadonlyArray<string>
  /** The watchdog timer that it brings, as /dev/watchdog0. */
  readonly watchdog?: WatchdogSpec
  /** It keeps the kernel's log, and kept these files of earlier boots: they are in pstore once it is in. */
  readonly pstore?: Readonly<Record<string, string>>
  /** Its file, relative to /lib/modules/RELEASE; default `kernel/NAME.ko`. */
  readonly path?: string
  /** Patterns of the devices that it drives, and other names, in modules.alias. */
  readonly aliases?: ReadonlyArray<string>
  /** What modules.softdep says of it: `pre: crc32c`. */
  readonly softdep?: string
  /** Devices that appear when it is loaded: modalias by `BUS/NAME`. */
  readonly devices?: Readonly<Record<string, string>>
}

/** What the machine is. Everything has a default: `make()` is a machine that the reference stages boot on, but for its programs. */
export interface TestMachineOptions {
  /** Files of the root filesystem. */
  readonly files?: FileTree
  readonly cmdline?: string
  readonly osrelease?: string
  readonly modules?: Readonly<Record<string, ModuleSpec>>
  /** Disks by name (`vda`). */
  readonly disks?: Readonly<Record<string, TestDisk>>
  /** What runs when a file is started, by its path. */
  readonly programs?: Readonly<Record<string, Program>>
  readonly sysctls?: Readonly<Record<string, SysctlSpec>>
  /** Filesystem types that are built in; default: {@link builtinFilesystems}. */
  readonly filesystems?: ReadonlyArray<string>
  /** cgroup controllers. */
  readonly controllers?: ReadonlyArray<string>
  readonly interfaces?: ReadonlyArray<string>
  /** Devices in /sys/bus: modalias by `BUS/NAME`. */
  readonly devices?: Readonly<Record<string, string>>
  /** Input devices in /dev/input: name by node (`event0`). */
  readonly inputs?: Readonly<Record<string, string>>
  /** The watchdog timer that it has without a module, as /dev/watchdog0. */
  readonly watchdog?: WatchdogSpec
  /** Bytes of RAM (default 512 MiB). */
  readonly memory?: number
  readonly pidMax?: number
  /** How often `peekDeadChild` shows a dead child of init's own before it is collected (default 0). */
  readonly lateCollection?: number
  /** How long operations take, on the test's clock. */
  readonly latency?: Readonly<Partial<Record<Operation, Duration.Input>>>
}

/**
 * What a kernel has without modules, unless a test says otherwise.
 *
 * @example
 * ```ts
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 *
 * const modular = TestMachine.make({
 *   filesystems: TestMachine.builtinFilesystems.filter((type) => type !== "ext4"),
 *   modules: { ext4: { filesystems: ["ext4"] } },
 * })
 * ```
 */
export const builtinFilesystems: ReadonlyArray<string> = [
  "tmpfs",
  "ramfs",
  "proc",
  "sysfs",
  "devtmpfs",
  "devpts",
  "cgroup2",
  "securityfs",
  "tracefs",
  "bpf",
  "pstore",
  "ext4",
]

/** Which calls {@link TestMachine.expectCalls} compares. */
export interface CallFilter {
  /** Only these operations; default: all that change something. */
  readonly only?: ReadonlyArray<Operation>
}

/** A machine in memory. */
export interface TestMachine {
  /** The door, as a service. */
  readonly layer: Layer.Layer<Kernel>
  /** The door itself. */
  readonly kernel: KernelShape
  /** What stages wrote to the kernel log through {@link platform}: `severity text`. */
  readonly kmsg: Array<string>
  /** Every call so far, in order. */
  readonly calls: ReadonlyArray<Call>
  /** The calls as lines; without a filter, those that change something. */
  readonly log: (filter?: CallFilter) => ReadonlyArray<string>
  /** Throws, with a diff of lines, unless these were the calls, in this order. */
  readonly expectCalls: (expected: ReadonlyArray<string>, filter?: CallFilter) => void
  /** Every call of this operation or system call fails from now on (at most `times` times, when given). */
  readonly failOn: (
    what: Operation | Syscall,
    errno: string,
    options?: { readonly path?: string | RegExp; readonly times?: number },
  ) => void
  /** The `n`th such call from now on, counted from 1, fails. */
  readonly failNth: (
    n: number,
    what: Operation | Syscall,
    errno: string,
    options?: { readonly path?: string | RegExp },
  ) => void
  /** The mounts that init can see. */
  readonly mounts: () => ReadonlyArray<MountView.MountEntry>
  /** The mount that covers a path last; undefined when it is no mount point. */
  readonly mountAt: (target: string) => MountView.MountEntry | undefined
  /** The mounts, a line each. */
  readonly mountTable: () => string
  /** Text of a file, not recorded as a call. Throws when there is none. */
  readonly read: (path: string) => string
  readonly exists: (path: string) => boolean
  /** Permission bits of a file. Throws when there is none. */
  readonly modeOf: (path: string) => number
  /** Puts files there, as something else than init would. */
  readonly write: (files: FileTree) => void
  /** A disk appears, as when its driver has found it. */
  readonly plug: (name: string, disk: TestDisk) => void
  /** Input devices: more of them, and what they tell. */
  readonly inputs: TestInput.Inputs
  /** Modules that are in, with the parameters that they were given, in order. */
  readonly modules: ReadonlyMap<string, string>
  /** Values of kernel parameters. */
  readonly sysctls: ReadonlyMap<string, string>
  /** Whether each interface is up. */
  readonly interfaces: ReadonlyMap<string, boolean>
  readonly hostname: () => string
  /** Processes that run, and dead ones that nobody waited for. */
  readonly processes: () => ReadonlyArray<ProcessEntry>
  /** Pids of supervised children whose exit status was taken from their spawner: an error of the reaper. */
  readonly stolen: ReadonlyArray<number>
  /**
   * Connects to a socket that init listens on, as a process of init itself unless `peer` says otherwise.
   * Throws what connect(2) refuses.
   */
  readonly connect: (path: string, peer?: Partial<Peer>) => TestConnection
  /** Sends init a signal. */
  readonly signal: (signal: Signal) => void
  readonly reboots: ReadonlyArray<RebootCommand>
  /** How the watchdog timer stands, at this many seconds of the test's clock; undefined when there is none. */
  readonly watchdog: (now: number) => WatchdogState | undefined
  /** RLIMIT_NOFILE of init. */
  readonly openFilesLimit: () => number
}

/**
 * Makes a machine.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 *
 * const machine = TestMachine.make({ files: { "/etc/hostname": "node-7\n" } })
 * machine.failOn("mount", "EBUSY", { path: "/tmp" })
 * const program = Kernel.use((kernel) => kernel.setHostname("node-7")).pipe(Effect.provide(machine.layer))
 * Effect.runSync(program)
 * machine.expectCalls(['sethostname("node-7")'])
 * ```
 */
export const make = (options: TestMachineOptions = {}): TestMachine => {
  const osrelease = options.osrelease ?? "6.12.0-test"
  const modules = options.modules ?? { overlay: { filesystems: ["overlay"] }, virtio_blk: {} }
  const root = new Directory()
  const log = new CallLog()
  const listeners: TestKernel.MachineState["listeners"] = new Set()
  const tellInit = (signal: Signal): void => {
    for (const { handler, signals } of listeners) if (signals.includes(signal)) handler(signal)
  }
  const processes = new Processes({
    pidMax: options.pidMax ?? 32_768,
    lateCollection: options.lateCollection ?? 0,
    tellInit,
  })
  const filesystems = new Set(options.filesystems ?? builtinFilesystems)
  const hostname = { name: "(none)" }
  const interfaces = new Map<string, boolean>()
  const loaded = new Map<string, string>()
  const sysctls = new Map<string, string>()
  let uuids = 0
  const table: MountTable = new MountTable({ type: "rootfs", root, options: "", readOnly: false })
  const sockets = new Sockets(table)
  const memory = options.memory ?? 512 * 1024 ** 2
  const proc = makeProc({
    memory,
    cmdline: options.cmdline ?? "console=ttyS0",
    osrelease,
    processes,
    mountinfo: () => MountView.mountinfo(table),
    filesystems: () => [...filesystems],
    modules: () => [...loaded.keys()].toReversed(),
    hostname,
    uuid: () => `${(++uuids).toString(16).padStart(8, "0")}-cafe-4000-8000-0123456789ab`,
  })
  plantSysctls(proc.sys, sysctls, {
    "kernel.panic": "10",
    "kernel.modprobe": "/sbin/modprobe",
    // A thread may take an eighth of the memory for its 16 KiB of stack (kernel/fork.c, set_max_threads).
    "kernel.threads-max": String(Math.floor(memory / (8 * 16 * 1024))),
    "vm.swappiness": "60",
    ...options.sysctls,
  })
  const sys = makeSys(filesystems)
  const dev = Filesystems.makeDev()
  const plug = (name: string, disk: TestDisk): void => {
    plantDisk(sys, name, disk)
    for (const number of [0, ...disk.partitions.keys()])
      dev.add(deviceName(name, number), new SpecialFile("block", { disk, partition: number }))
  }
  for (const [name, disk] of Object.entries(options.disks ?? {})) plug(name, disk)
  const addInterface = (name: string): void => {
    interfaces.set(name, false)
    plantInterface(sys, name, () => interfaces.get(name) === true)
  }
  for (const name of options.interfaces ?? ["lo", "eth0"]) addInterface(name)
  plantDevices(sys, options.devices ?? {})
  const firmware = TestFirmware.make(dev, sys)
  const inputs = TestInput.make(dev, sys)
  for (const [node, name] of Object.entries(options.inputs ?? {})) inputs.add(node, name)
  if (options.watchdog !== undefined) firmware.addWatchdog(options.watchdog)
  const types = Filesystems.make({
    table: () => table,
    proc: proc.root,
    sys,
    dev,
    pstore: firmware.pstore,
    processes,
    controllers: options.controllers ?? ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"],
    memory,
  })

  const fileOf = (path: string): RegularFile => {
    plant(root, { [path]: { content: "", mode: 0o755 } })
    return table.find(path).inode as RegularFile
  }
  const moduleDirectory = `/lib/modules/${osrelease}`
  const modulePath = (name: string) => modules[name]?.path ?? `kernel/${name}.ko`
  plant(root, {
    [`${moduleDirectory}/modules.dep`]: Object.entries(modules)
      .map(([name, { needs = [] }]) => `${[`${modulePath(name)}:`, ...needs.map(modulePath)].join(" ")}\n`)
      .join(""),
    [`${moduleDirectory}/modules.alias`]: Object.entries(modules)
      .flatMap(([name, { aliases = [] }]) => aliases.map((alias) => `alias ${alias} ${name}\n`))
      .join(""),
    [`${moduleDirectory}/modules.softdep`]: Object.entries(modules)
      .flatMap(([name, { softdep }]) => (softdep === undefined ? [] : [`softdep ${name} ${softdep}\n`]))
      .join(""),
  })
  for (const name of Object.keys(modules)) {
    const file = fileOf(`${moduleDirectory}/${modulePath(name)}`)
    file.write(TestModules.pack(TestModules.contentOf(name), modulePath(name)))
  }
  for (const [path, program] of Object.entries(options.programs ?? {})) fileOf(path).program = program
  plant(root, options.files ?? {})

  const state: TestKernel.MachineState = {
    log,
    table,
    types,
    filesystems,
    processes,
    sockets,
    hostname,
    interfaces,
    limits: { openFiles: 1024 },
    reboots: [],
    listeners,
    addPartition: (device, number) => {
      const { disk } = device
      const name = dev.names().find((one) => {
        const node = dev.lookup(one)
        return node instanceof SpecialFile && node.device?.disk === disk && node.device.partition === 0
      })
      if (name === undefined) return refuse("ENXIO")
      plantPartition(sys, name, disk, number)
      dev.add(deviceName(name, number), new SpecialFile("block", { disk, partition: number }))
    },
    latency: options.latency ?? {},
    loadModule: (name, parameters) => {
      const module = modules[name]
      if (module === undefined) return refuse("ENOEXEC")
      if (loaded.has(name)) return refuse("EEXIST")
      if ((module.needs ?? []).some((need) => !loaded.has(need))) return refuse("ENOENT")
      loaded.set(name, parameters)
      for (const type of module.filesystems ?? []) filesystems.add(type)
      for (const interface_ of module.interfaces ?? []) addInterface(interface_)
      if (module.watchdog !== undefined) firmware.addWatchdog(module.watchdog)
      if (module.pstore !== undefined) firmware.addStore(name, module.pstore)
      plantSysctls(proc.sys, sysctls, module.sysctls ?? {})
      sys.within(`module/${name}`)
      plantDevices(sys, module.devices ?? {})
    },
  }
  const kernel = TestKernel.make(state)
  const lines = (filter: CallFilter = {}) =>
    log.calls
      .filter((call) =>
        filter.only === undefined ? TestKernel.changes(call) : filter.only.includes(call.operation),
      )
      .map(lineOf)
  const inodeAt = (path: string) => table.find(path).inode
  const pathOption = (path: string | RegExp | undefined) => ({ path })

  return {
    kernel,
    layer: Layer.succeed(Kernel, kernel),
    kmsg: [],
    calls: log.calls,
    log: lines,
    expectCalls: (expected, filter) => assertLines("calls", expected, lines(filter)),
    failOn: (what, errno, { path, times } = {}) =>
      log.inject({ what, errno, ...pathOption(path), skip: 0, left: times ?? Number.POSITIVE_INFINITY }),
    failNth: (n, what, errno, { path } = {}) =>
      log.inject({ what, errno, ...pathOption(path), skip: n - 1, left: 1 }),
    mounts: () => MountView.entries(table),
    mountAt: (target) => MountView.entries(table).findLast((entry) => entry.target === target),
    mountTable: () => MountView.toText(table),
    read: (path) => {
      const inode = inodeAt(path)
      if (!(inode instanceof RegularFile)) throw new Error(`${path} is a ${inode.kind}`)
      return Buffer.from(inode.read()).toString()
    },
    exists: (path) => {
      try {
        return table.walk(path, false).found !== undefined
      } catch {
        return false
      }
    },
    modeOf: (path) => inodeAt(path).mode,
    write: (files) => {
      for (const [path, spec] of Object.entries(files)) {
        const at = path.lastIndexOf("/", path.length - 2)
        const parent = path.slice(0, at)
        // What is mounted on the way is written to, not what it hides.
        let directory = root
        let rest = path
        for (const prefix of prefixes(parent)) {
          const found = table.walk(prefix, true).found?.inode
          if (!(found instanceof Directory)) break
          directory = found
          rest = path.slice(prefix === "/" ? 0 : prefix.length)
        }
        plant(directory, { [rest]: spec })
      }
    },
    plug,
    inputs,
    modules: loaded,
    sysctls,
    interfaces,
    hostname: () => hostname.name,
    processes: () => [...processes.table.values()],
    stolen: processes.stolen,
    connect: (path, peer) => sockets.connect(path, { pid: 1, uid: 0, gid: 0, ...peer }),
    signal: tellInit,
    reboots: state.reboots,
    watchdog: firmware.watchdog,
    openFilesLimit: () => state.limits.openFiles,
  }
}

const prefixes = (path: string): ReadonlyArray<string> => {
  const parts = path.split("/").filter((part) => part !== "")
  return ["/", ...parts.map((_, index) => `/${parts.slice(0, index + 1).join("/")}`)]
}

/**
 * Everything that a stage may use without asking for it, over a machine: the
 * kernel, a supervisor, a boot report, events and the kernel log, which is
 * `machine.kmsg` and also gets what Effect logs.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 *
 * const machine = TestMachine.make()
 * const boot = Layer.build(Pipeline.make([]).layer).pipe(Effect.provide(TestMachine.platform(machine)), Effect.scoped)
 * ```
 */
export const platform = (
  machine: TestMachine,
): Layer.Layer<Kernel | Supervisor | BootReport | Events | Shutdown | Kmsg> =>
  Supervisor.layer.pipe(
    Layer.provideMerge(Shutdown.layer),
    Layer.provideMerge(BootReport.layer),
    Layer.provideMerge(loggerLayer),
    Layer.provideMerge(Events.layer),
    Layer.provideMerge(Layer.mergeAll(machine.layer, Kmsg.layerArray(machine.kmsg))),
  )
