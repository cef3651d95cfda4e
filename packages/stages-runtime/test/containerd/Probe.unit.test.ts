// Readiness: waits through every "not yet", and says at once what waiting does not cure.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as Health from "@kios/stages-runtime/containerd/Health"
import { awaitReady } from "@kios/stages-runtime/containerd/Probe"
import { BinaryWriter } from "@kios/stages-runtime/containerd/Proto"
import { makeFakeContainerd } from "./support/FakeContainerd.ts"
import { onMessages, refuse, respond, serve, tempDir } from "./support/http2Server.ts"

const collect = () => {
  const reasons: Array<string> = []
  return {
    reasons,
    note: (e: { readonly message: string }) => Effect.sync(() => void reasons.push(e.message)),
  }
}
const until = (condition: () => boolean) => Effect.sleep("1 millis").pipe(Effect.repeat({ until: condition }))

describe("awaitReady", () => {
  it.live("waits for the directory, then the file, then a listener", () =>
    Effect.gen(function* () {
      const dir = `${yield* tempDir}/run`
      const { note, reasons } = collect()
      const ready = yield* Effect.forkChild(awaitReady(`${dir}/c.sock`, note))
      yield* until(() => reasons.some((r) => r.includes("ENOENT")))
      fs.mkdirSync(dir)
      // A socket file that a killed containerd left behind.
      yield* Effect.callback<void>((resume) => {
        const server = net.createServer()
        server.listen(`${dir}/other`, () => {
          fs.linkSync(`${dir}/other`, `${dir}/c.sock`)
          server.close(() => resume(Effect.void))
        })
      })
      yield* until(() => reasons.some((r) => r.includes("ECONNREFUSED")))
      fs.unlinkSync(`${dir}/c.sock`)
      yield* makeFakeContainerd(`${dir}/c.sock`)
      assert.strictEqual((yield* Fiber.join(ready)).name, "containerd")
    }).pipe(Effect.scoped, Effect.timeout("15 seconds")),
  )

  it.live("a health that is not SERVING and a CRI that is not initialised are waited for", () =>
    Effect.gen(function* () {
      let calls = 0
      const server = yield* serve(`${yield* tempDir}/c.sock`, (stream, headers) => {
        onMessages(stream, () => {
          const health = headers[":path"] === Health.check
          calls++
          if (!health && calls < 5) return refuse(stream, 14, "server is not initialized yet")
          const answer = respond(stream)
          answer.message(
            health
              ? new BinaryWriter()
                  .tag(1, 0)
                  .int32(calls < 2 ? 2 : 1)
                  .finish()
              : new Uint8Array(0),
          )
          answer.end()
        })
      })
      const { note, reasons } = collect()
      yield* awaitReady(server.address, note)
      assert.match(reasons[0] ?? "", /health is NOT_SERVING/)
      assert.match(reasons[1] ?? "", /not initialized yet/)
    }).pipe(Effect.scoped, Effect.timeout("15 seconds")),
  )

  it.live("no CRI at all is an error, not a wait", () =>
    Effect.gen(function* () {
      const server = yield* serve(`${yield* tempDir}/c.sock`, (stream, headers) => {
        if (headers[":path"] !== Health.check)
          return refuse(stream, 12, "unknown service runtime.v1.RuntimeService")
        const answer = respond(stream)
        answer.message(new BinaryWriter().tag(1, 0).int32(1).finish())
        answer.end()
      })
      const error = yield* Effect.flip(awaitReady(server.address))
      assert.include(error.message, "UNIMPLEMENTED")
      assert.include(error.message, "disabled_plugins")
    }).pipe(Effect.scoped, Effect.timeout("15 seconds")),
  )
})
