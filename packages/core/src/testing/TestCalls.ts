/**
 * The calls that an in-memory machine was asked for, in order; errors to
 * inject; and what differs from what a test expected, line by line.
 */
// Operations of the Kernel door, with the system calls that each can fail in; the last is what it is about.
const syscalls = {
  mount: ["mount"],
  umount: ["umount2"],
  chroot: ["chroot"],
  chdir: ["chdir"],
  loadModule: ["open", "init_module", "finit_module"],
  setHostname: ["sethostname"],
  linkUp: ["socket", "ioctl"],
  sync: ["sync"],
  releaseMemory: ["malloc_trim"],
  reboot: ["reboot"],
  setOpenFilesLimit: ["setrlimit"],
  openWatchdog: ["open", "ioctl"],
  setWatchdogTimeout: ["ioctl"],
  feedWatchdog: ["ioctl"],
  disarmWatchdog: ["write"],
  spawn: ["spawn"],
  openOutput: ["pipe2"],
  listen: ["listen", "chmod"],
  send: ["write"],
  sendPipe: ["pipe2", "sendmsg"],
  kill: ["kill"],
  peekDeadChild: ["waitid"],
  reap: ["waitpid"],
  readFile: ["open", "read"],
  readText: ["open", "read"],
  readAt: ["open", "read"],
  writeAt: ["open", "write"],
  addPartition: ["open", "ioctl"],
  resizePartition: ["open", "ioctl"],
  resizeFilesystem: ["open", "ioctl"],
  writeFile: ["open", "write"],
  writeControl: ["open", "write"],
  makeDirectory: ["mkdir"],
  readDirectory: ["scandir"],
  stat: ["lstat"],
  makeFifo: ["mkfifo"],
  symlink: ["symlink"],
  readLink: ["readlink"],
  rename: ["rename"],
  unlink: ["unlink"],
  watchDirectory: ["inotify_add_watch"],
  watchInput: ["open", "ioctl"],
} as const

/** An operation of the Kernel door. */
export type Operation = keyof typeof syscalls
/** A system call behind an operation. */
export type Syscall = (typeof syscalls)[Operation][number]

/** Operations that change nothing. */
export const reads: ReadonlySet<Operation> = new Set([
  "peekDeadChild",
  "readFile",
  "readText",
  "readAt",
  "readDirectory",
  "stat",
  "readLink",
  "watchInput",
  "watchDirectory",
] satisfies ReadonlyArray<Operation>)

/** One call. */
export interface Call {
  readonly operation: Operation
  /** As strace(1) would print it: `mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID, "mode=1777")`. */
  readonly text: string
  /** What it was about. */
  readonly path: string | undefined
  /** Errno's name when it failed. */
  errno: string | undefined
}

interface Injection {
  readonly what: Operation | Syscall
  readonly errno: string
  readonly path: string | RegExp | undefined
  /** Matching calls to let pass before the first failure. */
  skip: number
  /** Failures left. */
  left: number
}

// What opening a file fails with, as opposed to reading or writing it.
const openErrnos = new Set([
  "EACCES",
  "EISDIR",
  "ELOOP",
  "EMFILE",
  "ENAMETOOLONG",
  "ENFILE",
  "ENOENT",
  "ENOTDIR",
  "EROFS",
  "ENXIO",
])

/** The line of a call, with its errno when it failed. */
export const lineOf = (call: Call): string =>
  call.errno === undefined ? call.text : `${call.text} = ${call.errno}`

export class CallLog {
  readonly calls: Array<Call> = []
  readonly #injections: Array<Injection> = []

  inject(injection: Injection): void {
    this.#injections.push(injection)
  }

  /** Records a call and gives the error that a test wants it to fail with, if any. */
  begin(
    operation: Operation,
    text: string,
    path: string | undefined,
  ): {
    readonly call: Call
    readonly injected: { readonly syscall: string; readonly errno: string } | undefined
  } {
    const call: Call = { operation, text, path, errno: undefined }
    this.calls.push(call)
    const names: ReadonlyArray<string> = syscalls[operation]
    for (const injection of this.#injections) {
      if (injection.what !== operation && !names.includes(injection.what)) continue
      if (injection.path !== undefined) {
        const fits =
          typeof injection.path === "string" ? injection.path === path : injection.path.test(path ?? "")
        if (!fits) continue
      }
      if (injection.skip-- > 0 || injection.left <= 0) continue
      injection.left--
      const syscall = names.includes(injection.what)
        ? injection.what
        : ((openErrnos.has(injection.errno) ? names[0] : names.at(-1)) ?? operation)
      call.errno = injection.errno
      return { call, injected: { syscall, errno: injection.errno } }
    }
    return { call, injected: undefined }
  }
}

/** Longest common subsequence of two lists of lines, as what to keep, drop and add. */
const difference = (
  expected: ReadonlyArray<string>,
  actual: ReadonlyArray<string>,
): ReadonlyArray<string> => {
  const width = actual.length + 1
  const lengths = new Uint32Array((expected.length + 1) * width)
  const at = (i: number, j: number) => lengths[i * width + j] ?? 0
  for (let i = expected.length - 1; i >= 0; i--)
    for (let j = actual.length - 1; j >= 0; j--)
      lengths[i * width + j] =
        expected[i] === actual[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  const lines: Array<string> = []
  let i = 0
  let j = 0
  while (i < expected.length || j < actual.length) {
    if (i < expected.length && j < actual.length && expected[i] === actual[j]) {
      lines.push(`  ${expected[i++]}`)
      j++
    } else if (i < expected.length && (j === actual.length || at(i + 1, j) >= at(i, j + 1)))
      lines.push(`- ${expected[i++]}`)
    else lines.push(`+ ${actual[j++]}`)
  }
  return lines
}

/** Fails with a diff of lines when two lists differ. */
export const assertLines = (
  what: string,
  expected: ReadonlyArray<string>,
  actual: ReadonlyArray<string>,
): void => {
  if (expected.length === actual.length && expected.every((line, index) => line === actual[index])) return
  throw new Error(`${what} differ (- expected, + actual):\n${difference(expected, actual).join("\n")}`)
}
