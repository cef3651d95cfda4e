import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
import type { State } from "@kios/core/Supervisor"
import * as Stage from "@kios/stages-kubelet/SystemSocket"
import { isOver, settle, up } from "./socketStage.ts"

const SOCKET = "/run/system.sock"
const bytes = (...values: ReadonlyArray<number>) => Uint8Array.from(values)

/** The stage, with a kubelet of this pid and a runtime, whose restarts are counted. */
const start = (pid?: number) =>
  Effect.gen(function* () {
    const node = yield* up(Stage.stage.layer, SOCKET)
    const restarts: Array<string> = []
    const processes = yield* Scope.make()
    const known = Effect.gen(function* () {
      const { restartable } = yield* Effect.provide(SystemSocket, node.services)
      for (const what of ["kubelet", "runtime"] as const)
        yield* restartable(what, {
          restart: Effect.sync(() => void restarts.push(what)),
          state: Effect.sync((): State => (pid === undefined ? { _tag: "Starting" } : { _tag: "Up", pid })),
        })
    }).pipe(Scope.provide(processes))
    return { ...node, restarts, known, processes }
  })
/** A kubelet's process on that machine. */
const plant = (node: { readonly machine: { readonly write: (files: never) => void } }, pid: number) =>
  node.machine.write({ [`/proc/${pid}/ns/pid`]: { symlink: "pid:[4026531836]" } } as never)

describe("the system socket", () => {
  it.effect("listens for root alone", () =>
    Effect.gen(function* () {
      const { machine } = yield* start()
      assert.strictEqual(machine.modeOf(SOCKET), 0o600)
    }),
  )

  it.effect("0x01 asks for a shutdown, which is told to every client by 0x01", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const [asking, other] = [node.client(), node.client()]
      asking.send(bytes(1))
      yield* settle
      assert.deepStrictEqual(node.requests, [{ action: "POWER_OFF", by: "the system socket, pid=1" }])
      yield* Fiber.join(yield* node.steps)
      assert.deepStrictEqual([...asking.take()], [1])
      assert.deepStrictEqual([...other.take()], [1])
      // Said again, it is no second request, which would take the pods' grace.
      asking.send(bytes(1, 1, 1))
      yield* settle
      assert.lengthOf(node.requests, 1)
    }),
  )

  it.effect("a patched kubelet is waited for until it says 0x02, which then is no more than that", () =>
    Effect.gen(function* () {
      const node = yield* start(300)
      yield* node.known
      plant(node, 300)
      const kubelet = node.client({ pid: 300 })
      yield* settle
      const down = yield* node.goDown
      assert.deepStrictEqual([...kubelet.take()], [1])
      yield* TestClock.adjust("10 minutes")
      assert.isFalse(isOver(down))
      kubelet.send(bytes(2))
      yield* settle
      assert.isTrue(isOver(down))
      assert.deepStrictEqual(node.requests, [])
    }),
  )

  it.effect("a patched kubelet that dies is waited for no longer", () =>
    Effect.gen(function* () {
      const node = yield* start(300)
      yield* node.known
      plant(node, 300)
      const kubelet = node.client({ pid: 300 })
      yield* settle
      const down = yield* node.goDown
      kubelet.close()
      yield* Fiber.join(down)
    }),
  )

  it.effect("a patched kubelet that never answers is left behind", () =>
    Effect.gen(function* () {
      const node = yield* start(300)
      yield* node.known
      plant(node, 300)
      node.client({ pid: 300 })
      yield* settle
      const down = yield* node.goDown
      yield* TestClock.adjust("19 minutes")
      assert.isFalse(isOver(down))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(down)
    }),
  )

  it.effect("nobody waits for a client that only listens, nor for one that does not read", () =>
    Effect.gen(function* () {
      const node = yield* start(300)
      yield* node.known
      const [listening] = [node.client(), node.client()]
      yield* settle
      node.machine.failOn("send", "EAGAIN", { times: 1 })
      yield* Fiber.join(yield* node.goDown)
      assert.deepStrictEqual([...listening.take()], [])
    }),
  )

  it.effect("0x02 without a shutdown is one without grace, and during one it hurries", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const client = node.client()
      client.send(bytes(2))
      yield* settle
      assert.lengthOf(node.requests, 2)
      client.send(bytes(2))
      yield* settle
      assert.lengthOf(node.requests, 3)
    }),
  )

  it.effect("0x03 restarts the kubelet and 0x04 the runtime", () =>
    Effect.gen(function* () {
      const node = yield* start()
      yield* node.known
      const client = node.client()
      client.send(bytes(3))
      yield* settle
      assert.deepStrictEqual(node.restarts, ["kubelet"])
      client.send(bytes(4))
      yield* settle
      assert.deepStrictEqual(node.restarts, ["kubelet", "runtime"])
      assert.deepStrictEqual(node.requests, [])
      assert.isFalse(client.closed())
    }),
  )

  it.effect("restarts that are asked for faster than they are done are one", () =>
    Effect.gen(function* () {
      const node = yield* start()
      yield* node.known
      const clients = [node.client(), node.client(), node.client()]
      for (const client of clients) client.send(bytes(3, 3, 3, 3))
      yield* settle
      assert.lengthOf(node.restarts, 1)
      for (const client of clients) client.send(bytes(3, 3, 3, 3))
      yield* TestClock.adjust("10 seconds")
      assert.lengthOf(node.restarts, 2)
    }),
  )

  it.effect("nothing is restarted on a machine that goes down: a new kubelet would run its pods again", () =>
    Effect.gen(function* () {
      const node = yield* start()
      yield* node.known
      const client = node.client()
      yield* Fiber.join(yield* node.goDown)
      client.send(bytes(3, 4))
      yield* settle
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(node.restarts, [])
    }),
  )

  it.effect("a restart of what is not there yet, or no longer, says so", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const client = node.client()
      client.send(bytes(3))
      yield* settle
      yield* node.known
      yield* Scope.close(node.processes, Exit.void)
      client.send(bytes(4))
      yield* settle
      assert.deepStrictEqual(node.restarts, [])
      assert.match(node.machine.kmsg.join("\n"), /no kubelet yet[^]*no runtime yet/u)
    }),
  )

  for (const [who, peer] of [
    ["not root", { uid: 1000 }],
    ["of a pod", { pid: 77 }],
    ["gone", { pid: 4242 }],
  ] as const)
    it.effect(`who is ${who} commands nothing`, () =>
      Effect.gen(function* () {
        const node = yield* start()
        node.machine.write({ "/proc/77/ns/pid": { symlink: "pid:[4026532222]" } })
        const client = node.client(peer)
        client.send(bytes(1, 2, 2))
        yield* settle
        assert.isTrue(client.closed())
        assert.deepStrictEqual(node.requests, [])
      }),
    )

  for (const [what, sent] of [
    ["something else", "GET / HTTP/1.1\r\n\r\n"],
    ["0x00", "\0"],
    ["0x05", "\u0005"],
    ["a flood", "\u0003".repeat(1000)],
  ] as const)
    it.effect(`who sends ${what} is closed, and nobody else`, () =>
      Effect.gen(function* () {
        const node = yield* start()
        const [bad, good] = [node.client(), node.client()]
        bad.send(sent)
        yield* settle
        assert.isTrue(bad.closed())
        assert.isFalse(good.closed())
        assert.deepStrictEqual(node.requests, [])
        good.send(bytes(1))
        yield* settle
        assert.lengthOf(node.requests, 1)
      }),
    )
})
