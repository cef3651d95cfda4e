/**
 * The live {@link Kernel}: libc by koffi for what Node has no call for,
 * `node:fs` and `node:child_process` for the rest.
 *
 * Calls that can wait for a device (a mount of one, umount, loading a module, sync)
 * run on libuv's pool, so that PID 1's loop keeps turning. Everything else touches
 * memory only and is called in place, which is cheaper than a thread's hop.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as fs from "node:fs"
import { Kernel, type KernelShape, type ResourceLimits, type Signal } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import * as abi from "./abi.ts"
import * as files from "./files.ts"
import { watchInput } from "./input.ts"
import * as libc from "./libc.ts"
import * as memory from "./memory.ts"
import * as modules from "./modules.ts"
import * as output from "./output.ts"
import * as processes from "./processes.ts"
import { listen } from "./sockets.ts"
import { watchDirectory } from "./watch.ts"
import { openWatchdog } from "./watchdog.ts"

/** What {@link make} and {@link layer} take. */
export interface LinuxKernelOptions {
  /** Absolute path of `koffi.node`. Without it the npm package `koffi` is used, as on a developer's machine. */
  readonly koffiPath?: string
}

const flagBits = <F extends string>(table: Readonly<Record<F, number>>, flags: ReadonlyArray<F>): number =>
  flags.reduce((bits, flag) => bits | table[flag], 0)

const cString = (text: string): Uint8Array => Buffer.from(`${text}\0`)

// Their mounts touch memory only. Not pstore: it reads what the firmware keeps.
const ownFilesystems = new Set("proc sysfs tmpfs devtmpfs devpts cgroup2 securityfs bpf tracefs".split(" "))

type ErrorAbout = Omit<ConstructorParameters<typeof KernelError>[0], "syscall" | "errno">

/**
 * Makes the operations; {@link layer} is what programs use.
 *
 * @example
 * ```ts
 * import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
 * import * as Effect from "effect/Effect"
 *
 * const kernel = LinuxKernel.make() // the addon is loaded at the first system call
 * const release = Effect.runSync(kernel.readText("/proc/sys/kernel/osrelease"))
 * ```
 */
export const make = (options: LinuxKernelOptions = {}): KernelShape => {
  const c = libc.make(options)

  const inPlace = (
    about: ErrorAbout,
    name: libc.LibcFunction,
    ...args: Parameters<libc.Libc["call"]> extends [unknown, ...infer A] ? A : never
  ) =>
    Effect.suspend(() => {
      const result = c.call(name, ...args)
      return result.value === -1
        ? Effect.fail(new KernelError({ syscall: name, errno: result.errno, ...about }))
        : Effect.succeed(result.value)
    })

  /** In a worker thread. The way there and back costs an emulated machine ten times what a quick call does. */
  const offLoop = (
    about: ErrorAbout & { readonly syscall?: string },
    name: libc.LibcFunction,
    args: Parameters<libc.Libc["callAsync"]>[1],
  ) =>
    Effect.callback<void, KernelError>((resume) => {
      c.callAsync(name, args, (result) =>
        resume(
          result.value === -1
            ? Effect.fail(new KernelError({ syscall: name, errno: result.errno, ...about }))
            : Effect.void,
        ),
      )
    })

  const linkUp: KernelShape["linkUp"] = (name) =>
    Effect.suspend(() => {
      const socket = c.call("socket", abi.AF_INET, abi.SOCK_DGRAM | abi.SOCK_CLOEXEC, 0)
      if (socket.value === -1) return Effect.fail(new KernelError({ syscall: "socket", errno: socket.errno }))
      const request = Buffer.alloc(abi.IFREQ_BYTES)
      request.write(name.slice(0, abi.IFNAMSIZ - 1), "latin1")
      let result = c.call("ioctl", socket.value, abi.SIOCGIFFLAGS, request)
      if (result.value !== -1) {
        request.writeInt16LE(request.readInt16LE(abi.IFNAMSIZ) | abi.IFF_UP, abi.IFNAMSIZ)
        result = c.call("ioctl", socket.value, abi.SIOCSIFFLAGS, request)
      }
      c.call("close", socket.value)
      return result.value === -1
        ? Effect.fail(
            new KernelError({
              syscall: "ioctl",
              errno: result.errno,
              path: name,
              args: { request: "SIOCSIFFLAGS" },
            }),
          )
        : Effect.void
    })

  const loadModule: KernelShape["loadModule"] = (path, parameters = "") =>
    Effect.suspend(() => {
      const machine = process.arch
      const about = { path, ...(parameters === "" ? {} : { args: { parameters } }) }
      if (!abi.isMachine(machine))
        return Effect.fail(
          new KernelError({ syscall: "finit_module", errno: "ENOSYS", path, args: { machine } }),
        )
      const decompress = modules.decompressor(path)
      if (decompress !== undefined)
        return Effect.flatMap(decompress, (image) =>
          offLoop({ syscall: "init_module", ...about }, "init_module", [
            abi.syscallNumbers[machine].init_module,
            image,
            image.length,
            parameters,
          ]),
        )
      let fd: number
      try {
        fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
      } catch (cause) {
        return Effect.fail(files.toKernelError("open", path, cause))
      }
      const flags = path.endsWith(".ko") ? 0 : abi.MODULE_INIT_COMPRESSED_FILE
      return offLoop({ syscall: "finit_module", ...about }, "syscall", [
        abi.syscallNumbers[machine].finit_module,
        fd,
        parameters,
        flags,
      ]).pipe(Effect.ensuring(Effect.sync(() => fs.closeSync(fd))))
    })

  /** An ioctl(2) of what `path` is, which may wait for a device. */
  const ioctl = (
    path: string,
    request: string,
    args: ErrorAbout["args"],
    code: number,
    argument: Uint8Array,
  ) =>
    Effect.suspend(() => {
      let fd: number
      try {
        fd = fs.openSync(path, fs.constants.O_RDONLY)
      } catch (cause) {
        return Effect.fail(files.toKernelError("open", path, cause))
      }
      return offLoop({ syscall: "ioctl", path, args: { request, ...args } }, "ioctl", [
        fd,
        code,
        argument,
      ]).pipe(
        Effect.ensuring(Effect.sync(() => fs.closeSync(fd))),
        // The call must be over before its file and buffer are gone.
        Effect.uninterruptible,
      )
    })

  const blkpg =
    (request: keyof typeof abi.blkpgOperations): KernelShape["addPartition"] =>
    (disk, { length, number, start }) =>
      Effect.suspend(() => {
        const partition = Buffer.alloc(abi.BLKPG_PARTITION_BYTES)
        partition.writeBigInt64LE(BigInt(start), 0)
        partition.writeBigInt64LE(BigInt(length), 8)
        partition.writeInt32LE(number, 16)
        const argument = Buffer.alloc(abi.BLKPG_ARG_BYTES)
        argument.writeInt32LE(abi.blkpgOperations[request], 0)
        argument.writeInt32LE(partition.length, 8)
        argument.writeBigUInt64LE(c.address(partition) ?? 0n, 16)
        return ioctl(disk, request, { number, start, length }, abi.BLKPG, argument).pipe(
          // Nothing but the kernel's pointer holds it while the call lasts.
          Effect.ensuring(Effect.sync(() => partition.fill(0))),
        )
      })

  /** Sets limits of this process; returns what sets them back. See getrlimit(2). */
  const limit = (limits: ResourceLimits): (() => void) => {
    const undo: Array<() => void> = []
    const set = (resource: number, soft: number | undefined) => {
      const own = Buffer.alloc(16)
      if (soft === undefined || c.call("getrlimit", resource, own).value === -1) return
      const wanted = Buffer.from(own)
      wanted.writeBigUInt64LE(BigInt(soft), 0)
      if (wanted.readBigUInt64LE(8) < BigInt(soft)) wanted.writeBigUInt64LE(BigInt(soft), 8)
      // Refused to who may not raise it; then the process has what init has.
      if (c.call("setrlimit", resource, wanted).value === -1) return
      undo.push(() => void c.call("setrlimit", resource, own))
    }
    set(abi.RLIMIT_NOFILE, limits.openFiles)
    set(abi.RLIMIT_CORE, limits.core)
    return () => {
      for (const back of undo) back()
    }
  }

  const children = processes.make(
    {
      waitid: () => {
        const info = Buffer.alloc(abi.SIGINFO_BYTES)
        const result = c.call("waitid", abi.P_ALL, 0, info, abi.WEXITED | abi.WNOHANG | abi.WNOWAIT)
        return result.value === -1
          ? { errno: result.errno, pid: 0 }
          : { errno: "", pid: info.readInt32LE(abi.SIGINFO_PID_OFFSET) }
      },
      waitpid: (pid) => c.call("waitpid", pid, null, abi.WNOHANG),
    },
    {
      limit,
      closeOnExec: () => void c.call("close_range", 3, abi.ALL_DESCRIPTORS, abi.CLOSE_RANGE_CLOEXEC),
    },
  )

  const openOutput: KernelShape["openOutput"] = (spec) =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        const ends = Buffer.alloc(8)
        const result = c.call("pipe2", ends, abi.O_CLOEXEC)
        return result.value === -1
          ? Effect.fail(new KernelError({ syscall: "pipe2", errno: result.errno }))
          : Effect.succeed(output.make(spec, ends.readInt32LE(0), ends.readInt32LE(4)))
      }),
      (open) => Effect.sync(open.close),
    )

  return Kernel.of({
    mount: (call) => {
      const { flags, fstype, options, source, target } = call
      const about = {
        path: target,
        args: {
          source,
          fstype,
          flags: flags.join("|") || "0",
          ...(options === undefined ? {} : { options }),
        },
      }
      const args = [source, target, fstype, flagBits(abi.mountFlags, flags), options ?? null] as const
      return call.inRam === true || ownFilesystems.has(fstype)
        ? Effect.asVoid(inPlace(about, "mount", ...args))
        : offLoop(about, "mount", args)
    },
    umount: (target, flags = []) =>
      offLoop({ path: target, args: { flags: flags.join("|") || "0" } }, "umount2", [
        target,
        flagBits(abi.umountFlags, flags),
      ]),
    chroot: (path) => Effect.asVoid(inPlace({ path }, "chroot", path)),
    chdir: (path) => files.attempt("chdir", path, () => process.chdir(path)),
    loadModule,
    setHostname: (name) =>
      Effect.asVoid(inPlace({ path: name }, "sethostname", cString(name), Buffer.byteLength(name))),
    linkUp,
    sync: Effect.ignore(offLoop({}, "sync", [])),
    reboot: (command) => Effect.asVoid(inPlace({ args: { command } }, "reboot", abi.rebootCommands[command])),
    releaseMemory: Effect.sync(memory.release(c)),
    setOpenFilesLimit: (limit) =>
      Effect.suspend(() => {
        const both = Buffer.alloc(16)
        both.writeBigUInt64LE(BigInt(limit), 0)
        both.writeBigUInt64LE(BigInt(limit), 8)
        return Effect.asVoid(
          inPlace({ args: { resource: "RLIMIT_NOFILE", limit } }, "setrlimit", abi.RLIMIT_NOFILE, both),
        )
      }),
    addPartition: blkpg("BLKPG_ADD_PARTITION"),
    resizePartition: blkpg("BLKPG_RESIZE_PARTITION"),
    resizeFilesystem: (target, blocks) =>
      Effect.suspend(() => {
        const argument = Buffer.alloc(8)
        argument.writeBigUInt64LE(BigInt(blocks))
        return ioctl(target, "EXT4_IOC_RESIZE_FS", { blocks }, abi.EXT4_IOC_RESIZE_FS, argument)
      }),
    openWatchdog: openWatchdog(c),
    watchInput: watchInput(c),
    ...children,
    openOutput,
    listen: listen(c),
    makeFifo: (path, mode = 0o600) => Effect.asVoid(inPlace({ path }, "mkfifo", path, mode)),
    onSignal: (signals, handler) =>
      Effect.acquireRelease(
        Effect.sync(() =>
          signals.map((signal) => {
            const listener = () => handler(signal)
            process.on(signal as NodeJS.Signals, listener)
            return [signal, listener] as const
          }),
        ),
        (listeners: ReadonlyArray<readonly [Signal, () => void]>) =>
          Effect.sync(() => {
            for (const [signal, listener] of listeners) process.off(signal, listener)
          }),
      ).pipe(Effect.asVoid),
    ...files.operations,
    watchDirectory,
    monotonic: Effect.sync(() => process.hrtime.bigint()),
  })
}

/**
 * The live kernel. Nothing native is touched before the first call.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
 *
 * const program = Effect.gen(function* () {
 *   const kernel = yield* Kernel
 *   return yield* kernel.readText("/proc/version")
 * }).pipe(Effect.provide(LinuxKernel.layer()))
 * ```
 */
export const layer = (options: LinuxKernelOptions = {}): Layer.Layer<Kernel> =>
  Layer.sync(Kernel, () => make(options))
