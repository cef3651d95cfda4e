// A gRPC server over node:http2 on a unix socket in a temporary directory, whose answers a test writes by hand.
import { Effect } from "effect"
import * as fs from "node:fs"
import * as http2 from "node:http2"
import * as os from "node:os"
import * as path from "node:path"
import { encodeFrame, makeFrameDecoder } from "@kios/stages-runtime/containerd/GrpcFrame"

export const tempDir = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-containerd-"))),
  (dir) => Effect.sync(() => fs.rmSync(dir, { recursive: true, force: true })),
)

export type Handler = (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void

export interface Http2Server {
  readonly address: string
  /** Sessions that were opened since the start. */
  readonly sessions: () => number
  /** Ends the server and all of its connections. */
  readonly stop: Effect.Effect<void>
  readonly start: Effect.Effect<void>
}

/** Serves until the scope closes. */
export const serve = (address: string, handler: Handler) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      let count = 0
      let server: http2.Http2Server | undefined
      const open = new Set<http2.ServerHttp2Session>()
      const start = Effect.callback<void>((resume) => {
        server = http2.createServer()
        server.on("session", (s) => {
          count++
          open.add(s)
          s.on("error", () => {})
          s.on("close", () => open.delete(s))
        })
        server.on("stream", (stream, headers) => {
          stream.on("error", () => {})
          handler(stream, headers)
        })
        server.listen(address, () => resume(Effect.void))
      })
      const stop = Effect.callback<void>((resume) => {
        for (const s of open) s.destroy()
        if (server === undefined) return resume(Effect.void)
        server.close(() => resume(Effect.void))
        server = undefined
      })
      yield* start
      return { address, sessions: () => count, start, stop } satisfies Http2Server
    }),
    (s) => s.stop,
  )

/** Reads the frames of a request. */
export const onMessages = (
  stream: http2.ServerHttp2Stream,
  onMessage: (message: Uint8Array) => void,
  onEnd: () => void = () => {},
) => {
  const decoder = makeFrameDecoder(1 << 26)
  stream.on("data", (chunk: Buffer) => decoder.push(chunk).messages.forEach(onMessage))
  stream.on("end", onEnd)
}

const alive = (stream: http2.ServerHttp2Stream) => !stream.destroyed && !stream.closed

/** Starts a gRPC answer; the trailers are what `status` holds when it ends. */
export const respond = (stream: http2.ServerHttp2Stream) => {
  let trailers: Record<string, string> = { "grpc-status": "0" }
  if (alive(stream) && !stream.headersSent) {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true })
    stream.on("wantTrailers", () => {
      if (alive(stream)) stream.sendTrailers(trailers)
    })
  }
  return {
    message: (m: Uint8Array) => alive(stream) && stream.write(encodeFrame(m)),
    raw: (b: Uint8Array) => alive(stream) && stream.write(b),
    end: (status = "0", message = "") => {
      trailers = { "grpc-status": status, ...(message === "" ? {} : { "grpc-message": message }) }
      if (alive(stream)) stream.end()
    },
  }
}

/** Answers with a status and no message ("trailers only"). */
export const refuse = (stream: http2.ServerHttp2Stream, status: number, message: string) => {
  if (!alive(stream)) return
  const headers = { "content-type": "application/grpc", "grpc-status": `${status}`, "grpc-message": message }
  stream.respond({ ":status": 200, ...headers }, { endStream: true })
}
