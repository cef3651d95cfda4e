/**
 * Unix sockets as QEMU uses them: paths of limited length, servers that appear
 * a moment after the process was started.
 */
import { Data, Effect, type Scope } from "effect"
import * as net from "node:net"

/** `sun_path` holds 108 bytes with the terminating zero: unix(7). */
export const maxSocketPath = 107

/** Whether a path fits into a socket's address. */
export const fitsSocketPath = (path: string): boolean => Buffer.byteLength(path) <= maxSocketPath

/** Nobody answered at the path before the deadline. */
export class UnixSocketUnreachable extends Data.TaggedError("UnixSocketUnreachable")<{
  readonly path: string
  readonly detail: string
}> {}

/** How long to wait between two tries, ms. A local connect costs next to nothing. */
const retryMs = 20

const attempt = (path: string): Effect.Effect<net.Socket, UnixSocketUnreachable> =>
  Effect.callback((resume) => {
    const socket = net.connect({ path })
    const failed = (error: Error) => {
      socket.destroy()
      resume(Effect.fail(new UnixSocketUnreachable({ path, detail: error.message })))
    }
    socket.once("error", failed)
    socket.once("connect", () => {
      socket.off("error", failed)
      socket.on("error", () => {}) // until the owner adds its own
      resume(Effect.succeed(socket))
    })
    return Effect.sync(() => socket.destroy())
  })

/**
 * Connects, trying again until `timeoutMs` has passed; destroyed with the scope.
 * Fails with {@link UnixSocketUnreachable}, whose `detail` is the last try's.
 */
export const connectUnix = (
  path: string,
  timeoutMs: number,
): Effect.Effect<net.Socket, UnixSocketUnreachable, Scope.Scope> => {
  let last = "no try was made"
  const connected = attempt(path).pipe(
    Effect.tapError((error) =>
      Effect.sync(() => {
        last = error.detail
      }),
    ),
    Effect.tapError(() => Effect.sleep(retryMs)),
    Effect.eventually,
    Effect.timeoutOrElse({
      duration: timeoutMs,
      orElse: () => Effect.fail(new UnixSocketUnreachable({ path, detail: last })),
    }),
  )
  return Effect.acquireRelease(connected, (socket) => Effect.sync(() => socket.destroy()), {
    interruptible: true,
  })
}
