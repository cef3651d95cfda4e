import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Death from "@kios/core/Death"
import { Kernel } from "@kios/core/Kernel"
import { Kmsg } from "@kios/core/Kmsg"
import { down, endAndUnmount, release } from "@kios/core/internal/GoingDown"
import * as TestMachine from "@kios/core/testing/TestMachine"

const machineWith = (options: TestMachine.TestMachineOptions = {}) =>
  Effect.gen(function* () {
    const machine = TestMachine.make(options)
    for (const [fstype, target] of [
      ["proc", "/proc"],
      ["sysfs", "/sys"],
      ["tmpfs", "/var"],
      ["tmpfs", "/run"],
    ] as const) {
      yield* machine.kernel.makeDirectory(target)
      yield* machine.kernel.mount({ source: fstype, target, fstype, flags: [] })
    }
    const kmsg = yield* Effect.provide(Kmsg, TestMachine.platform(machine))
    return { machine, kmsg, faults: Death.faults(kmsg) }
  })

const DUMP = "/sys/module/printk/parameters/always_kmsg_dump"

it.effect("a request to stop restarts at once and keeps nothing", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith({ cmdline: "panic=10" })
    const fiber = yield* Effect.forkChild(down(machine.kernel, kmsg, "RESTART", { failed: false, faults }))
    yield* TestClock.adjust("1 millis")
    assert.deepStrictEqual(machine.reboots, ["RESTART"])
    assert.strictEqual(machine.read(DUMP), "N\n")
    assert.deepStrictEqual(machine.kmsg, [])
    yield* Fiber.interrupt(fiber)
  }),
)

it.effect("what init went on after is said once more and kept with the log", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith()
    faults.tell("uncaught exception", "again")
    const fiber = yield* Effect.forkChild(down(machine.kernel, kmsg, "POWER_OFF", { failed: false, faults }))
    yield* TestClock.adjust("1 millis")
    assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
    assert.strictEqual(machine.read(DUMP), "Y\n")
    assert.strictEqual(
      machine.kmsg.at(-1),
      "crit error init: went on after 1 fault: uncaught exception: again",
    )
    yield* Fiber.interrupt(fiber)
  }),
)

it.effect("a boot that failed keeps its log, waits panic= seconds and restarts", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith({ cmdline: "panic=10 panic=7" })
    const fiber = yield* Effect.forkChild(down(machine.kernel, kmsg, "RESTART", { failed: true, faults }))
    yield* TestClock.adjust("6900 millis")
    assert.strictEqual(machine.read(DUMP), "Y\n")
    assert.deepStrictEqual(machine.reboots, [])
    yield* TestClock.adjust("200 millis")
    assert.deepStrictEqual(machine.reboots, ["RESTART"])
    yield* Fiber.interrupt(fiber)
  }),
)

it.effect("with panic=0 it stays, its log kept for whoever presses Ctrl-Alt-Del", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith({ cmdline: "panic=0" })
    const fiber = yield* Effect.forkChild(down(machine.kernel, kmsg, "RESTART", { failed: true, faults }))
    yield* TestClock.adjust("365 days")
    assert.deepStrictEqual(machine.reboots, ["CAD_ON"])
    assert.strictEqual(machine.read(DUMP), "Y\n")
    assert.include(machine.kmsg.at(-1), "panic=0: staying here")
    yield* Fiber.interrupt(fiber)
  }),
)

it.effect("a kernel that keeps no log, and a disk that does not take its writes, hold nothing up", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith({ cmdline: "panic=1", latency: { sync: "1 day" } })
    machine.failOn("writeControl", "ENOENT")
    const fiber = yield* Effect.forkChild(down(machine.kernel, kmsg, "RESTART", { failed: true, faults }))
    yield* TestClock.adjust("32 seconds")
    assert.deepStrictEqual(machine.reboots, ["RESTART"])
    assert.include(
      machine.kmsg,
      "err error shutdown: sync takes longer than 30 seconds, going down without it",
    )
    yield* Fiber.interrupt(fiber)
  }),
)

it.effect("a machine that does not go down is the kernel's to end: init dies", () =>
  Effect.gen(function* () {
    const { faults, kmsg, machine } = yield* machineWith()
    machine.failOn("reboot", "EPERM")
    const exit = yield* Effect.exit(down(machine.kernel, kmsg, "RESTART", { failed: false, faults }))
    assert.isTrue(Exit.isFailure(exit))
  }),
)

it.effect("an unmount that hangs is left behind after a minute", () =>
  Effect.gen(function* () {
    const { kmsg, machine } = yield* machineWith({ latency: { umount: "1 day" } })
    const fiber = yield* Effect.forkChild(Effect.provideService(endAndUnmount(kmsg), Kernel, machine.kernel))
    yield* TestClock.adjust("59 seconds")
    assert.isUndefined(fiber.pollUnsafe())
    yield* TestClock.adjust("2 seconds")
    yield* Fiber.join(fiber)
    assert.include(machine.kmsg, "err error shutdown: not everything was unmounted within 60 seconds")
  }),
)

it.effect("a release that hangs, and can not be interrupted, is left behind after a minute", () =>
  Effect.gen(function* () {
    const { kmsg, machine } = yield* machineWith()
    const scope = yield* Scope.make()
    yield* Scope.addFinalizer(scope, Effect.uninterruptible(Effect.never))
    const fiber = yield* Effect.forkChild(release(scope, kmsg))
    yield* TestClock.adjust("61 seconds")
    yield* Fiber.join(fiber)
    assert.match(
      machine.kmsg.at(-1) ?? "",
      /^err error shutdown: stages were not released within 60 seconds/u,
    )
  }),
)
