/**
 * Unix sockets of an in-memory machine: init listens and a test connects, as
 * whoever it likes.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Connection, HeldPipe, KernelShape, Peer } from "../Kernel.ts"
import { type Operate, quote } from "./TestFileOperations.ts"
import { type Directory, Errno, refuse, SpecialFile } from "./TestFiles.ts"
import type { MountTable } from "./TestMounts.ts"

// What the other end may leave unread, on Linux as much in the kernel and in init together.
const MAX_UNREAD = 256 * 1024

/** The writing end of a pipe that init has sent. */
export interface SentPipe {
  /** Closes it, or its holder dies. */
  readonly close: () => void
}

/** A connection as its client has it. */
export interface TestConnection {
  readonly send: (bytes: Uint8Array | string) => void
  /** What init has sent and was not taken yet. */
  readonly take: () => Uint8Array
  /** The pipes that came with what was taken. They are there when the connection is closed, too. */
  readonly pipes: ReadonlyArray<SentPipe>
  /** Whether init has closed it. */
  readonly closed: () => boolean
  readonly close: () => void
}

/** Waits for something that happens once. */
const once = () => {
  const waiting = new Set<() => void>()
  let over = false
  return {
    over: () => over,
    tell: () => {
      over = true
      for (const tell of waiting) tell()
      waiting.clear()
    },
    wait: Effect.callback<void>((resume) => {
      if (over) return resume(Effect.void)
      const tell = () => resume(Effect.void)
      waiting.add(tell)
      return Effect.sync(() => void waiting.delete(tell))
    }),
  }
}

/** Both ends of a connection. */
const connect = (operate: Operate, path: string, peer: Peer) => {
  const sent: Array<Uint8Array> = []
  const unread: Array<Uint8Array> = []
  const pipes: Array<SentPipe> = []
  // Those that were not received yet.
  let onTheirWay: Array<SentPipe> = []
  const init = once()
  const client = once()
  let wake: (() => void) | undefined
  const size = () => unread.reduce((total, { length }) => total + length, 0)
  const assertTakes = (length: number) => {
    if (client.over() || init.over()) refuse("EPIPE")
    if (size() + length > MAX_UNREAD) refuse("EAGAIN")
  }
  const connection: Connection = {
    peer,
    receive: Effect.callback<Uint8Array | undefined>((resume) => {
      const tell = (): boolean => {
        const chunk = sent.shift()
        if (chunk === undefined && !client.over() && !init.over()) return false
        wake = undefined
        resume(Effect.succeed(chunk))
        return true
      }
      if (tell()) return
      wake = tell
      return Effect.sync(() => {
        wake = undefined
      })
    }),
    send: (bytes) =>
      operate("send", "write", `write(${quote(path)}, <${bytes.length} bytes>)`, { path }, () => {
        assertTakes(bytes.length)
        unread.push(Uint8Array.from(bytes))
      }),
    sendPipe: (bytes) =>
      Effect.acquireRelease(
        operate("sendPipe", "sendmsg", `sendmsg(${quote(path)}, SCM_RIGHTS)`, { path }, () => {
          assertTakes(bytes.length)
          unread.push(Uint8Array.from(bytes))
          const pipe = once()
          onTheirWay.push({ close: pipe.tell })
          return pipe
        }),
        (pipe) => Effect.sync(pipe.tell),
      ).pipe(Effect.map((pipe): HeldPipe => ({ released: pipe.wait }))),
  }
  const outside: TestConnection = {
    send: (bytes) => {
      sent.push(typeof bytes === "string" ? Buffer.from(bytes) : bytes)
      wake?.()
    },
    take: () => {
      pipes.push(...onTheirWay)
      onTheirWay = []
      return Buffer.concat(unread.splice(0))
    },
    pipes,
    closed: init.over,
    close: () => {
      client.tell()
      for (const pipe of onTheirWay) pipe.close()
      wake?.()
    },
  }
  const close = () => {
    init.tell()
    wake?.()
  }
  return { connection, outside, close }
}

interface Listener {
  readonly connect: (peer: Peer) => TestConnection
}

/** The sockets of a machine. */
export class Sockets {
  readonly #table: MountTable
  readonly #listeners = new Map<unknown, Listener>()
  constructor(table: MountTable) {
    this.#table = table
  }

  /** Connects; throws what connect(2) refuses. */
  connect(path: string, peer: Peer): TestConnection {
    const { inode } = this.#table.find(path)
    return (this.#listeners.get(inode) ?? refuse("ECONNREFUSED", "connect")).connect(peer)
  }

  listen(operate: Operate): KernelShape["listen"] {
    return ({ maxConnections, mode = 0o600, path, serve }) =>
      Effect.gen({ self: this }, function* () {
        const context = yield* Effect.context<never>()
        const open = new Map<object, { readonly close: () => void; fiber?: Fiber.Fiber<void> }>()
        const listener: Listener = {
          connect: (peer) => {
            const ends = connect(operate, path, peer)
            if (open.size >= maxConnections) {
              ends.close()
              return ends.outside
            }
            const entry: { readonly close: () => void; fiber?: Fiber.Fiber<void> } = { close: ends.close }
            open.set(ends, entry)
            entry.fiber = Effect.runForkWith(context)(
              Effect.suspend(() => serve(ends.connection)).pipe(
                Effect.catchCauseIf(
                  (cause) => !Cause.hasInterruptsOnly(cause),
                  (cause) => Effect.logWarning(`serving ${path}: ${Cause.pretty(cause)}`),
                ),
                Effect.ensuring(
                  Effect.sync(() => {
                    open.delete(ends)
                    ends.close()
                  }),
                ),
              ),
            )
            return ends.outside
          },
        }
        const socket = new SpecialFile("socket", undefined, mode)
        const bind = operate(
          "listen",
          "listen",
          `listen(${quote(path)}, 0${mode.toString(8)})`,
          { path },
          () => {
            const directory = this.#bind(path, socket)
            this.#listeners.set(socket, listener)
            return directory
          },
        )
        yield* Effect.acquireRelease(bind, (directory) =>
          Effect.suspend(() => {
            this.#listeners.delete(socket)
            if (directory.lookup(socket.name) === socket) directory.remove(socket.name)
            const fibers = [...open.values()].flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
            return Fiber.interruptAll(fibers)
          }),
        )
      })
  }

  #bind(path: string, socket: SpecialFile): Directory {
    try {
      const { found, name, parent } = this.#table.walk(path, false)
      if (found !== undefined) return refuse("EADDRINUSE")
      this.#table.assertWritable(parent)
      const directory = parent.inode as Directory
      directory.create(name, socket)
      return directory
    } catch (cause) {
      // As libuv has it.
      if (cause instanceof Errno && cause.code === "ENOENT") return refuse("EACCES")
      throw cause
    }
  }
}
