/**
 * Sends a file over containerd's streaming transport (see `Streaming.ts` for the protocol), holding one
 * chunk in memory at a time and never sending more than the receiver granted.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { GrpcCall } from "./GrpcCall.ts"
import { GrpcError } from "./GrpcStatus.ts"
import * as Streaming from "./Streaming.ts"

/** The file could not be read; `reason` is for people. */
export class FileUnreadable extends Data.TaggedError("FileUnreadable")<{
  readonly path: string
  readonly reason: string
}> {}

/** A file opened for reading. */
export interface OpenFile {
  readonly size: number
  /** Fills `into` as far as it can from `position` on and gives the number of bytes, 0 at the end. */
  readonly read: (into: Uint8Array, position: number) => Effect.Effect<number, FileUnreadable>
}

/** Opens a regular file for as long as the scope lives; other kinds of files and empty ones are refused. */
export const openFile = (path: string): Effect.Effect<OpenFile, FileUnreadable, Scope.Scope> =>
  Effect.gen(function* () {
    const fs = process.getBuiltinModule("node:fs/promises")
    const attempt = <A>(run: () => Promise<A>) =>
      Effect.tryPromise({
        try: run,
        catch: (e) => new FileUnreadable({ path, reason: e instanceof Error ? e.message : String(e) }),
      })
    // Looked at before it is opened: opening a FIFO would wait for its writer for ever.
    const stat = yield* attempt(() => fs.stat(path))
    if (!stat.isFile()) return yield* new FileUnreadable({ path, reason: "not a regular file" })
    if (stat.size === 0) return yield* new FileUnreadable({ path, reason: "the file is empty" })
    const handle = yield* Effect.acquireRelease(
      attempt(() => fs.open(path, "r")),
      (h) => Effect.ignore(attempt(() => h.close())),
    )
    return {
      size: stat.size,
      read: (into, position) =>
        Effect.map(
          attempt(() => handle.read(into, 0, into.length, position)),
          (r) => r.bytesRead,
        ),
    }
  })

// containerd grants 64 KiB at a time (windowSize in core/transfer/streaming/stream.go); its own sender uses 32 KiB.
const chunkBytes = 64 * 1024

/** Opens a stream that containerd knows as `id`: sends StreamInit and waits until it is registered. */
export const register = (call: GrpcCall, id: string, address: string): Effect.Effect<void, GrpcError> =>
  Effect.gen(function* () {
    yield* Effect.ignore(call.send(Streaming.encodeInit(id)))
    const registered = yield* call.receive
    if (Option.isNone(registered)) {
      const reason = "the stream ended before it was registered"
      return yield* new GrpcError({ method: Streaming.stream, address, code: "INTERNAL", reason })
    }
  })

/**
 * Sends the whole file, then closes our half. Succeeds too when containerd ends the stream early: what
 * became of the data is the transfer's answer to give.
 */
export const upload = (
  call: GrpcCall,
  file: OpenFile,
  address: string,
): Effect.Effect<void, FileUnreadable | GrpcError> =>
  Effect.gen(function* () {
    const window = { granted: 0, over: false }
    const news = yield* Latch.make(false)
    const grants = Effect.gen(function* () {
      while (true) {
        const next = yield* call.receive
        if (Option.isNone(next)) break
        const update = yield* Effect.try({
          try: () => Streaming.decodeWindowUpdate(next.value),
          catch: (e) =>
            new GrpcError({
              method: Streaming.stream,
              address,
              code: "INTERNAL",
              reason: `malformed window update: ${e instanceof Error ? e.message : String(e)}`,
            }),
        })
        if (update !== undefined && update > 0) window.granted += update
        yield* news.open
      }
    }).pipe(
      Effect.ensuring(
        Effect.suspend(() => {
          window.over = true
          return news.open
        }),
      ),
    )
    const sends = Effect.gen(function* () {
      const data = Streaming.makeDataFrame(chunkBytes)
      let position = 0
      while (true) {
        while (window.granted <= 0 && !window.over) {
          yield* news.close
          if (window.granted <= 0 && !window.over) yield* news.await
        }
        if (window.over) return
        const n = yield* file.read(data.payload.subarray(0, Math.min(chunkBytes, window.granted)), position)
        position += n
        if (n === 0) return yield* call.closeSend
        yield* call.sendFrame(data.frame(n))
        window.granted -= n
      }
    })
    // The grants end when containerd ends the stream; the sender's end alone decides.
    yield* Effect.raceFirst(sends, Effect.andThen(grants, Effect.never))
  })
