// What the client makes of a server that misbehaves, and of one that behaves in unusual ways.
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, type Scope, Stream } from "effect"
import type * as http2 from "node:http2"
import * as net from "node:net"
import { type Grpc, makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import { encodeFrame } from "@kios/stages-runtime/containerd/GrpcFrame"
import {
  codeOf,
  codeOfHttpStatus,
  codeOfReset,
  decodeStatusMessage,
} from "@kios/stages-runtime/containerd/GrpcStatus"
import {
  type Handler,
  type Http2Server,
  onMessages,
  refuse,
  respond,
  serve,
  tempDir,
} from "./support/http2Server.ts"

const bytes = (...b: Array<number>) => new Uint8Array(b)
const raw = (m: Uint8Array) => m
const nothing = bytes()
const echo = (grpc: Grpc) => grpc.unary("/t/Echo", bytes(1, 2, 3), raw, { timeout: "10 seconds" })

const using = <A>(
  handler: Handler,
  body: (grpc: Grpc, server: Http2Server) => Effect.Effect<A, unknown, Scope.Scope>,
  options?: { readonly maxMessageBytes?: number },
) =>
  Effect.gen(function* () {
    const server = yield* serve(`${yield* tempDir}/s.sock`, handler)
    return yield* body(yield* makeGrpc(server.address, options), server)
  }).pipe(Effect.scoped, Effect.timeout("15 seconds"))

const echoHandler: Handler = (stream) => {
  const answer = respond(stream)
  onMessages(stream, (m) => {
    answer.message(m)
    answer.end()
  })
}

// Each: what the server does, and the code and words of the error.
const faults: Record<string, readonly [Handler, string, RegExp]> = {
  "trailers only, percent-encoded UTF-8": [
    (s) => refuse(s, 5, "no such thing: caf%C3%A9 100%25 %zz"),
    "NOT_FOUND",
    /no such thing: café 100% %zz/,
  ],
  "an unknown status number": [(s) => refuse(s, 42, "odd"), "UNKNOWN", /odd/],
  "a message, then an error in the trailers": [
    (s) => {
      const answer = respond(s)
      answer.message(bytes(9))
      answer.end("8", "too much")
    },
    "RESOURCE_EXHAUSTED",
    /too much/,
  ],
  "no message": [(s) => respond(s).end(), "INTERNAL", /no message/],
  "two messages": [
    (s) => {
      const answer = respond(s)
      answer.message(bytes(1))
      answer.message(bytes(2))
      answer.end()
    },
    "INTERNAL",
    /more than one message/,
  ],
  "no trailers": [
    (s) => {
      s.respond({ ":status": 200, "content-type": "application/grpc" })
      s.end(encodeFrame(bytes(1)))
    },
    "INTERNAL",
    /without grpc-status/,
  ],
  "HTTP 503": [(s) => s.respond({ ":status": 503 }, { endStream: true }), "UNAVAILABLE", /HTTP status 503/],
  "a web page": [
    (s) => {
      s.respond({ ":status": 200, "content-type": "text/html" })
      s.end("<html>")
    },
    "UNKNOWN",
    /text\/html/,
  ],
  "a frame cut in its header": [
    (s) => {
      const answer = respond(s)
      answer.raw(bytes(0, 0, 0))
      answer.end()
    },
    "INTERNAL",
    /ends after 3 bytes of an unfinished message/,
  ],
  "a frame cut in its body": [
    (s) => {
      const answer = respond(s)
      answer.raw(bytes(0, 0, 0, 0, 9, 1, 2))
      answer.end()
    },
    "INTERNAL",
    /ends after 7 bytes of an unfinished message/,
  ],
  "the compressed flag": [(s) => void respond(s).raw(bytes(1, 0, 0, 0, 1, 7)), "INTERNAL", /compression/],
  "a length beyond the limit, without the bytes": [
    (s) => void respond(s).raw(bytes(0, 0xff, 0xff, 0xff, 0xff)),
    "RESOURCE_EXHAUSTED",
    /4294967295 bytes, the limit is 1000/,
  ],
  "a refused stream": [(s) => s.close(7), "UNAVAILABLE", /error 7/],
  "an internal reset": [(s) => s.close(2), "INTERNAL", /error 2/],
  "a connection that dies": [
    (s) => s.session?.destroy(),
    "UNAVAILABLE",
    /connection (?:closed|lost)|ECONNRESET/,
  ],
}

describe("Grpc", () => {
  for (const [name, [handler, code, reason]] of Object.entries(faults)) {
    it.live(`${name}: ${code}, and the client still works`, () => {
      let first = true
      return using(
        (stream, headers) => {
          if (!first) return echoHandler(stream, headers)
          first = false
          handler(stream, headers)
        },
        (grpc) =>
          Effect.gen(function* () {
            const error = yield* Effect.flip(echo(grpc))
            assert.strictEqual(error._tag, "GrpcError")
            assert.strictEqual(error._tag === "GrpcError" ? error.code : "", code)
            assert.match(error.message, reason)
            assert.include(error.message, "/t/Echo")
            assert.deepStrictEqual(yield* echo(grpc), bytes(1, 2, 3))
          }),
        { maxMessageBytes: 1000 },
      )
    })
  }

  it.live("a decoder that throws is an error of the call", () =>
    using(echoHandler, (grpc) =>
      Effect.gen(function* () {
        const bad = grpc.unary("/t/Echo", nothing, () => {
          throw new Error("premature EOF")
        })
        const error = yield* Effect.flip(bad)
        assert.include(error, { code: "INTERNAL", reason: "malformed answer: premature EOF" })
      }),
    ),
  )

  it.live("sends namespace, timeout and content type", () => {
    let seen: http2.IncomingHttpHeaders = {}
    return using(
      (stream, headers) => {
        seen = headers
        echoHandler(stream, headers)
      },
      (grpc) =>
        Effect.gen(function* () {
          yield* grpc.unary("/t/Echo", nothing, raw, { namespace: "k8s.io", timeout: "1500 millis" })
          const expected = { "containerd-namespace": "k8s.io", "grpc-timeout": "1500m", te: "trailers" }
          for (const [k, v] of Object.entries(expected)) assert.strictEqual(seen[k], v)
          assert.strictEqual(seen["content-type"], "application/grpc")
          assert.strictEqual(seen[":path"], "/t/Echo")
        }),
    )
  })

  it.live("a deadline ends the wait and resets the stream with CANCEL", () =>
    Effect.gen(function* () {
      const reset = yield* Deferred.make<number>()
      yield* using(
        (stream) =>
          void stream.on("close", () => Deferred.doneUnsafe(reset, Exit.succeed(stream.rstCode ?? -1))),
        (grpc) =>
          Effect.gen(function* () {
            const error = yield* Effect.flip(grpc.unary("/t/Silent", nothing, raw, { timeout: "50 millis" }))
            assert.strictEqual(error.code, "DEADLINE_EXCEEDED")
            assert.strictEqual(yield* Deferred.await(reset), 8)
          }),
      )
    }),
  )

  it.live("interruption resets the stream with CANCEL", () =>
    Effect.gen(function* () {
      const arrived = yield* Deferred.make<void>()
      const reset = yield* Deferred.make<number>()
      yield* using(
        (stream) => {
          onMessages(stream, () => Deferred.doneUnsafe(arrived, Exit.void))
          stream.on("close", () => Deferred.doneUnsafe(reset, Exit.succeed(stream.rstCode ?? -1)))
        },
        (grpc) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.forkChild(grpc.unary("/t/Silent", bytes(1), raw))
            yield* Deferred.await(arrived)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* Deferred.await(reset), 8)
          }),
      )
    }),
  )

  it.live("many calls share one connection; a lost one is made again", () =>
    using(echoHandler, (grpc, server) =>
      Effect.gen(function* () {
        yield* Effect.all(
          Array.from({ length: 200 }, () => echo(grpc)),
          { concurrency: "unbounded", discard: true },
        )
        assert.strictEqual(server.sessions(), 1)
        yield* server.stop
        const gone = yield* Effect.flip(echo(grpc))
        assert.match(gone.message, /UNAVAILABLE/)
        yield* server.start
        assert.deepStrictEqual(yield* echo(grpc), bytes(1, 2, 3))
        assert.strictEqual(server.sessions(), 2)
      }),
    ),
  )

  it.live("after GOAWAY running calls finish and new ones take a new connection", () => {
    let finish: () => void = () => {}
    return using(
      (stream, headers) => {
        if (headers[":path"] !== "/t/Slow") return echoHandler(stream, headers)
        const answer = respond(stream)
        answer.message(bytes(5))
        finish = () => answer.end()
        stream.session?.goaway()
      },
      (grpc, server) =>
        Effect.gen(function* () {
          const slow = yield* grpc.open("/t/Slow")
          assert.isTrue(Option.isSome(yield* slow.receive))
          yield* echo(grpc).pipe(Effect.repeat({ until: () => server.sessions() === 2 }))
          finish()
          assert.isTrue(Option.isNone(yield* slow.receive))
        }),
    )
  })

  it.live("a peer that does not speak HTTP/2 is an error, as is one that hangs up", () =>
    Effect.gen(function* () {
      const address = `${yield* tempDir}/s.sock`
      for (const talk of ["HTTP/1.1 400 Bad Request\r\n\r\n", ""]) {
        const server = net.createServer((socket) => {
          socket.on("error", () => {})
          socket.resume()
          socket.end(talk)
        })
        yield* Effect.callback<void>((resume) => void server.listen(address, () => resume(Effect.void)))
        const grpc = yield* makeGrpc(address)
        const error = yield* Effect.flip(grpc.unary("/t/Echo", nothing, raw, { timeout: "10 seconds" }))
        assert.strictEqual(error.code, "UNAVAILABLE")
        yield* Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      }
    }),
  )

  it.live("closing the scope fails what is under way", () =>
    Effect.gen(function* () {
      const server = yield* serve(`${yield* tempDir}/s.sock`, () => {})
      const call = yield* Effect.scoped(
        Effect.gen(function* () {
          const grpc = yield* makeGrpc(server.address)
          return yield* Effect.forkDetach(grpc.unary("/t/Silent", nothing, raw), {
            startImmediately: true,
          }).pipe(
            Effect.tap(() => Effect.sleep(0).pipe(Effect.repeat({ until: () => server.sessions() === 1 }))),
          )
        }),
      )
      const exit = yield* Fiber.await(call).pipe(Effect.timeout("10 seconds"))
      assert.isTrue(Exit.isFailure(exit))
    }),
  )

  it.live("a server stream is read no faster than it is consumed", () => {
    let written = 0
    const chunk = new Uint8Array(16 * 1024)
    return using(
      (stream, headers) => {
        if (headers[":path"] === "/t/Echo") return echoHandler(stream, headers)
        const answer = respond(stream)
        const pump = () => {
          while (!stream.destroyed && written < 4096) {
            written++
            if (!answer.message(chunk)) return void stream.once("drain", pump)
          }
          answer.end()
        }
        pump()
      },
      (grpc) =>
        Effect.gen(function* () {
          const call = yield* grpc.open("/t/Many")
          yield* call.send(nothing)
          yield* call.receive
          // Round trips on the same connection give the server all the time it needs to overrun us.
          for (let i = 0; i < 200; i++) yield* echo(grpc)
          assert.isBelow(written, 100)
          yield* call.cancel
          written = 0
          const total = yield* grpc.serverStream("/t/Many", nothing, raw).pipe(
            Stream.runFold(
              () => 0,
              (n, m) => n + m.length,
            ),
          )
          assert.strictEqual(total, 4096 * chunk.length)
        }),
    )
  })

  it.live("random bytes as an answer never do more than fail the call", () => {
    let seed = 7
    const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32
    return using(
      (stream) => {
        const answer = respond(stream)
        for (let n = random() * 4; n > 0; n--)
          answer.raw(
            Uint8Array.from({ length: 1 + random() * 40 }, () => (random() < 0.5 ? 0 : random() * 256)),
          )
        if (random() < 0.2) stream.close(Math.floor(random() * 14))
        else answer.end(random() < 0.7 ? "0" : String(Math.floor(random() * 30)))
      },
      (grpc) =>
        Effect.gen(function* () {
          for (let i = 0; i < 400; i++) {
            const exit = yield* Effect.exit(echo(grpc))
            if (Exit.isFailure(exit)) assert.isTrue(exit.cause.reasons.every((r) => r._tag === "Fail"))
          }
        }),
    )
  })
})

describe("status", () => {
  it("names codes, and maps HTTP and HTTP/2 codes", () => {
    assert.strictEqual(codeOf("14"), "UNAVAILABLE")
    for (const odd of ["", "17", "-1", "1e1", "999999999999", "x"]) assert.strictEqual(codeOf(odd), "UNKNOWN")
    assert.strictEqual(codeOfHttpStatus(404), "UNIMPLEMENTED")
    assert.strictEqual(codeOfReset(11), "RESOURCE_EXHAUSTED")
  })
  it("keeps messages short and never fails to decode one", () => {
    assert.strictEqual(decodeStatusMessage("%E2%82%AC"), "€")
    assert.strictEqual(decodeStatusMessage("%"), "%")
    assert.strictEqual(decodeStatusMessage("%ff"), "\ufffd")
    assert.isBelow(decodeStatusMessage("a".repeat(100_000)).length, 2100)
  })
})
