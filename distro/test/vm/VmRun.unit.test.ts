import { assert, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as VmRun from "../../src/vm/VmRun.ts"
import { alive, fakeHost, type Scenario } from "./fixtures/FakeQemu.ts"

const started = "[    0.000000] Linux version 6.12.107 (x)"
const run = (scenario: Scenario, options: Partial<VmRun.RunOptions> = {}) =>
  Effect.gen(function* () {
    const host = yield* fakeHost(scenario)
    const progress: Array<VmRun.Progress> = []
    const result = yield* VmRun.run(
      {
        ...host.options,
        until: { milestones: ["ready"], pods: ["default/hello"] },
        timeout: "10 seconds",
        ...options,
      },
      (one) => Effect.sync(() => progress.push(one)),
    ).pipe(host.provide)
    assert.isFalse(alive(host.starts()[0]?.pid ?? 0))
    assert.deepStrictEqual(host.left(), [])
    return { result, progress, args: host.starts()[0]?.args ?? [] }
  })

it.live("reaches the goal and shows how, in order", () =>
  Effect.gen(function* () {
    const { args, progress, result } = yield* run({
      console: [
        started,
        "[ 1.5] kios: milestone ready",
        "[ 2.0] kios: milestone pod-running pod=default/hello",
      ],
    })
    assert.deepStrictEqual([result.reached, result.reason, result.missing], [true, undefined, []])
    assert.strictEqual(result.timeline.totalSeconds, 2)
    assert.isTrue((result.timeline.firmwareSeconds ?? -1) >= 0)
    assert.deepStrictEqual(
      progress.map((one) => (one._tag === "Event" ? one.event._tag : one._tag)),
      ["Started", "KernelStarted", "Milestone", "Milestone", "Finished"],
    )
    assert.include(args, "-no-reboot")
  }),
)

it.live("ends early and says why: exit, panic, QEMU's own stop", () =>
  Effect.gen(function* () {
    const exited = yield* run({
      console: [started, "[ 3.0] reboot: Power down"],
      shutdown: "guest-shutdown",
      exitAfter: 0,
    })
    assert.isFalse(exited.result.reached)
    assert.include(exited.result.reason, "powered itself off")
    assert.include(exited.result.reason, "still missing: milestone ready, pod default/hello running")
    const panic = yield* run({
      console: [
        started,
        "[ 3.0] Initramfs unpacking failed: write error",
        "[ 3.1] Kernel panic - not syncing: x",
      ],
    })
    assert.include(panic.result.reason, "more memory than 1024 MiB")
    assert.isBelow(panic.result.seconds, 9)
    const stopped = yield* run({ console: [started], status: "internal-error" })
    assert.include(stopped.result.reason, "tcg")
  }),
)

it.live("reports silence once with the last line, and the deadline", () =>
  Effect.gen(function* () {
    const { progress, result } = yield* run(
      { console: [started, "[ 1.0] waiting for godot"] },
      { stallAfter: 100, timeout: 1000 },
    )
    const stalls = progress.filter((one) => one._tag === "Stalled")
    assert.strictEqual(stalls.length, 1)
    assert.strictEqual(stalls[0]?.lastLine, "[ 1.0] waiting for godot")
    assert.include(result.reason, "not reached within 1 s")
    assert.include(result.reason, "waiting for godot")
  }),
)

it.live("fails, rather than giving a verdict, when there is no machine", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ stderr: "no such machine", exit: 1 })
    const error = yield* Effect.flip(
      VmRun.runUntil({ ...host.options, until: {} }).pipe(Stream.runDrain, host.provide),
    )
    assert.strictEqual(error._tag, "QemuExited")
  }),
)

it.live("lets the machine be used after its goal, and shows the past to late watchers", () =>
  Effect.gen(function* () {
    const host = yield* fakeHost({ console: [started, "[ 1.0] kios: milestone ready"] })
    yield* Effect.gen(function* () {
      const machine = yield* VmRun.boot(host.options)
      assert.isTrue((yield* machine.until({ milestones: ["ready"] }, { timeout: "5 seconds" })).reached)
      assert.isTrue(alive(machine.vm.pid))
      yield* machine.vm.qmp.quit
      const tags = (yield* Stream.runCollect(machine.progress)).map((one) => one._tag)
      assert.deepStrictEqual(tags, ["Started", "Event", "Event"])
    }).pipe(Effect.scoped, host.provide)
  }),
)

it.live("starts a guest again that the emulator broke, and takes a panic of its own for one", () =>
  Effect.gen(function* () {
    const broken = [
      started,
      "[    6.2] Oops: int3: 0000 [#1] PREEMPT SMP PTI",
      "[    6.2] Kernel panic - not syncing: Fatal exception in interrupt",
    ]
    const until = (scenario: Parameters<typeof fakeHost>[0]) =>
      Effect.gen(function* () {
        const host = yield* fakeHost(scenario)
        return yield* Effect.gen(function* () {
          const machine = yield* VmRun.boot({ ...host.options, noReboot: true })
          return yield* machine.until({ milestones: ["ready"] }, { timeout: "8 seconds" })
        }).pipe(Effect.scoped, host.provide)
      })
    const ready = "[ 1.0] kios: milestone ready"
    const mended = yield* until({ console: broken, afterReset: [started, ready] })
    assert.isTrue(mended.reached)
    assert.deepStrictEqual(
      mended.events.map((event) => event._tag),
      ["KernelStarted", "Milestone"],
    )
    // Not when the boot was complete, and not for ever.
    const late = [started, "[ 1.0] kios: milestone boot-complete", ...broken.slice(1)]
    assert.include((yield* until({ console: late, afterReset: [started, ready] })).reason, "panic")
    assert.include((yield* until({ console: broken, afterReset: broken })).reason, "panic")
  }),
)
