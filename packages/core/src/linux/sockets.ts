/**
 * Unix sockets of the live kernel: `node:net` listens and accepts, libc tells
 * who is at the other end and passes descriptors, for which Node has no call.
 *
 * unix(7), cmsg(3).
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as fs from "node:fs"
import type { Server, Socket } from "node:net"
import type { Connection, HeldPipe, KernelShape, Peer } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import * as abi from "./abi.ts"
import { toKernelError } from "./files.ts"
import type { CallResult, Libc } from "./libc.ts"

// What may wait in init for who does not read; the kernel's own buffer, some 200 KB, is before it.
const MAX_UNREAD = 64 * 1024
// What is read ahead of who asks.
const READ_AHEAD = 4096
// Connections that are served in one turn of the event loop: a crowd must not hold up everything else.
const AT_A_TIME = 16
// How long a connection that was closed may take to get what was sent last.
const LINGER_MS = 1000

const descriptorOf = (socket: Socket): number =>
  (socket as unknown as { readonly _handle?: { readonly fd?: number } | null })._handle?.fd ?? -1

const refused = (syscall: string, path: string, { errno }: CallResult) =>
  Effect.fail(new KernelError({ syscall, errno, path }))

const peerOf = (c: Libc, fd: number): Peer | undefined => {
  const value = Buffer.alloc(abi.UCRED_BYTES)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(value.length)
  const { value: result } = c.call("getsockopt", fd, abi.SOL_SOCKET, abi.SO_PEERCRED, value, length)
  return result === -1
    ? undefined
    : { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}

/** sendmsg(2) of bytes with one descriptor, without waiting. */
const sendDescriptor = (c: Libc, fd: number, bytes: Uint8Array, descriptor: number): CallResult => {
  // None of them from Node's pool: the kernel is told where they are.
  const data = Buffer.alloc(bytes.length)
  data.set(bytes)
  const vector = Buffer.alloc(abi.IOVEC_BYTES)
  vector.writeBigUInt64LE(c.address(data) ?? 0n, 0)
  vector.writeBigUInt64LE(BigInt(data.length), 8)
  const control = Buffer.alloc(abi.CMSG_ONE_DESCRIPTOR.space)
  control.writeBigUInt64LE(BigInt(abi.CMSG_ONE_DESCRIPTOR.length), 0)
  control.writeInt32LE(abi.SOL_SOCKET, 8)
  control.writeInt32LE(abi.SCM_RIGHTS, 12)
  control.writeInt32LE(descriptor, 16)
  const message = Buffer.alloc(abi.MSGHDR_BYTES)
  message.writeBigUInt64LE(c.address(vector) ?? 0n, 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(c.address(control) ?? 0n, 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  const sent = c.call("sendmsg", fd, message, abi.MSG_NOSIGNAL | abi.MSG_DONTWAIT)
  // Only the kernel's pointers held them while the call lasted.
  for (const buffer of [data, vector, control]) buffer.fill(0)
  return sent.value !== -1 && sent.value < bytes.length ? { value: -1, errno: "EAGAIN" } : sent
}

/** Waits for the end of a pipe that nobody is to write to; takes its descriptor. */
const heldPipe = (reading: number): HeldPipe & { readonly close: () => void } => {
  const { Socket } = process.getBuiltinModule("node:net")
  const waiting = new Set<() => void>()
  const pipe = new Socket({ fd: reading, readable: true, writable: false })
  let over = false
  const close = () => {
    over = true
    pipe.destroy()
    for (const tell of waiting) tell()
    waiting.clear()
  }
  for (const event of ["data", "error", "close"]) pipe.on(event, close)
  pipe.unref()
  pipe.resume()
  const released = Effect.callback<void>((resume) => {
    if (over) return resume(Effect.void)
    const tell = () => resume(Effect.void)
    waiting.add(tell)
    return Effect.sync(() => void waiting.delete(tell))
  })
  return { released, close }
}

/** Does things in their order, and few in one turn of the event loop. */
const inTurns = () => {
  const waiting: Array<() => void> = []
  const some = () => {
    for (const one of waiting.splice(0, AT_A_TIME)) one()
    if (waiting.length > 0) setImmediate(some)
  }
  return (one: () => void): void => {
    if (waiting.push(one) === 1) setImmediate(some)
  }
}

const connectionOf = (
  c: Libc,
  path: string,
  socket: Socket,
  peer: Peer,
  inTurn: (one: () => void) => void,
): Connection => {
  const chunks: Array<Uint8Array> = []
  let over = false
  let wake: (() => void) | undefined
  const wakeInTurn = () => inTurn(() => wake?.())
  socket.on("data", (chunk: Buffer) => {
    socket.pause()
    chunks.push(chunk)
    wakeInTurn()
  })
  socket.on("close", () => {
    over = true
    wakeInTurn()
  })
  const unsendable = (length: number) =>
    over || !socket.writable ? "EPIPE" : socket.writableLength + length > MAX_UNREAD ? "EAGAIN" : undefined
  return {
    peer,
    receive: Effect.callback<Uint8Array | undefined>((resume) => {
      const tell = (): boolean => {
        const chunk = chunks.shift()
        if (chunk === undefined && !over) return false
        wake = undefined
        resume(Effect.succeed(chunk))
        return true
      }
      if (tell()) return
      wake = tell
      socket.resume()
      return Effect.sync(() => {
        wake = undefined
        socket.pause()
      })
    }),
    send: (bytes) =>
      Effect.suspend(() => {
        const errno = unsendable(bytes.length)
        if (errno !== undefined) return refused("write", path, { value: -1, errno })
        socket.write(bytes)
        return Effect.void
      }),
    sendPipe: (bytes) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const ends = Buffer.alloc(8)
          // What waits in init has to go first.
          const errno = socket.writableLength > 0 ? "EAGAIN" : unsendable(bytes.length)
          if (errno !== undefined) return refused("sendmsg", path, { value: -1, errno })
          const made = c.call("pipe2", ends, abi.O_CLOEXEC)
          if (made.value === -1) return refused("pipe2", path, made)
          const [reading, writing] = [ends.readInt32LE(0), ends.readInt32LE(4)]
          const sent = sendDescriptor(c, descriptorOf(socket), bytes, writing)
          c.call("close", writing)
          if (sent.value !== -1) return Effect.succeed(heldPipe(reading))
          c.call("close", reading)
          return refused("sendmsg", path, sent)
        }),
        (pipe) => Effect.sync(pipe.close),
      ),
  }
}

/** Closes a connection, when what was sent last has gone, or has had its time. */
const closeSoon = (socket: Socket): void => {
  if (socket.destroyed) return
  if (socket.writableLength === 0) return void socket.destroy()
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once("close", () => clearTimeout(timer))
  socket.end()
}

const bind = (server: Server, path: string, mode: number): Effect.Effect<void, KernelError> =>
  Effect.callback<void, KernelError>((resume) => {
    server.once("error", (cause) => resume(Effect.fail(toKernelError("listen", path, cause))))
    server.listen(path, () => {
      try {
        // Until now nobody but root could write to it, by init's umask.
        fs.chmodSync(path, mode)
        resume(Effect.void)
      } catch (cause) {
        server.close()
        resume(Effect.fail(toKernelError("chmod", path, cause)))
      }
    })
  })

export const listen =
  (c: Libc): KernelShape["listen"] =>
  ({ maxConnections, mode = 0o600, path, serve }) =>
    Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      const { createServer } = process.getBuiltinModule("node:net")
      const open = new Map<Socket, Fiber.Fiber<void> | undefined>()
      const inTurn = inTurns()

      const begin = (socket: Socket) => {
        const peer = peerOf(c, descriptorOf(socket))
        if (peer === undefined) return void socket.destroy()
        const serving = Effect.suspend(() => serve(connectionOf(c, path, socket, peer, inTurn))).pipe(
          Effect.catchCauseIf(
            (cause) => !Cause.hasInterruptsOnly(cause),
            (cause) => Effect.logWarning(`serving ${path}: ${Cause.pretty(cause)}`),
          ),
          Effect.ensuring(Effect.sync(() => closeSoon(socket))),
        )
        if (open.has(socket)) open.set(socket, Effect.runForkWith(context)(serving))
      }
      const server = createServer({ pauseOnConnect: true, highWaterMark: READ_AHEAD }, (socket) => {
        // Reset by the other end: its close follows.
        socket.on("error", () => {})
        if (open.size >= maxConnections) return void socket.destroy()
        open.set(socket, undefined)
        socket.once("close", () => open.delete(socket))
        inTurn(() => begin(socket))
      })

      yield* Effect.acquireRelease(bind(server, path, mode), () =>
        Effect.suspend(() => {
          server.close()
          const fibers = [...open.values()].filter((fiber) => fiber !== undefined)
          for (const socket of open.keys()) socket.destroy()
          return Fiber.interruptAll(fibers)
        }),
      )
      // Such as EMFILE at accept(2): libuv closes that connection, and goes on.
      server.on("error", () => {})
    })
