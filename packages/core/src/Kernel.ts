/**
 * The only door between kiOS and the kernel: every mount, module, process and
 * file operation of a stage goes through this service, so that a stage can be
 * run against an in-memory machine (`@kios/core/testing/TestMachine`) as it is
 * run against Linux (`@kios/core/linux/LinuxKernel`).
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { KernelError } from "./KernelError.ts"

/** Flags of mount(2), spelled as its manual page does. */
export type MountFlag =
  | "MS_RDONLY"
  | "MS_NOSUID"
  | "MS_NODEV"
  | "MS_NOEXEC"
  | "MS_NOATIME"
  | "MS_RELATIME"
  | "MS_REMOUNT"
  | "MS_BIND"
  | "MS_REC"
  | "MS_MOVE"
  | "MS_PRIVATE"
  | "MS_SLAVE"
  | "MS_SHARED"
  | "MS_UNBINDABLE"

/** Flags of umount2(2). */
export type UmountFlag = "MNT_FORCE" | "MNT_DETACH" | "MNT_EXPIRE" | "UMOUNT_NOFOLLOW"

/** One call of mount(2). `source` and `fstype` are `"none"` where the call ignores them. */
export interface MountCall {
  readonly source: string
  readonly target: string
  readonly fstype: string
  readonly flags: ReadonlyArray<MountFlag>
  /** The filesystem's own options, comma-separated (`mode=0755,size=64M`). */
  readonly options?: string
  /** All that it touches is in RAM (default: unknown). It is made at once then, and no worker is waited for. */
  readonly inRam?: boolean
}

/** Commands of reboot(2), without their `LINUX_REBOOT_CMD_` prefix. */
export type RebootCommand = "RESTART" | "HALT" | "POWER_OFF" | "CAD_OFF" | "CAD_ON"

/** Signals that kiOS sends or handles, as signal(7) spells them. */
export type Signal =
  | "SIGTERM"
  | "SIGKILL"
  | "SIGINT"
  | "SIGHUP"
  | "SIGQUIT"
  | "SIGABRT"
  | "SIGSTOP"
  | "SIGCONT"
  | "SIGUSR1"
  | "SIGUSR2"
  | "SIGPWR"
  | "SIGCHLD"

/** How a process ended: it returned a code, or a signal ended it. */
export type ExitStatus =
  | { readonly _tag: "Exited"; readonly code: number }
  | { readonly _tag: "Signaled"; readonly signal: string }

/** The kinds of file that stat(2) tells apart. */
export type FileKind = "file" | "directory" | "symlink" | "block" | "character" | "fifo" | "socket"

/** What kiOS wants to know of a file; see stat(2). */
export interface FileStat {
  readonly kind: FileKind
  /** Bytes. */
  readonly size: number
  /** Permission bits only (`0o755`). */
  readonly mode: number
}

/** What to start, and where it lives from its first instruction. */
export interface SpawnSpec {
  /** Absolute path of the executable; there is no PATH search in PID 1. */
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** The whole environment of the process: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  /** Directory of a cgroup v2 group that the process is born in. */
  readonly cgroup?: string
  /** /proc/PID/oom_score_adj, -1000 to 1000, from its first instruction on. */
  readonly oomScoreAdj?: number
  /** Limits that it has from its first instruction on; those that are not given are init's own. */
  readonly limits?: ResourceLimits
  /** Where stdout and stderr go (to {@link KernelShape.openOutput}); without it, nowhere. */
  readonly output?: ProcessOutput
}

/** Soft limits of a process; see getrlimit(2). The hard ones, up to which it may raise them, are init's. */
export interface ResourceLimits {
  /** RLIMIT_NOFILE. */
  readonly openFiles?: number
  /** RLIMIT_CORE in bytes. */
  readonly core?: number
}

/** Where the output of a process goes, in all its runs. */
export interface OutputSpec {
  /** Called with every line, without its newline, that is not dropped for coming too fast. Must not throw. */
  readonly onLine?: (line: string) => void
  /** File that the output is appended to; beyond `maxBytes` it is renamed to `PATH.1` and begun again. */
  readonly log?: { readonly path: string; readonly maxBytes: number }
  /** A FIFO that gets the output while somebody reads it; who comes late gets the last of the log first. */
  readonly fifo?: string
  /** Called when output was dropped, with how much; at most once in 10 seconds while it goes on. Must not throw. */
  readonly onDropped?: (bytes: number) => void
}

/** An open output; see {@link KernelShape.openOutput}. */
export interface ProcessOutput {
  /** Takes in at once what was written so far: for the last words of a process that has ended. */
  readonly flush: () => void
}

/** A process that this init started. */
export interface ChildProcess {
  readonly pid: number
  /** Waits for the end of the process; can be asked any number of times. */
  readonly exit: Effect.Effect<ExitStatus>
  /** Whether its status was collected, so that its pid may be another's by now. */
  readonly hasEnded: () => boolean
}

/** A dead child of PID 1 that has not been waited for, as waitid(2) with WNOWAIT shows it. */
export interface DeadChild {
  readonly pid: number
  /** Whether {@link Kernel.spawn} started it, so that its status belongs to a {@link ChildProcess}. */
  readonly supervised: boolean
}

/** Where a partition is on its disk, in bytes. */
export interface PartitionExtent {
  /** Its place in the table, from 1 on. */
  readonly number: number
  readonly start: number
  readonly length: number
}

/** A watchdog timer that was opened and so runs: it resets the machine unless it is fed in time. */
export interface Watchdog {
  /** What drives it, as the driver names itself. */
  readonly identity: string
  /** The driver says that this watchdog reset the machine before this boot (WDIOF_CARDRESET). */
  readonly resetThisMachine: boolean
  /** Sets its timeout, in whole seconds, feeds it, and gives the timeout that it has then: hardware rounds. */
  readonly setTimeout: (seconds: number) => Effect.Effect<number, KernelError>
  /** Begins its timeout anew. */
  readonly feed: Effect.Effect<void, KernelError>
  /** Stops it, unless the driver was told never to (`nowayout`), and closes it. */
  readonly disarm: Effect.Effect<void, KernelError>
}

/** Who connected to a unix socket, as the kernel knows it from connect(2) on: SO_PEERCRED, unix(7). */
export interface Peer {
  /** In init's own pid namespace; 0 when it has none there. */
  readonly pid: number
  /** In init's own user namespace. */
  readonly uid: number
  readonly gid: number
}

/** A connection that was accepted, until {@link ListenSpec.serve} ends. */
export interface Connection {
  readonly peer: Peer
  /**
   * Waits for the next bytes; undefined when the other end has closed. No more
   * than one read is ahead of who asks: an end that sends faster waits.
   */
  readonly receive: Effect.Effect<Uint8Array | undefined>
  /** Sends bytes and never waits: EAGAIN when the other end leaves too much unread, EPIPE when it is gone. */
  readonly send: (bytes: Uint8Array) => Effect.Effect<void, KernelError>
  /**
   * Sends bytes, and with them the writing end of a new pipe, of which init
   * keeps no copy: SCM_RIGHTS, unix(7). The scope closes the reading end.
   */
  readonly sendPipe: (bytes: Uint8Array) => Effect.Effect<HeldPipe, KernelError, Scope.Scope>
}

/** A pipe whose writing end somebody else was given. */
export interface HeldPipe {
  /** Waits until nobody has the writing end any more: closed, dropped, or its holder dead. Writing to it counts too. */
  readonly released: Effect.Effect<void>
}

/** A unix stream socket to listen on. */
export interface ListenSpec {
  /** Its directory must be there; the name is removed with the scope. */
  readonly path: string
  /** Permission bits (default `0o600`): who may not write to it cannot connect. */
  readonly mode?: number
  /** How many may be connected at a time; who comes then is closed at once. */
  readonly maxConnections: number
  /** What is done with each connection, in a fiber of its own; the connection is closed when it ends. */
  readonly serve: (connection: Connection) => Effect.Effect<void>
}

/** What an input device tells; struct input_event of include/uapi/linux/input.h, without its time. */
export interface InputEvent {
  /** EV_KEY is 1. */
  readonly type: number
  /** Of a key: KEY_POWER is 116. */
  readonly code: number
  /** Of a key: 1 pressed, 0 released, 2 repeated. */
  readonly value: number
}

/** The operations behind {@link Kernel}. */
export interface KernelShape {
  /**
   * mount(2). Runs off the event loop, because a device may be slow; in place where there is none: a filesystem of
   * the kernel's own (proc, tmpfs and their like), and what is said to be in RAM.
   */
  readonly mount: (call: MountCall) => Effect.Effect<void, KernelError>
  /** umount2(2). Runs off the event loop. */
  readonly umount: (target: string, flags?: ReadonlyArray<UmountFlag>) => Effect.Effect<void, KernelError>
  /** chroot(2) of the whole process. */
  readonly chroot: (path: string) => Effect.Effect<void, KernelError>
  /** chdir(2) of the whole process. */
  readonly chdir: (path: string) => Effect.Effect<void, KernelError>
  /**
   * finit_module(2) of a `.ko` file, or of one that the kernel decompresses itself (`.ko.xz` on Debian's); `.ko.zst`
   * and `.ko.gz` are decompressed here where it does not, and go in by init_module(2). Signatures count either way.
   * Runs off the event loop.
   */
  readonly loadModule: (path: string, parameters?: string) => Effect.Effect<void, KernelError>
  /** sethostname(2). */
  readonly setHostname: (name: string) => Effect.Effect<void, KernelError>
  /** Sets IFF_UP on a network interface; see netdevice(7). */
  readonly linkUp: (name: string) => Effect.Effect<void, KernelError>
  /** sync(2). Runs off the event loop. */
  readonly sync: Effect.Effect<void>
  /** reboot(2). Only returns for `CAD_*` or on failure. */
  readonly reboot: (command: RebootCommand) => Effect.Effect<void, KernelError>
  /**
   * Collects all garbage of this process and gives the memory that it has no use for back to the kernel
   * (malloc_trim(3)). Holds the event loop for some ten milliseconds, more where code is emulated.
   */
  readonly releaseMemory: Effect.Effect<void>
  /** Sets the soft and hard RLIMIT_NOFILE of this process, which its children inherit; see prlimit(2). */
  readonly setOpenFilesLimit: (limit: number) => Effect.Effect<void, KernelError>

  /**
   * Opens a watchdog, which starts it; see Documentation/watchdog/watchdog-api.rst of the kernel.
   * It stays open, and runs, until it is disarmed: what opened it may end, the machine is to be reset then.
   */
  readonly openWatchdog: (path: string) => Effect.Effect<Watchdog, KernelError>

  /** Starts a process; it leads a session of its own. */
  readonly spawn: (spec: SpawnSpec) => Effect.Effect<ChildProcess, KernelError>
  /**
   * Opens the pipe that processes write their output to, until the scope
   * closes; pipe2(2). Nobody who writes waits for a reader of the log or the
   * FIFO. A log that cannot be written loses lines and nothing else.
   */
  readonly openOutput: (spec: OutputSpec) => Effect.Effect<ProcessOutput, KernelError, Scope.Scope>
  /** kill(2). */
  readonly kill: (pid: number, signal: Signal) => Effect.Effect<void, KernelError>
  /** The next dead child, left in place (waitid(2) P_ALL, WEXITED|WNOHANG|WNOWAIT); undefined when there is none. */
  readonly peekDeadChild: Effect.Effect<DeadChild | undefined, KernelError>
  /** Takes an orphan's status so that it stops being a zombie (waitpid(2), WNOHANG). */
  readonly reap: (pid: number) => Effect.Effect<void, KernelError>
  /** Lets `handler` run for each of the signals until the scope closes. */
  readonly onSignal: (
    signals: ReadonlyArray<Signal>,
    handler: (signal: Signal) => void,
  ) => Effect.Effect<void, never, Scope.Scope>

  /** Listens on a unix socket until the scope closes, and with it every connection; socket(2), listen(2). */
  readonly listen: (spec: ListenSpec) => Effect.Effect<void, KernelError, Scope.Scope>

  /** The whole of a file as bytes. */
  readonly readFile: (path: string) => Effect.Effect<Uint8Array, KernelError>
  /** The whole of a file as UTF-8. */
  readonly readText: (path: string) => Effect.Effect<string, KernelError>
  /** `length` bytes from `position` on; fewer at the end of the file or device. */
  readonly readAt: (path: string, position: number, length: number) => Effect.Effect<Uint8Array, KernelError>
  /**
   * Writes all of the bytes from `position` on into a file or block device that exists, and returns when they are on
   * the disk (fdatasync(2)). Runs off the event loop.
   */
  readonly writeAt: (path: string, position: number, bytes: Uint8Array) => Effect.Effect<void, KernelError>
  /**
   * Gives the kernel a partition that it has not read from the disk's table itself: BLKPG_ADD_PARTITION
   * (include/uapi/linux/blkpg.h). Runs off the event loop.
   *
   * @param disk device of the whole disk (`/dev/vda`)
   */
  readonly addPartition: (disk: string, partition: PartitionExtent) => Effect.Effect<void, KernelError>
  /**
   * Changes the length of a partition that the kernel has, also while it is mounted: BLKPG_RESIZE_PARTITION
   * (include/uapi/linux/blkpg.h). The table on the disk stays as it is. Runs off the event loop.
   *
   * @param disk device of the whole disk (`/dev/vda`)
   */
  readonly resizePartition: (disk: string, partition: PartitionExtent) => Effect.Effect<void, KernelError>
  /**
   * Grows a mounted ext4 to that many of its own blocks: EXT4_IOC_RESIZE_FS (Documentation/filesystems/ext4).
   * Runs off the event loop: on a large disk it takes seconds.
   *
   * @param target where it is mounted
   */
  readonly resizeFilesystem: (target: string, blocks: number) => Effect.Effect<void, KernelError>
  /** Creates or truncates a file. The mode (default `0o644`) applies when it is created. */
  readonly writeFile: (
    path: string,
    content: string | Uint8Array,
    mode?: number,
  ) => Effect.Effect<void, KernelError>
  /** Writes once to a file that exists, as /proc, /sys and cgroup files want it: no truncation, no creation. */
  readonly writeControl: (path: string, value: string) => Effect.Effect<void, KernelError>
  /** Makes a directory and its parents (default mode `0o755`); one that exists is left as it is. */
  readonly makeDirectory: (path: string, mode?: number) => Effect.Effect<void, KernelError>
  /** Names in a directory, sorted. */
  readonly readDirectory: (path: string) => Effect.Effect<ReadonlyArray<string>, KernelError>
  /** lstat(2), or undefined when there is nothing at that path. */
  readonly stat: (path: string) => Effect.Effect<FileStat | undefined, KernelError>
  /** mkfifo(3); default mode `0o600`. */
  readonly makeFifo: (path: string, mode?: number) => Effect.Effect<void, KernelError>
  /** symlink(2). */
  readonly symlink: (target: string, path: string) => Effect.Effect<void, KernelError>
  /** readlink(2). */
  readonly readLink: (path: string) => Effect.Effect<string, KernelError>
  /** rename(2). */
  readonly rename: (from: string, to: string) => Effect.Effect<void, KernelError>
  /** unlink(2). */
  readonly unlink: (path: string) => Effect.Effect<void, KernelError>
  /**
   * Calls `onChange`, which must not throw, with the name of each entry of a directory that comes, goes, or is written
   * to, until the scope closes; inotify(7). What happens inside of directories in it is not told. One change may be
   * told more than once, and when the queue of the kernel overflows some are not told: look at what is there.
   */
  readonly watchDirectory: (
    path: string,
    onChange: (name: string) => void,
  ) => Effect.Effect<void, KernelError, Scope.Scope>

  /**
   * Hears an input device until the scope closes, or the device is gone; gives its name (EVIOCGNAME).
   * Waits for nothing: the kernel sends SIGIO when there is something to read (O_ASYNC; see fcntl(2)).
   *
   * @param path `/dev/input/event0`
   * @param onEvent must not throw
   */
  readonly watchInput: (
    path: string,
    onEvent: (event: InputEvent) => void,
  ) => Effect.Effect<string, KernelError, Scope.Scope>

  /** CLOCK_MONOTONIC in nanoseconds: on a machine that kiOS booted, the time since the kernel started. */
  readonly monotonic: Effect.Effect<bigint>
}

/**
 * The kernel, as a service.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 *
 * const mountTmp = Effect.gen(function* () {
 *   const kernel = yield* Kernel
 *   yield* kernel.makeDirectory("/tmp")
 *   yield* kernel.mount({
 *     source: "tmpfs",
 *     target: "/tmp",
 *     fstype: "tmpfs",
 *     flags: ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
 *     options: "mode=1777,size=64M",
 *   })
 * })
 * ```
 */
export class Kernel extends Context.Service<Kernel, KernelShape>()("kios/Kernel") {}
