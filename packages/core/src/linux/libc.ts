/**
 * libc by koffi. The addon is loaded and a function bound when it is first
 * called: in a V8 start-up snapshot nothing native may exist before main.
 */
import * as os from "node:os"

interface Koffi {
  readonly load: (path: string | null) => Library
  readonly errno: () => number
  readonly address: (bytes: Uint8Array) => bigint
}

interface Library {
  readonly func: (prototype: string) => NativeFunction
}

type Argument = string | number | bigint | Uint8Array | null

interface NativeFunction {
  (...args: ReadonlyArray<Argument>): number
  readonly async: (...args: ReadonlyArray<unknown>) => void
}

// Prototypes as the manual pages give them, except that syscall(2), which is
// variadic in C, is declared with fixed arguments: koffi's asynchronous calls
// take no variadic functions, and on both machines the registers are the same.
const prototypes = {
  mount:
    "int mount(const char *source, const char *target, const char *fstype, unsigned long flags, const char *data)",
  umount2: "int umount2(const char *target, int flags)",
  chroot: "int chroot(const char *path)",
  sethostname: "int sethostname(const char *name, size_t len)",
  reboot: "int reboot(int cmd)",
  sync: "void sync()",
  waitid: "int waitid(int idtype, unsigned int id, void *info, int options)",
  waitpid: "int waitpid(int pid, void *status, int options)",
  socket: "int socket(int domain, int type, int protocol)",
  close: "int close(int fd)",
  fcntl: "int fcntl(int fd, int cmd, long argument)",
  ioctl: "int ioctl(int fd, unsigned long request, void *argument)",
  setrlimit: "int setrlimit(int resource, const void *limit)",
  // syscall(2) too, with the registers of init_module(2).
  init_module: "long syscall(long number, const void *image, long length, const char *parameters)",
  getrlimit: "int getrlimit(int resource, void *limit)",
  close_range: "int close_range(unsigned int first, unsigned int last, int flags)",
  pipe2: "int pipe2(void *fds, int flags)",
  getsockopt: "int getsockopt(int fd, int level, int option, void *value, void *length)",
  sendmsg: "long sendmsg(int fd, const void *message, int flags)",
  mkfifo: "int mkfifo(const char *path, unsigned int mode)",
  malloc_trim: "int malloc_trim(size_t pad)",
  syscall: "long syscall(long number, long fd, const char *parameters, long flags)",
} as const

export type LibcFunction = keyof typeof prototypes

/** The result of a call: what it returned, and errno's name if that was -1. */
export interface CallResult {
  readonly value: number
  readonly errno: string
}

/** Where the koffi addon is: on a node beside the libraries, on a developer's machine in its npm package. */
export interface LibcOptions {
  readonly koffiPath?: string
}

export interface Libc {
  /** Calls on this thread. For calls that cannot block. */
  readonly call: (name: LibcFunction, ...args: ReadonlyArray<Argument>) => CallResult
  /** Calls on a thread of libuv's pool. For calls that may block. */
  readonly callAsync: (
    name: LibcFunction,
    args: ReadonlyArray<Argument>,
    done: (result: CallResult) => void,
  ) => void
  /** Where bytes are in memory, for a structure that points at them; undefined when the addon is missing. */
  readonly address: (bytes: Uint8Array) => bigint | undefined
}

// Names that Node's table does not have, or has another one for (include/uapi/asm-generic/errno.h).
const more: ReadonlyArray<readonly [number, string]> = [
  [11, "EAGAIN"],
  [15, "ENOTBLK"],
  [95, "EOPNOTSUPP"],
  [108, "ESHUTDOWN"],
  [117, "EUCLEAN"],
  [123, "ENOMEDIUM"],
  [124, "EMEDIUMTYPE"],
  [126, "ENOKEY"],
  [127, "EKEYEXPIRED"],
  [128, "EKEYREVOKED"],
  [129, "EKEYREJECTED"],
]

let names: Map<number, string> | undefined
/** errno(3)'s name for a number. */
export const errnoName = (errno: number): string => {
  names ??= new Map([
    ...Object.entries(os.constants.errno).map(([name, value]) => [value, name] as const),
    ...more,
  ])
  return names.get(errno) ?? `E${errno}`
}

const loadKoffi = (options: LibcOptions): Koffi => {
  if (options.koffiPath !== undefined) {
    const module = { exports: {} }
    process.dlopen(module, options.koffiPath)
    return module.exports as Koffi
  }
  const { createRequire } = process.getBuiltinModule("node:module")
  return createRequire(import.meta.url)("koffi") as Koffi
}

/**
 * Opens libc. Nothing happens before the first call.
 *
 * Calls give ELIBACC when the addon is missing or built for another machine.
 */
export const make = (options: LibcOptions): Libc => {
  const noAddon: CallResult = { value: -1, errno: "ELIBACC" }
  let opened: { readonly koffi: Koffi; readonly library: Library } | undefined
  const functions = new Map<LibcFunction, NativeFunction>()
  const open = () => {
    if (opened === undefined) {
      const koffi = loadKoffi(options)
      opened = { koffi, library: koffi.load(null) }
    }
    return opened
  }
  const bind = (name: LibcFunction): NativeFunction => {
    let native = functions.get(name)
    if (native === undefined) {
      native = open().library.func(prototypes[name])
      functions.set(name, native)
    }
    return native
  }
  // An addon that is missing or damaged is an error like any other: PID 1 must be able to tell it.
  const bound = (name: LibcFunction): NativeFunction | undefined => {
    try {
      return bind(name)
    } catch {
      return undefined
    }
  }
  return {
    call: (name, ...args) => {
      const native = bound(name)
      if (native === undefined) return noAddon
      const value = native(...args)
      return { value, errno: value === -1 ? errnoName(open().koffi.errno()) : "" }
    },
    callAsync: (name, args, done) => {
      const native = bound(name)
      if (native === undefined) return done(noAddon)
      native.async(...args, (error: Error | null, value: number) => {
        if (error !== null) return done({ value: -1, errno: "EIO" })
        done({ value, errno: value === -1 ? errnoName(open().koffi.errno()) : "" })
      })
    },
    address: (bytes) => (bound("ioctl") === undefined ? undefined : open().koffi.address(bytes)),
  }
}
