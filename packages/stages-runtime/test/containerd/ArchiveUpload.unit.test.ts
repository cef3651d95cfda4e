// The sender's side of containerd's window protocol, against a receiver that grants as the test says.
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { openFile, register, upload } from "@kios/stages-runtime/containerd/ArchiveUpload"
import { type Grpc, makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
import { BinaryWriter, decodeAny, encodeAny, visitFields } from "@kios/stages-runtime/containerd/Proto"
import * as Streaming from "@kios/stages-runtime/containerd/Streaming"
import { onMessages, respond, serve, tempDir } from "./support/http2Server.ts"

interface Receiver {
  readonly grant: (bytes: number) => void
  readonly raw: (message: Uint8Array) => void
  readonly close: () => void
  received: Buffer
  largest: number
  ended: boolean
}

const windowUpdate = (bytes: number) =>
  encodeAny({
    typeUrl: "containerd.types.transfer.WindowUpdate",
    value: new BinaryWriter().tag(1, 0).int32(bytes).finish(),
  })

/** A receiver; `onData` runs after the registration and after each message. */
const using = (
  size: number,
  onData: (r: Receiver) => void,
  body: (grpc: Grpc, path: string, receiver: () => Receiver) => Effect.Effect<void, unknown, Scope.Scope>,
) =>
  Effect.gen(function* () {
    const dir = yield* tempDir
    const path = `${dir}/archive`
    fs.writeFileSync(
      path,
      Buffer.from({ length: size }).map((_, i) => (i * 31) & 255),
    )
    let receiver: Receiver | undefined
    yield* serve(`${dir}/s.sock`, (stream, headers) => {
      const answer = respond(stream)
      if (headers[":path"] === "/t/Ping") {
        onMessages(stream, () => {
          answer.message(new Uint8Array(0))
          answer.end()
        })
        return
      }
      onMessages(
        stream,
        (message) => {
          if (receiver === undefined) {
            receiver = {
              grant: (n) => void answer.message(windowUpdate(n)),
              raw: (m) => void answer.message(m),
              close: () => answer.end(),
              received: Buffer.alloc(0),
              largest: 0,
              ended: false,
            }
            answer.message(encodeAny({ typeUrl: "google.protobuf.Empty", value: new Uint8Array(0) }))
          } else
            visitFields(decodeAny(message).value, ({ bytes }) => {
              receiver!.received = Buffer.concat([receiver!.received, bytes])
              receiver!.largest = Math.max(receiver!.largest, bytes.length)
            })
          onData(receiver)
        },
        () => {
          receiver!.ended = true
        },
      )
    })
    yield* body(yield* makeGrpc(`${dir}/s.sock`), path, () => receiver!)
  }).pipe(Effect.scoped, Effect.timeout("15 seconds"))

const start = (grpc: Grpc, path: string) =>
  Effect.gen(function* () {
    const call = yield* grpc.open(Streaming.stream)
    yield* register(call, "id", grpc.address)
    return upload(call, yield* openFile(path), grpc.address)
  })
// Work on the same connection: after it, anything that was going to be sent has arrived.
const settle = (grpc: Grpc) =>
  Effect.repeat(
    grpc.unary("/t/Ping", new Uint8Array(0), () => undefined),
    { times: 50 },
  )

describe("ArchiveUpload", () => {
  it.live("sends every byte in order, never more than was granted", () => {
    let granted = 0
    return using(
      100_003,
      (r) => {
        assert.isAtMost(r.received.length, granted)
        // Odd grants, given only when the last one is used up.
        if (r.received.length === granted) {
          granted += 997
          r.grant(997)
        }
      },
      (grpc, path, receiver) =>
        Effect.gen(function* () {
          yield* yield* start(grpc, path)
          yield* settle(grpc)
          assert.isTrue(receiver().ended)
          assert.isTrue(receiver().received.equals(fs.readFileSync(path)))
          assert.isAtMost(receiver().largest, 997)
        }),
    )
  })

  it.live("sends nothing without a grant, nor for a zero or negative one", () =>
    using(
      5000,
      (r) => {
        r.grant(0)
        r.grant(-5)
      },
      (grpc, path, receiver) =>
        Effect.gen(function* () {
          yield* Effect.forkScoped(yield* start(grpc, path))
          yield* settle(grpc)
          assert.strictEqual(receiver().received.length, 0)
          receiver().grant(10)
          yield* settle(grpc).pipe(Effect.repeat({ until: () => receiver().received.length > 0 }))
          assert.strictEqual(receiver().received.length, 10)
        }),
    ),
  )

  it.live("stops without an error when the receiver ends the stream", () =>
    using(
      1_000_000,
      (r) => (r.received.length === 0 ? r.grant(1000) : r.close()),
      (grpc, path, receiver) =>
        Effect.gen(function* () {
          yield* yield* start(grpc, path)
          assert.strictEqual(receiver().received.length, 1000)
        }),
    ),
  )

  it.live("a malformed grant is an error, another message is not", () =>
    using(
      1000,
      (r) => {
        r.raw(encodeAny({ typeUrl: "kios.test.Unknown", value: new Uint8Array([1]) }))
        r.raw(new Uint8Array([0x0a, 0x7f]))
      },
      (grpc, path) =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(yield* start(grpc, path))
          assert.include(error.message, "malformed window update")
        }),
    ),
  )

  it.live("refuses what is not a regular file without waiting for it", () =>
    Effect.gen(function* () {
      const dir = yield* tempDir
      execFileSync("mkfifo", [`${dir}/fifo`])
      for (const [path, reason] of [
        [`${dir}/fifo`, /not a regular file/],
        [dir, /not a regular file/],
        [`${dir}/absent`, /ENOENT/],
        ["/dev/zero", /not a regular file/],
      ] as const) {
        const error = yield* Effect.flip(openFile(path)).pipe(Effect.timeout("5 seconds"))
        assert.match((error as { readonly reason: string }).reason, reason)
      }
    }),
  )
})
