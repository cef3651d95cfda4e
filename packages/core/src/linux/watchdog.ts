/**
 * Watchdog timers of the live kernel: a character device that counts down from
 * the moment it is opened.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { KernelShape, Watchdog } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import * as abi from "./abi.ts"
import { attempt, toKernelError } from "./files.ts"
import type { Libc } from "./libc.ts"

// Written last, it says that the close that follows is meant.
const MAGIC_CLOSE = "V"

export const openWatchdog =
  (c: Libc): KernelShape["openWatchdog"] =>
  (path) =>
    Effect.suspend(() => {
      let fd: number
      try {
        fd = fs.openSync(path, fs.constants.O_WRONLY)
      } catch (cause) {
        return Effect.fail(toKernelError("open", path, cause))
      }
      const ioctl = (request: string, number: number, argument: Uint8Array) =>
        Effect.suspend(() => {
          const result = c.call("ioctl", fd, number, argument)
          return result.value === -1
            ? Effect.fail(new KernelError({ syscall: "ioctl", errno: result.errno, path, args: { request } }))
            : Effect.void
        })
      const disarm = attempt("write", path, () => {
        fs.writeSync(fd, MAGIC_CLOSE)
        fs.closeSync(fd)
      })
      return Effect.gen(function* () {
        const info = Buffer.alloc(abi.WATCHDOG_INFO_BYTES)
        const status = Buffer.alloc(4)
        // What does not answer is no watchdog: it is closed as it was found.
        yield* Effect.tapError(ioctl("WDIOC_GETSUPPORT", abi.WDIOC_GETSUPPORT, info), () =>
          attempt("close", path, () => fs.closeSync(fd)),
        )
        // Drivers that cannot tell leave it zero.
        yield* Effect.ignore(ioctl("WDIOC_GETBOOTSTATUS", abi.WDIOC_GETBOOTSTATUS, status))
        return {
          identity: info.toString("latin1", abi.WATCHDOG_IDENTITY_OFFSET).split("\0")[0] ?? "",
          resetThisMachine: (status.readUInt32LE() & abi.WDIOF_CARDRESET) !== 0,
          setTimeout: (seconds) =>
            Effect.suspend(() => {
              const value = Buffer.alloc(4)
              value.writeInt32LE(seconds)
              return Effect.map(ioctl("WDIOC_SETTIMEOUT", abi.WDIOC_SETTIMEOUT, value), () =>
                value.readInt32LE(),
              )
            }),
          feed: ioctl("WDIOC_KEEPALIVE", abi.WDIOC_KEEPALIVE, Buffer.alloc(4)),
          disarm,
        } satisfies Watchdog
      })
    })
