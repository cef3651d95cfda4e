// Ten thousand streams for each of the two parsers; their real sockets are in sockets.kernel.test.ts.
import { assert, it } from "@effect/vitest"
import { Effect, Scope } from "effect"
import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
import * as Session from "@kios/stages-kubelet/internal/dbus/Session"
import * as Stage from "@kios/stages-kubelet/SystemSocket"
import { messages } from "./dbus/client.ts"
import { settle, up } from "./socketStage.ts"
import { commandStream, dbusStream, portions } from "./streams.ts"

const STREAMS = 10_000
const guid = "0123456789abcdef0123456789abcdef"

it("D-Bus: every stream is answered in whole messages or ended, however it is cut", () => {
  const seen = { Send: 0, Inhibit: 0, Close: 0 }
  for (let seed = 0; seed < STREAMS; seed++) {
    const stream = dbusStream(seed)
    const begin = () => Session.make({ uid: 0, guid, name: ":1.1", delayMaxUSec: 1n })
    const run = (session: Session.Session, parts: ReadonlyArray<Buffer>) =>
      parts.flatMap((part) => session.receive(part))
    const session = begin()
    const actions = run(session, portions(stream, seed))
    for (const { _tag } of actions) seen[_tag]++
    const closes = actions.findIndex(({ _tag }) => _tag === "Close")
    assert.isTrue(closes === -1 || closes === actions.length - 1, `seed ${seed}: something after the end`)
    const sent = actions.flatMap((action) =>
      action._tag === "Send" ? [action.bytes] : action._tag === "Inhibit" ? [action.granted] : [],
    )
    const length = Buffer.concat(sent).length
    assert.isAtMost(length, 4096 + stream.length * 8, `seed ${seed}: more is answered than was asked`)
    // Lines of SASL, or a message to its last byte.
    for (const bytes of sent)
      if (bytes[0] === 0x6c) assert.lengthOf(messages(bytes), 1, `seed ${seed}`)
      else assert.match(Buffer.from(bytes).toString(), /^((REJECTED|DATA|OK|AGREE|ERROR)[^\r\n]*\r\n)+$/u)
    // The end comes at the same byte, whatever the portions, and no action is lost.
    assert.deepStrictEqual(
      run(begin(), [stream]).filter(({ _tag }) => _tag === "Inhibit").length,
      actions.filter(({ _tag }) => _tag === "Inhibit").length,
      `seed ${seed}`,
    )
  }
  // The streams get everywhere.
  for (const [tag, count] of Object.entries(seen)) assert.isAbove(count, STREAMS / 20, tag)
}, 120_000)

it.effect(
  "the system socket: of every stream, the commands before the first byte that is none are done",
  () =>
    Effect.gen(function* () {
      const node = yield* up(Stage.stage.layer, "/run/system.sock")
      const done = { kubelet: 0, runtime: 0 }
      const scope = yield* Scope.Scope
      const { restartable } = yield* Effect.provide(SystemSocket, node.services)
      for (const what of ["kubelet", "runtime"] as const)
        yield* restartable(what, {
          restart: Effect.sync(() => void done[what]++),
          state: Effect.succeed({ _tag: "Starting" }),
        }).pipe(Effect.provideService(Scope.Scope, scope))
      node.client().send(Uint8Array.of(3, 4))
      yield* settle
      assert.deepStrictEqual(done, { kubelet: 1, runtime: 1 })
      let requests = 0
      let going = false
      for (let seed = 0; seed < STREAMS; seed++) {
        const stream = commandStream(seed)
        const client = node.client()
        for (const part of portions(stream, seed)) client.send(part)
        const bad = stream.findIndex((byte, index) => byte < 1 || byte > 4 || index >= 16)
        for (const byte of bad === -1 ? stream : stream.subarray(0, bad)) {
          if (byte === 2) requests += going ? 1 : 2
          if (byte === 1 && !going) requests++
          going ||= byte <= 2
        }
        yield* Effect.yieldNow
        client.close()
        if (seed % 100 === 0) yield* settle
        if (bad !== -1 && seed % 100 === 0) assert.isTrue(client.closed(), `seed ${seed}`)
      }
      yield* settle
      assert.strictEqual(node.requests.length, requests)
    }),
  120_000,
)
