// A client of a unix socket that is not init: what a case connects with.
import { Effect } from "effect"
import * as net from "node:net"
import type { TestMachine } from "@kios/core/testing/TestMachine"

export interface Client {
  readonly send: (text: string) => Effect.Effect<void>
  /** Waits for that many bytes, or for the end; text. */
  readonly receive: (length: number) => Effect.Effect<string>
  /** Waits until init has closed the connection, and what it sent was received. */
  readonly closed: Effect.Effect<void>
  /** Takes nothing any more; what comes stays where it is. */
  readonly close: Effect.Effect<void>
}

const polled = <A>(look: () => A | undefined): Effect.Effect<A> =>
  Effect.suspend(() => {
    const found = look()
    return found === undefined
      ? Effect.andThen(Effect.sleep("1 millis"), polled(look))
      : Effect.succeed(found)
  })

/** By Node, which reads a connection only while somebody waits for it, and drops descriptors that it gets. */
export const connectByNode = (path: string): Effect.Effect<Client, Error> =>
  Effect.callback<Client, Error>((resume) => {
    const socket = net.connect(path)
    let text = ""
    let over = false
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.on("close", () => {
      over = true
    })
    socket.once("connect", () => {
      socket.pause()
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1")
      })
      socket.pause()
      const reading = <A>(look: () => A | undefined) =>
        Effect.suspend(() => {
          socket.resume()
          return Effect.map(polled(look), (found) => {
            socket.pause()
            return found
          })
        })
      resume(
        Effect.succeed({
          send: (bytes) => Effect.sync(() => void socket.write(bytes, "latin1")),
          receive: (length) =>
            reading(() => {
              if (text.length < length && !over) return undefined
              const taken = text.slice(0, length)
              text = text.slice(length)
              return taken
            }),
          closed: reading(() => (over ? true : undefined)).pipe(Effect.asVoid),
          close: Effect.sync(() => void socket.destroy()),
        }),
      )
    })
  })

/** To a machine in memory, as `peer`. Takes the pipes that it gets with the bytes, and drops them, as Node does. */
export const connectInMemory = (machine: TestMachine, path: string): Effect.Effect<Client, Error> =>
  Effect.try({
    try: () => {
      const connection = machine.connect(path)
      let text = ""
      const take = () => {
        text += Buffer.from(connection.take()).toString("latin1")
        for (const pipe of connection.pipes) pipe.close()
      }
      return {
        send: (bytes) => Effect.sync(() => connection.send(Buffer.from(bytes, "latin1"))),
        receive: (length) =>
          polled(() => {
            take()
            if (text.length < length && !connection.closed()) return undefined
            const taken = text.slice(0, length)
            text = text.slice(length)
            return taken
          }),
        closed: Effect.asVoid(
          polled(() => {
            take()
            return connection.closed() ? true : undefined
          }),
        ),
        close: Effect.sync(connection.close),
      } satisfies Client
    },
    catch: (cause) => cause as Error,
  })
