import { assert, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Qemu from "../../src/vm/Qemu.ts"
import * as Qmp from "../../src/vm/Qmp.ts"
import { VmRequirementMissing } from "../../src/vm/VmError.ts"
import { VmHost } from "../../src/vm/VmHost.ts"
import { alive, fakeHost } from "./fixtures/FakeQemu.ts"

it.live("switches on, prints, and leaves nothing behind", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ console: ["hello", "world"] })
    const seen = yield* Effect.scoped(
      Effect.gen(function* () {
        const vm = yield* Qemu.start({
          ...host.options,
          ports: ["a"],
          network: "user",
          forwards: [{ hostPort: 0, guestPort: 80 }],
        })
        assert.isAbove(vm.forwards[0]?.hostPort ?? 0, 0)
        assert.strictEqual(vm.qmp.version, "9.1.2")
        assert.isTrue(alive(vm.pid) && fs.existsSync(vm.directory) && fs.existsSync(vm.ports["a"] ?? ""))
        assert.strictEqual(fs.readFileSync(path.join(vm.directory, "OVMF_VARS.fd"), "utf8"), "vars.fd")
        return yield* vm.console.lines.pipe(Stream.take(2), Stream.runCollect)
      }),
    ).pipe(host.provide)
    assert.deepStrictEqual(
      seen.map((line) => line.text),
      ["hello", "world"],
    )
    assert.deepStrictEqual(host.left(), [])
    assert.isFalse(alive(host.starts()[0]?.pid ?? 0))
  }),
)

it.live("is gone after an interruption too, also when it does not want to", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ stubborn: true })
    const fiber = yield* Effect.forkChild(
      Effect.scoped(Effect.andThen(Qemu.start(host.options), Effect.never)).pipe(host.provide),
    )
    while (host.starts().length === 0 || !(host.left()[0] !== undefined)) yield* Effect.sleep(20)
    yield* Fiber.interrupt(fiber)
    assert.isFalse(alive(host.starts()[0]?.pid ?? 0))
    assert.deepStrictEqual(host.left(), [])
  }),
)

it.live("says why QEMU did not start", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ stderr: "qemu: -foo: invalid option\n", exit: 1 })
    const error = yield* Effect.flip(Effect.scoped(Qemu.start(host.options)).pipe(host.provide))
    assert.strictEqual(error._tag, "QemuExited")
    assert.include(
      error.message,
      "exit code 1 while creating the machine, saying: qemu: -foo: invalid option",
    )
    assert.deepStrictEqual(host.left(), [])
  }),
)

it.live("chooses other ports when one was taken in the meantime", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ stderr: "Could not set up host forwarding rule 'x'\n", exit: 1 })
    const options = { ...host.options, network: "user" as const }
    yield* Effect.flip(
      Effect.scoped(Qemu.start({ ...options, forwards: [{ hostPort: 0, guestPort: 80 }] })).pipe(
        host.provide,
      ),
    )
    assert.strictEqual(host.starts().length, 5)
    assert.deepStrictEqual(host.left(), [])
  }),
)

it.live("does not wait for ever for a monitor", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ silent: true })
    const error = yield* Effect.flip(
      Effect.scoped(Qemu.start({ ...host.options, monitorTimeoutMs: 300 })).pipe(host.provide),
    )
    assert.strictEqual(error._tag, "QmpError")
    assert.isFalse(alive(host.starts()[0]?.pid ?? 0))
  }),
)

it.live("names what is missing, with the command that installs it", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({})
    const start = Effect.flip(Effect.scoped(Qemu.start(host.options)))
    process.env["KIOS_QEMU"] = "/nonexistent/qemu"
    const missing = yield* start.pipe(Effect.ensuring(Effect.sync(() => delete process.env["KIOS_QEMU"])))
    assert.instanceOf(missing, VmRequirementMissing)
    assert.include(missing.message, "apt-get install qemu-system-x86 ovmf")
    const found = yield* VmHost
    process.env["KIOS_OVMF_CODE"] = process.env["KIOS_OVMF_VARS"] = "/nonexistent/fd"
    const firmware = yield* Effect.flip(found.firmware).pipe(
      Effect.ensuring(Effect.sync(() => ["CODE", "VARS"].map((n) => delete process.env[`KIOS_OVMF_${n}`]))),
    )
    assert.include(firmware.message, "/nonexistent/fd")
    const efi = yield* Effect.flip(
      Effect.scoped(Qemu.start({ ...host.options, efi: "/no.efi" })).pipe(host.provide),
    )
    assert.include(efi.message, "efi: /no.efi does not exist")
  }),
)

it.live("boots from the disk that it is given a maker for", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({})
    const disk = { ...host.options, boot: "disk" as const }
    const without = yield* Effect.flip(Effect.scoped(Qemu.start(disk)).pipe(host.provide))
    assert.include(without.message, "makeEspDisk")
    const failing = yield* Effect.flip(
      Effect.scoped(Qemu.start({ ...disk, makeEspDisk: () => Effect.fail(new Error("disk full")) })).pipe(
        host.provide,
      ),
    )
    assert.include(failing.message, "disk full")
    yield* Effect.scoped(
      Qemu.start({
        ...disk,
        makeEspDisk: ({ disk, efi }) => Effect.sync(() => fs.copyFileSync(efi, disk)),
      }),
    ).pipe(host.provide)
    assert.isTrue(
      host
        .starts()
        .at(-1)
        ?.args.some((word) => word.includes("esp.img")),
    )
  }),
)

it.live("finds room for sockets when the directory's path is too long", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({})
    const deep = path.join(host.directory, "x".repeat(100))
    fs.mkdirSync(deep)
    const socket = yield* Effect.scoped(
      Effect.map(Qemu.start({ ...host.options, directory: deep, ports: ["a"] }), (vm) => vm.ports["a"] ?? ""),
    ).pipe(host.provide)
    assert.isBelow(socket.length, 108)
    assert.isFalse(fs.existsSync(path.dirname(socket)))
    assert.deepStrictEqual(fs.readdirSync(deep), [])
  }),
)

it.live("speaks QMP: answers, refusals, deadlines, events, the end", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ shutdown: "guest-shutdown", exitAfter: 0 })
    yield* Effect.gen(function* () {
      const vm = yield* Qemu.start(host.options)
      const events = yield* Stream.runCollect(vm.qmp.events)
      assert.deepStrictEqual(
        events.map((event) => event.event),
        ["SHUTDOWN"],
      )
      assert.strictEqual((yield* vm.exit).shutdownReason, "guest-shutdown")
      assert.strictEqual((yield* Effect.flip(vm.qmp.systemPowerdown)).reason, "closed")
    }).pipe(Effect.scoped, host.provide)
    const patient = yield* fakeHost({})
    yield* Effect.gen(function* () {
      const { qmp } = yield* Qemu.start(patient.options)
      assert.deepStrictEqual(yield* qmp.queryStatus, { status: "running", running: true })
      yield* qmp.sendKey(["ctrl", "alt", "delete"])
      const refused = yield* Effect.flip(qmp.execute("unknown"))
      assert.deepStrictEqual([refused.reason, refused.errorClass], ["refused", "CommandNotFound"])
      assert.strictEqual(
        (yield* Effect.flip(qmp.execute("never-answered", {}, { timeoutMs: 50 }))).reason,
        "timeout",
      )
    }).pipe(Effect.scoped, patient.provide)
    const nobody = yield* Effect.flip(Effect.scoped(Qmp.connect({ path: "/nonexistent", timeoutMs: 60 })))
    assert.strictEqual(nobody.reason, "connect")
  }),
)

it.live("reports an interruption as one, not as a failure", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({})
    const fiber = yield* Effect.forkChild(
      Effect.scoped(Effect.andThen(Qemu.start(host.options), Effect.never)).pipe(host.provide),
    )
    yield* Fiber.interrupt(fiber)
    const exit = yield* Fiber.await(fiber)
    assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    assert.deepStrictEqual(host.left(), [])
  }),
)
