import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { BinaryWriter } from "@kios/stages-runtime/containerd/Proto"
import { liveness } from "@kios/stages-runtime/containerd/Liveness"
import { respond, serve, tempDir } from "./support/http2Server.ts"

const status = (value: number) => new BinaryWriter().tag(1, 0).int32(value).finish()

it.live("is asked over one connection, and over a new one after a probe that failed", () =>
  Effect.gen(function* () {
    const address = `${yield* tempDir}/c.sock`
    const answers = [1, 1, 2, undefined, 1]
    let asked = 0
    const server = yield* serve(address, (stream) => {
      const answer = answers[asked++]
      // Undefined: it hangs.
      if (answer !== undefined) {
        const call = respond(stream)
        call.message(status(answer))
        call.end()
      }
    })
    const { description, probe } = yield* liveness(address)
    assert.strictEqual(description, `containerd's health at ${address}`)
    yield* probe
    yield* probe
    assert.strictEqual(server.sessions(), 1)
    assert.strictEqual(yield* Effect.flip(probe), "health is NOT_SERVING")
    // The supervisor gives a probe up that takes too long.
    yield* Effect.timeoutOption(probe, "300 millis")
    yield* probe
    assert.strictEqual(asked, 5)
    assert.strictEqual(server.sessions(), 3)
  }),
)

it.live("says why there is no answer", () =>
  Effect.gen(function* () {
    const { probe } = yield* liveness(`${yield* tempDir}/none.sock`)
    assert.match(yield* Effect.flip(probe), /ENOENT/u)
  }),
)
