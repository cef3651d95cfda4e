/**
 * The Kernel door of an in-memory machine: each operation records its call,
 * fails as a test asked it to, and otherwise does to the machine's state what
 * Linux would do, with Linux's errno where it would refuse.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type FileStat, Kernel, type KernelShape, type RebootCommand, type Signal } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import { type Call, type CallLog, type Operation, reads } from "./TestCalls.ts"
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
import type { make as makeFilesystems } from "./TestFilesystems.ts"
import type { Location, MountTable, Propagation } from "./TestMounts.ts"
import type { Processes } from "./TestProcesses.ts"
import { CgroupDirectory } from "./TestCgroups.ts"

/** The machine behind the door. */
export interface MachineState {
  readonly log: CallLog
  readonly table: MountTable
  readonly types: ReturnType<typeof makeFilesystems>
  /** Types that the kernel knows now. */
  readonly filesystems: Set<string>
  readonly processes: Processes
  readonly hostname: { name: string }
  /** Interfaces by name: whether they are up. */
  readonly interfaces: Map<string, boolean>
  readonly limits: { openFiles: number }
  readonly reboots: Array<RebootCommand>
  readonly loadModule: (name: string, parameters: string) => void
  readonly listeners: Set<{
    readonly signals: ReadonlyArray<Signal>
    readonly handler: (signal: Signal) => void
  }>
  readonly latency: Readonly<Partial<Record<Operation, Duration.Input>>>
}

const quote = (text: string): string => JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}...` : text)
const octal = (mode: number): string => `0${mode.toString(8)}`
const show = (content: string | Uint8Array): string =>
  typeof content === "string" ? quote(content) : `<${content.length} bytes>`

const propagations: Readonly<Record<string, Propagation>> = {
  MS_SHARED: "shared",
  MS_PRIVATE: "private",
  MS_SLAVE: "slave",
  MS_UNBINDABLE: "unbindable",
}

type About = Omit<ConstructorParameters<typeof KernelError>[0], "syscall" | "errno">

/** Makes the door. */
export const make = (state: MachineState): KernelShape => {
  const { log, table } = state

  const operate = <A>(
    operation: Operation,
    syscall: string,
    text: string,
    about: About,
    body: (call: Call) => A,
  ) => {
    const now = Effect.suspend((): Effect.Effect<A, KernelError> => {
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

  /** Opens for reading or writing: what is refused here is refused by open(2). */
  const opening = <A>(body: () => A): A => {
    try {
      return body()
    } catch (cause) {
      return cause instanceof Errno
        ? refuse(cause.code, cause.syscall ?? "open")
        : (() => {
            throw cause
          })()
    }
  }
  const openFile = (path: string): Location => opening(() => table.find(path))

  const bytesAt = ({ inode }: Location): Uint8Array => {
    if (inode instanceof RegularFile) return inode.read()
    if (inode instanceof SpecialFile && inode.device !== undefined)
      return contentOf(inode.device.disk, inode.device.partition)
    return inode instanceof Directory ? refuse("EISDIR", "read") : new Uint8Array(0)
  }
  const read = (operation: Operation, path: string, text = `read(${quote(path)})`) =>
    operate(operation, "read", text, { path }, () => bytesAt(openFile(path)))

  const assertSpace = (location: Location, bytes: number): void => {
    const { limit, root } = location.mount.filesystem
    if (limit !== undefined && bytesBelow(root) + bytes > limit) refuse("ENOSPC")
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
      return table.add(type(source, parseable(options), options, flags), source, place, flags)
    })
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

  const spawn: KernelShape["spawn"] = (spec) => {
    const path = spec.command
    const text = `spawn(${[path, ...spec.args].map(quote).join(", ")})`
    return Effect.flatMap(
      operate("spawn", "spawn", text, { path }, () => {
        let cgroup: string | undefined
        if (spec.cgroup !== undefined) {
          const group = openFile(`${spec.cgroup}/cgroup.procs`).inode.parent
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
        return state.processes.start(
          program,
          cgroup === undefined ? rest : { ...rest, cgroup },
          1,
          (line) => {
            spec.onLine?.(line)
            if (spec.log !== undefined) appendLog(spec.log.path, spec.log.maxBytes, `${line}\n`)
          },
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
    loadModule: (path, parameters = "") =>
      operate(
        "loadModule",
        "finit_module",
        `finit_module(${quote(path)}, ${quote(parameters)})`,
        { path, ...(parameters === "" ? {} : { args: { parameters } }) },
        () => {
          const { inode } = opening(() => table.find(path, false))
          if (inode instanceof Symlink) return refuse("ELOOP", "open")
          if (inode instanceof Directory) return refuse("EINVAL")
          state.loadModule(
            inode instanceof RegularFile && inode.module !== undefined ? inode.module : refuse("ENOEXEC"),
            parameters,
          )
        },
      ),
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
    spawn,
    kill: (pid, signal) =>
      Effect.flatMap(
        operate("kill", "kill", `kill(${pid}, ${signal})`, { path: String(pid) }, () => {
          if (pid !== 1 && !state.processes.table.has(pid)) refuse("ESRCH")
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
          assertSpace(location, Buffer.byteLength(content))
          file.write(content)
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
    monotonic: Clock.monotonicTimeNanos,
  })
}

const parseable = (options: string): ReadonlyMap<string, string> =>
  new Map(
    options
      .split(",")
      .filter((part) => part !== "")
      .map((part) => {
        const at = part.indexOf("=")
        return at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)]
      }),
  )

/** Whether a call changes the machine. */
export const changes = (call: Call): boolean => !reads.has(call.operation)
