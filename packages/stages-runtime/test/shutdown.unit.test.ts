// What stages do about going down: hear the button, keep how it went, and end containers in order.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { ShutdownLog as Kept } from "@kios/core/capabilities/ShutdownLog"
import { Shutdown } from "@kios/core/Shutdown"
import * as TestMachine from "@kios/core/testing/TestMachine"
import type { Grpc } from "@kios/stages-runtime/containerd/Grpc"
import { GrpcError } from "@kios/stages-runtime/containerd/GrpcStatus"
import {
  BinaryWriter,
  visitFields,
  writeBytes,
  writeMap,
  writeString,
} from "@kios/stages-runtime/containerd/Proto"
import { stopTasks } from "@kios/stages-runtime/containerd/StopTasks"
import * as PowerButton from "@kios/stages-runtime/PowerButton"
import * as ShutdownLog from "@kios/stages-runtime/ShutdownLog"
import { earlier } from "./support.ts"

const mounted = (options: TestMachine.TestMachineOptions = {}) =>
  Effect.gen(function* () {
    const machine = TestMachine.make(options)
    for (const [fstype, target] of [
      ["proc", "/proc"],
      ["sysfs", "/sys"],
      ["devtmpfs", "/dev"],
    ] as const) {
      yield* machine.kernel.makeDirectory(target)
      yield* machine.kernel.mount({ source: fstype, target, fstype, flags: [] })
    }
    return machine
  })

describe("the power button", () => {
  const press = { type: 1, code: 116, value: 1 }
  const up = (machine: TestMachine.TestMachine) =>
    Layer.build(
      PowerButton.stage.layer.pipe(
        Layer.provideMerge(Layer.provideMerge(earlier(), TestMachine.platform(machine))),
      ),
    )

  it.effect("powers off when it is pressed, and at nothing else", () =>
    Effect.gen(function* () {
      const machine = yield* mounted({ inputs: { event0: "Power Button", event1: "AT keyboard" } })
      yield* up(machine)
      machine.inputs.send("event0", { type: 1, code: 142, value: 1 }) // KEY_SLEEP
      machine.inputs.send("event0", { type: 1, code: 116, value: 0 })
      machine.inputs.send("event0", { type: 1, code: 116, value: 2 })
      machine.inputs.send("event0", { type: 0, code: 116, value: 1 })
      machine.inputs.send("event1", press)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(machine.reboots, [])
      machine.inputs.send("event0", press)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
      assert.include(machine.kmsg, 'notice shutting down action=POWER_OFF by="power button"')
    }),
  )

  it.effect("is heard when it appears later, or could not be opened at first", () =>
    Effect.gen(function* () {
      const machine = yield* mounted({ inputs: { event0: "Power Button" } })
      machine.failOn("watchInput", "ENODEV", { times: 1 })
      yield* up(machine)
      assert.isTrue(machine.kmsg.some((line) => line.includes("ENODEV")))
      machine.inputs.send("event0", press)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(machine.reboots, [])
      machine.inputs.add("event7", "Power Button")
      yield* TestClock.adjust("10 seconds")
      machine.inputs.send("event7", press)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
    }),
  )

  it.effect("that a machine does not have is nothing to tell", () =>
    Effect.gen(function* () {
      const machine = yield* mounted()
      yield* up(machine)
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
})

describe("how the machine goes down", () => {
  const FILE = "/var/log/kios/shutdown.json"
  const before = Layer.mergeAll(
    Layer.succeed(DataPartition, { device: undefined, mountPoint: "/run/kios/data" } as never),
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
  )
  /** A boot up to where it is released. */
  const boot = (machine: TestMachine.TestMachine, asks: boolean) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Layer.provideMerge(
          ShutdownLog.stage.layer,
          Layer.provideMerge(before, TestMachine.platform(machine)),
        ),
        scope,
      )
      const shutdown = Context.get(context, Shutdown)
      if (asks) yield* shutdown.request({ action: "HALT", by: "a test" })
      yield* TestClock.adjust("1 second")
      return { previous: Context.get(context, Kept).previous, release: Scope.close(scope, Exit.void) }
    })

  it.effect("is kept when it begins and when it ends, and the next boot says how it was", () =>
    Effect.gen(function* () {
      const machine = yield* mounted()
      const first = yield* boot(machine, true)
      assert.isUndefined(first.previous)
      assert.include(machine.read(FILE), '"kept": "begun"')
      yield* first.release
      assert.include(machine.read(FILE), '"kept": "released"')
      const second = yield* boot(machine, false)
      assert.match(second.previous ?? "", /^HALT asked by a test, which took \d+\.\d s$/u)
      assert.isFalse(machine.exists(FILE))
      assert.deepStrictEqual(yield* machine.kernel.readDirectory("/var/log/kios"), [
        "previous-shutdown-1970-01-01T00-00-01Z.json",
      ])
      assert.isTrue(machine.kmsg.some((line) => line.startsWith("info ") && line.includes("HALT asked by")))
      // Nobody asked.
      yield* second.release
      assert.isFalse(machine.exists(FILE))
    }),
  )

  it.effect("and did not come to its end, is a warning", () =>
    Effect.gen(function* () {
      const machine = yield* mounted()
      yield* boot(machine, true)
      const { previous } = yield* boot(machine, false)
      assert.strictEqual(previous, "HALT asked by a test, which did not come to its end")
      assert.isTrue(machine.kmsg.some((line) => line.startsWith("warning ") && line.includes("its end")))
    }),
  )

  it.effect("is read from a disk that holds anything, and kept of the last eight", () =>
    Effect.gen(function* () {
      const machine = yield* mounted({
        files: Object.fromEntries([
          [FILE, "{"],
          ...Array.from(
            { length: 9 },
            (_, n) => [`/var/log/kios/previous-shutdown-0${n}.json`, "{}"] as const,
          ),
        ]),
      })
      assert.isUndefined((yield* boot(machine, false)).previous)
      const names = yield* machine.kernel.readDirectory("/var/log/kios")
      assert.strictEqual(names.length, 8)
    }),
  )

  it.effect("is not read from what a pod has put there, nor written to it", () =>
    Effect.gen(function* () {
      const machine = yield* mounted({ files: { "/var/log/kios/": "", "/etc/passwd": "root" } })
      yield* machine.kernel.makeFifo(FILE)
      yield* machine.kernel.symlink("/etc/passwd", `${FILE}.new`)
      assert.isUndefined((yield* boot(machine, true)).previous)
      assert.strictEqual(machine.read("/etc/passwd"), "root")
      assert.include(machine.read(FILE), '"kept": "begun"')
    }),
  )

  it("names what went wrong", () => {
    const step = { startMs: 1000, endMs: 61_000, remarks: ["killing a (7)"] }
    const record = {
      version: 1,
      clock: "CLOCK_MONOTONIC",
      stages: [],
      milestones: [],
      shutdown: {
        requests: [
          { action: "POWER_OFF", by: "power button", atMs: 1000 },
          { action: "RESTART", by: "SIGINT", atMs: 3000 },
        ],
        steps: [{ ...step, name: "stages", outcome: "late" }],
      },
      kept: "released",
    } as const
    assert.strictEqual(
      ShutdownLog.summary(record),
      "POWER_OFF asked by power button, then RESTART asked by SIGINT, which took 60.0 s; stages late; killing a (7)",
    )
  })
})

describe("containers", () => {
  interface Fake {
    readonly kind: "container" | "sandbox"
    readonly obeys: boolean
  }
  /** As much of containerd as ending containers takes. */
  const containerd = (all: Readonly<Record<string, Fake>>) => {
    const running = new Map(Object.entries(all))
    const log: Array<string> = []
    const labels = (id: string): Record<string, string> => ({
      "io.cri-containerd.kind": all[id]?.kind ?? "",
      "io.kubernetes.pod.namespace": "default",
      "io.kubernetes.pod.name": "web",
      "io.kubernetes.container.name": id,
    })
    const answer = (method: string, request: Uint8Array): Uint8Array => {
      const fields = new Map<number, string | bigint>()
      visitFields(request, (field) =>
        fields.set(field.number, field.bytes.length > 0 ? Buffer.from(field.bytes).toString() : field.varint),
      )
      const id = String(fields.get(1))
      if (method.endsWith("Tasks/List")) {
        const writer = new BinaryWriter()
        for (const name of running.keys())
          writeBytes(writer, 1, writeString(new BinaryWriter(), 2, name).tag(4, 0).int32(2).finish())
        return writer.finish()
      }
      if (method.endsWith("Containers/Get"))
        return writeBytes(
          new BinaryWriter(),
          1,
          writeMap(writeString(new BinaryWriter(), 1, id), 2, labels(id)).finish(),
        ).finish()
      const signal = Number(fields.get(3))
      log.push(`${id} ${signal}${fields.get(4) === undefined ? "" : " all"}`)
      if (signal === 9 || all[id]?.obeys === true) running.delete(id)
      return new Uint8Array(0)
    }
    const grpc = {
      unary: (method: string, request: Uint8Array, decode: (message: Uint8Array) => unknown) =>
        Effect.sync(() => decode(answer(method, request))),
    } as unknown as Grpc
    return { grpc, log, running }
  }
  const remarks: Array<string> = []
  const shutdown = {
    grace: (period: Parameters<Shutdown["Service"]["grace"]>[0]) =>
      Effect.interruptible(Effect.sleep(period)),
    remark: (text: string) => Effect.sync(() => void remarks.push(text)),
  }

  it.effect("end before their sandbox, and who does not is killed and named", () =>
    Effect.gen(function* () {
      remarks.length = 0
      const { grpc, log, running } = containerd({
        pause: { kind: "sandbox", obeys: true },
        good: { kind: "container", obeys: true },
        bad: { kind: "container", obeys: false },
      })
      const fiber = yield* stopTasks(grpc, { namespace: "k8s.io", grace: "10 seconds", shutdown }).pipe(
        Effect.uninterruptible,
        Effect.forkChild,
      )
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(log, ["good 15", "bad 15"])
      for (let second = 0; second < 5; second++) yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(log.slice(2), ["bad 9 all", "pause 15"])
      assert.deepStrictEqual(remarks, ["killing default/web bad"])
      assert.strictEqual(running.size, 0)
    }),
  )

  it.effect("that nobody runs take no time, and a containerd that is gone is told", () =>
    Effect.gen(function* () {
      const none = containerd({})
      yield* stopTasks(none.grpc, { namespace: "k8s.io", grace: "10 seconds", shutdown })
      assert.deepStrictEqual(none.log, [])
      const gone = {
        unary: (method: string) =>
          Effect.fail(new GrpcError({ method, address: "/c.sock", code: "UNAVAILABLE", reason: "gone" })),
      } as unknown as Grpc
      const error = yield* Effect.flip(
        stopTasks(gone, { namespace: "k8s.io", grace: "10 seconds", shutdown }),
      )
      assert.strictEqual(error.code, "UNAVAILABLE")
    }),
  )
})
