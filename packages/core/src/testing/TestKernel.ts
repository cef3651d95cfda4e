/**
 * The Kernel door of an in-memory machine: each operation records its call,
 * fails as a test asked it to, and otherwise does to the machine's state what
 * Linux would do, with Linux's errno where it would refuse.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Kernel, type KernelShape, type ProcessOutput, type RebootCommand, type Signal } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import { type Call, type CallLog, type Operation, reads } from "./TestCalls.ts"
import { make as blockOperations } from "./TestBlockOperations.ts"
import { make as fileOperations, type About, opening, type Operate, quote } from "./TestFileOperations.ts"
import { type BlockDevice, Directory, Errno, refuse, RegularFile, Symlink } from "./TestFiles.ts"
import { type make as makeFilesystems, parseOptions } from "./TestFilesystems.ts"
import type { MountTable, Propagation } from "./TestMounts.ts"
import type { Processes } from "./TestProcesses.ts"
import { CgroupDirectory } from "./TestCgroups.ts"
import { nameIn } from "./TestModules.ts"
import { InputDevice } from "./TestInput.ts"
import type { Sockets } from "./TestSockets.ts"
import { WatchdogDevice } from "./TestWatchdog.ts"

/** The machine behind the door. */
export interface MachineState {
  readonly log: CallLog
  readonly table: MountTable
  readonly types: ReturnType<typeof makeFilesystems>
  /** Types that the kernel knows now. */
  readonly filesystems: Set<string>
  readonly processes: Processes
  readonly sockets: Sockets
  readonly hostname: { name: string }
  /** Interfaces by name: whether they are up. */
  readonly interfaces: Map<string, boolean>
  readonly limits: { openFiles: number }
  readonly reboots: Array<RebootCommand>
  readonly loadModule: (name: string, parameters: string) => void
  /** Makes the device node and the entries in sysfs of a partition that its disk has now. */
  readonly addPartition: (device: BlockDevice, number: number) => void
  readonly listeners: Set<{
    readonly signals: ReadonlyArray<Signal>
    readonly handler: (signal: Signal) => void
  }>
  readonly latency: Readonly<Partial<Record<Operation, Duration.Input>>>
}

const propagations: Readonly<Record<string, Propagation>> = {
  MS_SHARED: "shared",
  MS_PRIVATE: "private",
  MS_SLAVE: "slave",
  MS_UNBINDABLE: "unbindable",
}

interface MemoryOutput extends ProcessOutput {
  readonly print: (line: string) => void
}

/** Makes the door. */
export const make = (state: MachineState): KernelShape => {
  const { log, table } = state

  const operate: Operate = (operation, syscall, text, about, body) => {
    const now = Effect.suspend(() => {
      const { call, injected } = log.begin(operation, text, about.path)
      if (injected !== undefined) return Effect.fail(new KernelError({ ...about, ...injected }))
      try {
        return Effect.succeed(body(call))
      } catch (cause) {
        if (!(cause instanceof Errno)) throw cause
        call.errno = cause.code
        return Effect.fail(
          new KernelError({ ...about, syscall: cause.syscall ?? syscall, errno: cause.code }),
        )
      }
    })
    const latency = state.latency[operation]
    return latency === undefined ? now : Effect.andThen(Effect.sleep(latency), now)
  }

  const mount: KernelShape["mount"] = (call) => {
    const { flags, fstype, options = "", source, target } = call
    const about: About = {
      path: target,
      args: { source, fstype, flags: flags.join("|") || "0", ...(options === "" ? {} : { options }) },
    }
    const text = `mount(${quote(source)}, ${quote(target)}, ${quote(fstype)}, ${flags.join("|") || "0"}${options === "" ? "" : `, ${quote(options)}`})`
    return operate("mount", "mount", text, about, () => {
      const place = table.find(target)
      const recursive = flags.includes("MS_REC")
      if (flags.includes("MS_REMOUNT")) return table.remount(place, flags)
      if (flags.includes("MS_BIND")) return table.bind(table.find(source), place, recursive)
      const changes = Object.keys(propagations).filter((flag) => flags.some((given) => given === flag))
      if (changes.length > 1) return refuse("EINVAL")
      const propagation = propagations[changes[0] ?? ""]
      if (propagation !== undefined) return table.propagate(place, propagation, recursive)
      if (flags.includes("MS_MOVE")) return table.move(table.find(source), place)
      const type = state.filesystems.has(fstype) ? state.types[fstype] : undefined
      if (type === undefined) return refuse("ENODEV")
      return table.add(type(source, parseOptions(options), options, flags), source, place, flags)
    })
  }

  const spawn: KernelShape["spawn"] = (spec) => {
    const path = spec.command
    const text = `spawn(${[path, ...spec.args].map(quote).join(", ")})`
    return Effect.flatMap(
      operate("spawn", "spawn", text, { path }, () => {
        let cgroup: string | undefined
        if (spec.cgroup !== undefined) {
          const group = opening(() => table.find(`${spec.cgroup}/cgroup.procs`)).inode.parent
          if (group instanceof CgroupDirectory) {
            group.assertTakes()
            cgroup = group.path
          }
        }
        const { inode, mount: on } = table.find(path)
        if (!(inode instanceof RegularFile) || (inode.mode & 0o111) === 0 || on.flags.has("MS_NOEXEC"))
          return refuse("EACCES")
        return { program: inode.program ?? refuse("ENOEXEC"), cgroup }
      }),
      ({ cgroup, program }) => {
        const { cgroup: _, ...rest } = spec
        const output = spec.output as MemoryOutput | undefined
        return state.processes.start(program, cgroup === undefined ? rest : { ...rest, cgroup }, 1, (line) =>
          output?.print(line),
        )
      },
    )
  }

  // As on Linux: a log that cannot be written loses lines, never the process.
  const appendLog = (path: string, maxBytes: number, text: string): void => {
    try {
      const { found, name, parent } = table.walk(path, true)
      table.assertWritable(parent)
      const directory = parent.inode as Directory
      let file = found?.inode instanceof RegularFile ? found.inode : undefined
      if (file !== undefined && file.size > maxBytes) {
        directory.remove(name)
        directory.add(`${name}.1`, file)
        file = undefined
      }
      file ??= directory.create(name, new RegularFile("", 0o640))
      file.write(Buffer.concat([file.read(), Buffer.from(text)]))
    } catch (cause) {
      if (!(cause instanceof Errno)) throw cause
    }
  }

  // The FIFO has no reader: in memory nobody else runs.
  const openOutput: KernelShape["openOutput"] = ({ log, onLine }) =>
    Effect.map(
      operate(
        "openOutput",
        "pipe2",
        `pipe2(O_CLOEXEC)`,
        log === undefined ? {} : { path: log.path },
        () => {},
      ),
      (): MemoryOutput => ({
        flush: () => {},
        print: (line) => {
          onLine?.(line)
          if (log !== undefined) appendLog(log.path, log.maxBytes, `${line}\n`)
        },
      }),
    )

  return Kernel.of({
    mount,
    umount: (target, flags = []) =>
      operate(
        "umount",
        "umount2",
        `umount2(${quote(target)}, ${flags.join("|") || "0"})`,
        { path: target, args: { flags: flags.join("|") || "0" } },
        () =>
          table.umount(table.find(target, !flags.includes("UMOUNT_NOFOLLOW")), {
            detach: flags.includes("MNT_DETACH"),
            expire: flags.includes("MNT_EXPIRE"),
            force: flags.includes("MNT_FORCE"),
          }),
      ),
    chroot: (path) =>
      operate("chroot", "chroot", `chroot(${quote(path)})`, { path }, () => {
        const location = table.find(path)
        if (!(location.inode instanceof Directory)) return refuse("ENOTDIR")
        table.root = location
      }),
    chdir: (path) =>
      operate("chdir", "chdir", `chdir(${quote(path)})`, { path }, () => {
        const location = table.find(path)
        if (!(location.inode instanceof Directory)) return refuse("ENOTDIR")
        table.cwd = location
      }),
    loadModule: (path, parameters = "") => {
      const call = /\.(zst|gz)$/u.test(path) ? "init_module" : "finit_module"
      return operate(
        "loadModule",
        call,
        `${call}(${quote(path)}, ${quote(parameters)})`,
        { path, ...(parameters === "" ? {} : { args: { parameters } }) },
        () => {
          const { inode } = opening(() => table.find(path, false))
          if (inode instanceof Symlink) return refuse("ELOOP", "open")
          if (inode instanceof Directory || inode.size === 0) return refuse("EINVAL")
          if (!(inode instanceof RegularFile)) return refuse("ENOEXEC")
          state.loadModule(nameIn(inode.read(), path), parameters)
        },
      )
    },
    setHostname: (name) =>
      operate("setHostname", "sethostname", `sethostname(${quote(name)})`, { path: name }, () => {
        if (Buffer.byteLength(name) > 64) return refuse("EINVAL")
        state.hostname.name = name
      }),
    linkUp: (name) =>
      operate(
        "linkUp",
        "ioctl",
        `ioctl(SIOCSIFFLAGS, ${quote(name)}, IFF_UP)`,
        { path: name, args: { request: "SIOCSIFFLAGS" } },
        () => {
          if (!state.interfaces.has(name)) return refuse("ENODEV")
          state.interfaces.set(name, true)
        },
      ),
    sync: Effect.ignore(operate("sync", "sync", "sync()", {}, () => {})),
    releaseMemory: Effect.ignore(operate("releaseMemory", "malloc_trim", "malloc_trim(0)", {}, () => {})),
    reboot: (command) =>
      Effect.flatMap(
        operate(
          "reboot",
          "reboot",
          `reboot(${command})`,
          { args: { command } },
          () => void state.reboots.push(command),
        ),
        () => (command.startsWith("CAD_") ? Effect.void : Effect.never),
      ),
    setOpenFilesLimit: (limit) =>
      operate(
        "setOpenFilesLimit",
        "setrlimit",
        `setrlimit(RLIMIT_NOFILE, ${limit})`,
        { args: { resource: "RLIMIT_NOFILE", limit } },
        () => {
          state.limits.openFiles = limit
        },
      ),
    openWatchdog: (path) => {
      const about = (request: string): About => ({ path, args: { request } })
      const timed = <A>(
        operation: Operation,
        syscall: string,
        text: string,
        about: About,
        body: (now: number) => A,
      ) =>
        Effect.flatMap(Clock.monotonicTimeNanos, (nanos) =>
          operate(operation, syscall, text, about, () => body(Number(nanos / 1_000_000n) / 1000)),
        )
      return Effect.map(
        timed("openWatchdog", "ioctl", `open(${quote(path)}, O_WRONLY)`, { path }, (now) => {
          const { inode } = opening(() => table.find(path))
          if (inode instanceof Directory) return refuse("EISDIR", "open")
          const device = inode instanceof WatchdogDevice ? inode : refuse("ENOTTY")
          device.open(now)
          return device
        }),
        (device) => ({
          identity: device.identity,
          resetThisMachine: device.resetThisMachine,
          setTimeout: (seconds) =>
            timed(
              "setWatchdogTimeout",
              "ioctl",
              `ioctl(${quote(path)}, WDIOC_SETTIMEOUT, ${seconds})`,
              about("WDIOC_SETTIMEOUT"),
              (now) => device.setTimeout(seconds, now),
            ),
          feed: timed(
            "feedWatchdog",
            "ioctl",
            `ioctl(${quote(path)}, WDIOC_KEEPALIVE)`,
            about("WDIOC_KEEPALIVE"),
            (now) => device.feed(now),
          ),
          disarm: timed("disarmWatchdog", "write", `write(${quote(path)}, "V")`, { path }, (now) =>
            device.disarm(now),
          ),
        }),
      )
    },
    spawn,
    openOutput,
    listen: state.sockets.listen(operate),
    kill: (pid, signal) =>
      Effect.flatMap(
        operate("kill", "kill", `kill(${pid}, ${signal})`, { path: String(pid) }, () => {
          const { table: processes } = state.processes
          // Everybody is never nobody: the kernel's own threads are counted.
          if (pid > 1 && !processes.has(pid)) refuse("ESRCH")
        }),
        () => state.processes.kill(pid, signal),
      ),
    peekDeadChild: operate("peekDeadChild", "waitid", "waitid(P_ALL, WEXITED|WNOHANG|WNOWAIT)", {}, () =>
      state.processes.peek(),
    ),
    reap: (pid) =>
      operate("reap", "waitpid", `waitpid(${pid}, WNOHANG)`, { path: String(pid) }, () =>
        state.processes.reap(pid),
      ),
    onSignal: (signals, handler) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => {
            const listener = { signals, handler }
            state.listeners.add(listener)
            return listener
          }),
          (listener) => Effect.sync(() => state.listeners.delete(listener)),
        ),
      ),
    ...blockOperations(operate, table, state.addPartition),
    ...fileOperations(operate, table),
    watchInput: (path, onEvent) =>
      Effect.map(
        Effect.acquireRelease(
          operate("watchInput", "ioctl", `open(${quote(path)}, O_RDONLY)`, { path }, () => {
            const { inode } = opening(() => table.find(path))
            const device = inode instanceof InputDevice ? inode : refuse("ENOTTY")
            device.listeners.add(onEvent)
            return device
          }),
          (device) => Effect.sync(() => void device.listeners.delete(onEvent)),
        ),
        ({ label }) => label,
      ),
    watchDirectory: (path, onChange) =>
      Effect.asVoid(
        Effect.acquireRelease(
          operate(
            "watchDirectory",
            "inotify_add_watch",
            `inotify_add_watch(${quote(path)})`,
            { path },
            () => {
              const { inode } = table.find(path)
              const { watchers } = inode instanceof Directory ? inode : refuse("ENOTDIR")
              const watcher = (name: string) => onChange(name)
              watchers.add(watcher)
              return () => watchers.delete(watcher)
            },
          ),
          (stop) => Effect.sync(stop),
        ),
      ),
    monotonic: Clock.monotonicTimeNanos,
  })
}

/** Whether a call changes the machine. */
export const changes = (call: Call): boolean => !reads.has(call.operation)
