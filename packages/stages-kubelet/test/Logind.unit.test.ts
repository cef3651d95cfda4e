import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Logind } from "@kios/core/capabilities/Logind"
import type { Peer } from "@kios/core/Kernel"
import * as Stage from "@kios/stages-kubelet/Logind"
import { calls, messages, sasl } from "./dbus/client.ts"
import { isOver, settle, up } from "./socketStage.ts"

const SOCKET = "/run/dbus/system_bus_socket"
/** The stage, up. */
const start = (options: Stage.LogindOptions = {}) =>
  Effect.gen(function* () {
    const node = yield* up(Stage.make(options).layer, SOCKET)
    const { inhibitors } = yield* Effect.provide(Logind, node.services)
    const client = (peer?: Partial<Peer>) => {
      const connection = node.client(peer)
      return {
        ...connection,
        /** Sends, and gives the messages that come back. */
        ask: (...bytes: ReadonlyArray<Uint8Array>) =>
          Effect.gen(function* () {
            for (const portion of bytes) connection.send(portion)
            yield* settle
            return messages(connection.take())
          }),
        greet: Effect.gen(function* () {
          connection.send(sasl)
          connection.send(calls.hello())
          yield* settle
          connection.take()
        }),
      }
    }
    return { ...node, client, inhibitors }
  })

describe("logind", () => {
  it.effect("listens for root alone, and no more when it goes", () =>
    Effect.gen(function* () {
      const { machine, scope } = yield* start()
      assert.strictEqual(machine.modeOf(SOCKET), 0o600)
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(machine.exists(SOCKET))
    }),
  )

  it.effect("a shutdown is told, and waits until the last inhibitor is closed", () =>
    Effect.gen(function* () {
      const { client, goDown, inhibitors, machine } = yield* start()
      const [kubelet, other] = [client(), client()]
      for (const one of [kubelet, other]) {
        yield* one.greet
        yield* one.ask(calls.addMatch(), calls.inhibit())
        assert.lengthOf(one.pipes, 1)
      }
      assert.lengthOf(yield* inhibitors, 2)
      const down = yield* goDown
      const [signal] = yield* kubelet.ask()
      assert.strictEqual(signal?.fields.member, "PrepareForShutdown")
      yield* TestClock.adjust("15 minutes")
      kubelet.pipes[0]?.close()
      yield* settle
      assert.isFalse(isOver(down))
      other.pipes[0]?.close()
      yield* settle
      assert.isTrue(isOver(down))
      assert.deepStrictEqual(yield* inhibitors, [])
      assert.isFalse(
        machine.kmsg.some((line) => line.startsWith("warning")),
        machine.kmsg.join("\n"),
      )
    }),
  )

  it.effect("an inhibitor outlives the connection by which it was taken", () =>
    Effect.gen(function* () {
      const { client, goDown } = yield* start()
      const kubelet = client()
      yield* kubelet.greet
      yield* kubelet.ask(calls.inhibit())
      kubelet.close()
      yield* settle
      const down = yield* goDown
      yield* TestClock.adjust("1 minute")
      assert.isFalse(isOver(down))
      kubelet.pipes[0]?.close()
      yield* Fiber.join(down)
    }),
  )

  it.effect("nobody is waited for who holds nothing", () =>
    Effect.gen(function* () {
      const { client, goDown } = yield* start()
      const [released, listening] = [client(), client()]
      for (const one of [released, listening]) yield* one.greet
      yield* released.ask(calls.inhibit())
      released.pipes[0]?.close()
      yield* listening.ask(calls.addMatch())
      yield* settle
      yield* Fiber.join(yield* goDown)
    }),
  )

  it.effect("who does not let go is left behind when the longest delay is over, and named", () =>
    Effect.gen(function* () {
      const { client, goDown, machine } = yield* start({ delayMax: "1 minute" })
      const kubelet = client()
      yield* kubelet.greet
      yield* kubelet.ask(calls.inhibit())
      const down = yield* goDown
      yield* TestClock.adjust("69 seconds")
      assert.isFalse(isOver(down))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(down)
      assert.isTrue(
        machine.kmsg.some((line) => line.includes("going down without waiting for kubelet pid=1")),
        machine.kmsg.join("\n"),
      )
    }),
  )

  it.effect("nothing is granted any more when the machine goes down", () =>
    Effect.gen(function* () {
      const { client, goDown } = yield* start()
      const kubelet = client()
      yield* kubelet.greet
      yield* Fiber.join(yield* goDown)
      const [answer] = yield* kubelet.ask(calls.inhibit())
      assert.strictEqual(answer?.fields.errorName, "org.freedesktop.login1.OperationInProgress")
      assert.lengthOf(kubelet.pipes, 0)
    }),
  )

  it.effect("more inhibitors than anybody needs are refused, until one is closed", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const one = client()
      yield* one.greet
      for (let n = 0; n < 64; n++) yield* one.ask(calls.inhibit())
      assert.lengthOf(one.pipes, 64)
      const [answer] = yield* one.ask(calls.inhibit())
      assert.strictEqual(answer?.fields.errorName, "org.freedesktop.DBus.Error.LimitsExceeded")
      one.pipes[3]?.close()
      yield* settle
      yield* one.ask(calls.inhibit())
      assert.lengthOf(one.pipes, 65)
    }),
  )

  const turnedAway: ReadonlyArray<readonly [string, Partial<Peer>]> = [
    ["not root", { uid: 1000 }],
    ["of no pid namespace of init's", { pid: 0 }],
    ["gone", { pid: 4242 }],
    ["of a pod", { pid: 77 }],
  ]
  for (const [who, peer] of turnedAway)
    it.effect(`who is ${who} is turned away`, () =>
      Effect.gen(function* () {
        const { client, machine } = yield* start()
        machine.write({ "/proc/77/ns/pid": { symlink: "pid:[4026532222]" } })
        const one = client(peer)
        yield* settle
        assert.isTrue(one.closed())
        assert.match(machine.kmsg.join("\n"), /warning .*pid=\d+ uid=\d+: is not root of the host/u)
      }),
    )

  it.effect(
    "who says nothing, or not enough, is gone after a while; the kubelet may be silent for ever",
    () =>
      Effect.gen(function* () {
        const { client } = yield* start()
        const [silent, slow, kubelet] = [client(), client(), client()]
        yield* kubelet.greet
        slow.send("\0")
        for (let n = 0; n < 9; n++) {
          yield* TestClock.adjust("1 second")
          slow.send("A")
        }
        assert.isFalse(silent.closed() || slow.closed())
        yield* TestClock.adjust("1 second")
        assert.isTrue(silent.closed() && slow.closed())
        yield* TestClock.adjust("30 days")
        assert.isFalse(kubelet.closed())
      }),
  )

  it.effect(
    "who sends nonsense or too much is closed, and nobody else; it is told of, but not for ever",
    () =>
      Effect.gen(function* () {
        const { client, machine } = yield* start()
        const kubelet = client()
        yield* kubelet.greet
        for (let n = 0; n < 100; n++) {
          const one = client()
          one.send("GET / HTTP/1.1\r\n\r\n")
          yield* settle
          assert.isTrue(one.closed())
        }
        assert.lengthOf(
          machine.kmsg.filter((line) => line.includes("does not begin with a NUL")),
          10,
        )
        const flood = client()
        yield* flood.greet
        for (let n = 0; n < 1000 && !flood.closed(); n++) yield* flood.ask(calls.get())
        assert.isTrue(flood.closed())
        assert.lengthOf(yield* kubelet.ask(calls.get()), 1)
      }),
  )

  it.effect("who reads nothing is closed when it can be sent no more, and holds nobody up", () =>
    Effect.gen(function* () {
      const { client, machine } = yield* start()
      const [deaf, kubelet] = [client(), client()]
      yield* kubelet.greet
      deaf.send(sasl)
      deaf.send(calls.hello())
      yield* settle
      machine.failOn("send", "EAGAIN", { times: 1 })
      deaf.send(calls.get())
      yield* settle
      assert.isTrue(deaf.closed())
      assert.lengthOf(yield* kubelet.ask(calls.get()), 1)
    }),
  )

  for (const errno of ["EAGAIN", "EMFILE"])
    it.effect(`an inhibitor that cannot be sent (${errno}) is none, and closes that client`, () =>
      Effect.gen(function* () {
        const { client, goDown, inhibitors, machine } = yield* start()
        machine.failOn("sendPipe", errno, { times: 1 })
        const [one, other] = [client(), client()]
        for (const each of [one, other]) yield* each.greet
        yield* one.ask(calls.inhibit())
        assert.isTrue(one.closed())
        assert.deepStrictEqual(yield* inhibitors, [])
        yield* other.ask(calls.inhibit())
        assert.lengthOf(yield* inhibitors, 1)
        other.pipes[0]?.close()
        yield* settle
        yield* Fiber.join(yield* goDown)
      }),
    )

  it.effect("a client that is gone is not told, and the others are", () =>
    Effect.gen(function* () {
      const { client, goDown } = yield* start()
      const [gone, kubelet] = [client(), client()]
      for (const one of [gone, kubelet]) {
        yield* one.greet
        yield* one.ask(calls.addMatch())
      }
      gone.close()
      yield* Fiber.join(yield* goDown)
      const [signal] = yield* kubelet.ask()
      assert.strictEqual(signal?.fields.member, "PrepareForShutdown")
    }),
  )
})
