/**
 * Input devices of the live kernel: evdev, read when SIGIO says that there is
 * something to read. A thread that waits in read(2) could not be stopped, and
 * libuv's poll is not open to programs; a signal costs nothing while nobody
 * presses a key. Documentation/input/input.rst of the kernel, fcntl(2).
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { InputEvent, KernelShape } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import * as abi from "./abi.ts"
import { toKernelError } from "./files.ts"
import type { Libc } from "./libc.ts"

/** Takes in what there is to read; false when there will never be more. */
type Drain = () => boolean

const hearing = new Set<Drain>()
let handled = false
// A signal is process-wide: whoever has nothing to read is asked in vain.
const onSignal = () => {
  for (const drain of hearing) if (!drain()) hearing.delete(drain)
}

/** Hears a descriptor that is non-blocking; returns what ends it, without closing it. */
export const hear = (c: Libc, fd: number, onEvent: (event: InputEvent) => void): (() => void) => {
  const buffer = Buffer.alloc(64 * abi.INPUT_EVENT_BYTES)
  const drain: Drain = () => {
    try {
      for (;;) {
        const read = fs.readSync(fd, buffer)
        if (read === 0) return true
        for (let at = 0; at + abi.INPUT_EVENT_BYTES <= read; at += abi.INPUT_EVENT_BYTES)
          onEvent({
            type: buffer.readUInt16LE(at + abi.INPUT_EVENT_TYPE_OFFSET),
            code: buffer.readUInt16LE(at + abi.INPUT_EVENT_TYPE_OFFSET + 2),
            value: buffer.readInt32LE(at + abi.INPUT_EVENT_TYPE_OFFSET + 4),
          })
      }
    } catch (cause) {
      return (cause as NodeJS.ErrnoException).code === "EAGAIN"
    }
  }
  // For good: a signal that is under way when the last one stops hearing must find a handler, or it ends the process.
  if (!handled) process.on("SIGIO", onSignal)
  handled = true
  hearing.add(drain)
  c.call("fcntl", fd, abi.F_SETOWN, process.pid)
  c.call("fcntl", fd, abi.F_SETFL, abi.O_ASYNC | fs.constants.O_NONBLOCK)
  // What came before it was asked for.
  if (!drain()) hearing.delete(drain)
  return () => {
    hearing.delete(drain)
    c.call("fcntl", fd, abi.F_SETFL, fs.constants.O_NONBLOCK)
  }
}

export const watchInput =
  (c: Libc): KernelShape["watchInput"] =>
  (path, onEvent) =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        let fd: number
        try {
          fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
        } catch (cause) {
          return Effect.fail(toKernelError("open", path, cause))
        }
        const name = Buffer.alloc(abi.INPUT_NAME_BYTES)
        const result = c.call("ioctl", fd, abi.EVIOCGNAME, name)
        if (result.value === -1) {
          fs.closeSync(fd)
          return Effect.fail(
            new KernelError({ syscall: "ioctl", errno: result.errno, path, args: { request: "EVIOCGNAME" } }),
          )
        }
        return Effect.succeed({
          fd,
          name: name.toString("utf8").split("\0")[0] ?? "",
          end: hear(c, fd, onEvent),
        })
      }),
      ({ end, fd }) =>
        Effect.sync(() => {
          end()
          fs.closeSync(fd)
        }),
    ).pipe(Effect.map(({ name }) => name))
