// The way down of a machine in memory: the phases of PID 1, their time, and what is told of them.
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, type Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { BootReport } from "@kios/core/BootReport"
import * as Death from "@kios/core/Death"
import { Events } from "@kios/core/Events"
import { panicSeconds, works } from "@kios/core/internal/GoingDown"
import * as Coordinator from "@kios/core/internal/ShutdownCoordinator"
import { Kmsg, loggerLayer } from "@kios/core/Kmsg"
import * as Readiness from "@kios/core/Readiness"
import { Shutdown, type ShutdownAction } from "@kios/core/Shutdown"
import { Supervisor } from "@kios/core/Supervisor"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { ignoring } from "@kios/core/testing/TestPrograms"

const DUMP = "/sys/module/printk/parameters/always_kmsg_dump"

/** A machine that is up and driven as Init drives it; stages are what adds finalizers to `scope`. */
const node = Effect.fnUntraced(function* (
  options: TestMachine.TestMachineOptions = {},
  boot: Effect.Effect<void> = Effect.void,
) {
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
  const base = yield* Layer.build(
    loggerLayer.pipe(
      Layer.provideMerge(BootReport.layer),
      Layer.provideMerge(Events.layer),
      Layer.provideMerge(Layer.mergeAll(machine.layer, Kmsg.layerArray(machine.kmsg))),
    ),
  )
  const coordinator = yield* Effect.provideContext(Coordinator.make, base)
  const { shutdown } = coordinator
  const context = Context.add(base, Shutdown, shutdown)
  const scope = yield* Scope.make()
  const booting = yield* Effect.forkDetach(boot)
  const faults = Death.faults(Context.get(base, Kmsg))
  const work = yield* Effect.provideContext(
    works({ coordinator, booting, scope, faults, isInit: true }),
    context,
  )
  const driving = yield* Effect.forkChild(Effect.provideContext(coordinator.drive(work), context))
  const record = Effect.map(Context.get(base, BootReport).current, ({ shutdown: told }) => told)
  return {
    machine,
    coordinator,
    context,
    scope,
    faults,
    driving,
    /** Name and outcome of each step so far. */
    steps: Effect.map(record, (told) => (told?.steps ?? []).map(({ name, outcome }) => `${name} ${outcome}`)),
    record,
    ask: (action: ShutdownAction = "POWER_OFF", by = "a test") => shutdown.request({ action, by }),
    before: (name: string, deadline: Duration.Input, run: Effect.Effect<void>) =>
      Scope.provide(shutdown.before({ name, deadline, run }), scope),
    /** What a stage does when it is released. */
    stage: (release: Effect.Effect<void>) => Scope.addFinalizer(scope, release),
  }
})

const whole = ["boot done", "stages done", "processes done", "mounts done", "sync done"]

describe("in order", () => {
  it.effect("what comes first, the stages in reverse, processes, mounts, sync, reboot(2)", () =>
    Effect.gen(function* () {
      const { ask, before, machine, record, stage, steps } = yield* node()
      const order: Array<string> = []
      const say = (what: string) => Effect.sync(() => void order.push(what))
      yield* stage(say("stage 1"))
      yield* stage(say("stage 2"))
      yield* before("slow", "10 seconds", Effect.andThen(Effect.sleep("3 seconds"), say("slow")))
      yield* before("quick", "10 seconds", Effect.andThen(Effect.sleep("1 second"), say("quick")))
      yield* ask("POWER_OFF", "power button")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(order, ["quick"])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(order, ["quick", "slow", "stage 2", "stage 1"])
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
      assert.isUndefined(machine.mountAt("/var"))
      assert.deepStrictEqual(yield* steps, [
        "boot done",
        "before/slow done",
        "before/quick done",
        ...whole.slice(1),
      ])
      assert.include(machine.kmsg, 'notice shutting down action=POWER_OFF by="power button"')
      assert.include(machine.kmsg, "notice shutdown waits for slow, 10s at most")
      assert.deepInclude((yield* record)?.requests[0], { action: "POWER_OFF", by: "power button" })
      // Nothing went wrong, so the firmware's store is spared.
      assert.strictEqual(machine.read(DUMP), "N\n")
      assert.deepStrictEqual(
        machine.kmsg.filter((line) => /^(?:err|warning|crit)/.test(line)),
        [],
      )
    }),
  )

  it.effect("a step whose stage is gone is not waited for, and one that breaks holds nothing up", () =>
    Effect.gen(function* () {
      const { ask, before, coordinator, machine, steps } = yield* node()
      const step = { name: "gone", deadline: "1 hour", run: Effect.never } as const
      yield* Effect.scoped(coordinator.shutdown.before(step))
      yield* before("broken", "1 minute", Effect.die(new Error("a bug")))
      yield* ask()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
      assert.deepStrictEqual((yield* steps).slice(1, 2), ["before/broken failed"])
    }),
  )

  it.effect("a boot that still goes on is stopped, and one that does not stop is left behind", () =>
    Effect.gen(function* () {
      const { ask, machine } = yield* node({}, Effect.uninterruptible(Effect.never))
      yield* ask("RESTART")
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(machine.reboots, [])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(machine.reboots, ["RESTART"])
      assert.include(
        machine.kmsg,
        "err error shutdown: stopping the boot took longer than 5s, going on without it",
      )
    }),
  )
})

describe("deadlines", () => {
  const late: ReadonlyArray<readonly [string, Duration.Input, TestMachine.TestMachineOptions, string]> = [
    ["an unmount", "32 seconds", { latency: { umount: "1 day" } }, "unmounting took longer than 30s"],
    ["a sync", "31 seconds", { latency: { sync: "1 day" } }, "sync took longer than 30s"],
  ]
  for (const [name, within, options, told] of late)
    it.effect(`${name} that hangs is left behind, and the log is kept for the next boot`, () =>
      Effect.gen(function* () {
        const { ask, machine } = yield* node(options)
        yield* ask("RESTART")
        yield* TestClock.adjust("29 seconds")
        assert.deepStrictEqual(machine.reboots, [])
        yield* TestClock.adjust(within)
        assert.deepStrictEqual(machine.reboots, ["RESTART"])
        assert.include(machine.kmsg, `err error shutdown: ${told}, going on without it`)
      }),
    )

  it.effect("a step and a release that hang, and cannot be interrupted, are left behind", () =>
    Effect.gen(function* () {
      const { ask, before, machine, stage, steps } = yield* node()
      yield* stage(Effect.never)
      yield* before("stuck", "20 seconds", Effect.uninterruptible(Effect.never))
      yield* before("slow", "20 seconds", Effect.never)
      yield* ask()
      yield* TestClock.adjust("22 seconds")
      assert.deepStrictEqual(yield* steps, [
        "boot done",
        "before/stuck running",
        "before/slow late",
        "stages running",
      ])
      yield* TestClock.adjust("60 seconds")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
      assert.include(yield* steps, "stages late")
      assert.include(machine.kmsg, "err error shutdown: slow took longer than 20s, going on without it")
      assert.strictEqual(machine.read(DUMP), "Y\n")
    }),
  )

  it.effect("whatever hangs, reboot(2) comes within two minutes of what comes first", () =>
    Effect.gen(function* () {
      const { ask, before, machine, stage } = yield* node({
        latency: { umount: "1 day", sync: "1 day" },
        programs: { "/bin/agent": ignoring(["SIGTERM", "SIGKILL"]) },
      })
      yield* stage(Effect.never)
      yield* before("slow", "1 minute", Effect.never)
      yield* ask()
      yield* TestClock.adjust("61 seconds")
      yield* TestClock.adjust("2 minutes")
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
    }),
  )
})

describe("a second request", () => {
  it.effect("ends what is waited for first, gives processes 2 seconds, and takes its own action", () =>
    Effect.gen(function* () {
      const { ask, before, context, machine, scope, steps } = yield* node({
        programs: { "/bin/agent": ignoring(["SIGTERM"]) },
      })
      const supervisor = yield* Effect.provideContext(
        Effect.flatMap(Layer.build(Supervisor.layer), (built) =>
          Effect.succeed(Context.get(built, Supervisor)),
        ),
        context,
      )
      yield* Scope.provide(
        supervisor.supervise({
          name: "agent",
          command: "/bin/agent",
          args: [],
          env: {},
          readiness: Readiness.immediate,
          stopTimeout: "30 seconds",
        }),
        scope,
      )
      yield* TestClock.adjust("1 second")
      yield* before("pods", "1 hour", Effect.never)
      yield* ask("POWER_OFF")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* steps, ["boot done", "before/pods running"])
      yield* ask("RESTART", "Ctrl-Alt-Del")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* steps).slice(1), ["before/pods cut", "stages running"])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(machine.reboots, ["RESTART"])
      assert.include(
        machine.kmsg,
        "notice shutting down faster, asked a second time action=RESTART by=Ctrl-Alt-Del",
      )
    }),
  )

  it.effect("a grace period lasts as long as it is, and 2 seconds once somebody asks twice", () =>
    Effect.gen(function* () {
      const { ask, coordinator } = yield* node()
      const { grace, requested } = coordinator.shutdown
      // Where resources are released.
      const waits = yield* Effect.forkChild(Effect.uninterruptible(grace("10 seconds")))
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(waits)
      assert.isFalse(yield* requested)
      const cut = yield* Effect.forkChild(Effect.uninterruptible(grace("1 hour")))
      yield* ask()
      assert.isTrue(yield* requested)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(cut.pollUnsafe())
      yield* ask()
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(cut)
    }),
  )
})

it.effect("a third request goes straight to sync and reboot(2)", () =>
  Effect.gen(function* () {
    const { ask, machine, stage, steps } = yield* node()
    yield* stage(Effect.never)
    for (const action of ["POWER_OFF", "POWER_OFF", "HALT"] as const) {
      assert.deepStrictEqual(machine.reboots, [])
      yield* ask(action)
      yield* TestClock.adjust("1500 millis")
    }
    assert.deepStrictEqual(machine.reboots, ["HALT"])
    assert.deepStrictEqual(yield* steps, ["boot done", "stages cut", "sync done"])
    // It was not in order, so the next boot has to know.
    assert.strictEqual(machine.read(DUMP), "Y\n")
  }),
)

describe("a boot that failed", () => {
  it.effect("keeps its log, waits panic= seconds and restarts", () =>
    Effect.gen(function* () {
      const { coordinator, machine } = yield* node({ cmdline: "panic=10 panic=7" })
      yield* coordinator.bootFailed(yield* Effect.provide(panicSeconds, machine.layer))
      yield* TestClock.adjust("6900 millis")
      assert.strictEqual(machine.read(DUMP), "Y\n")
      assert.deepStrictEqual(machine.reboots, [])
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual(machine.reboots, ["RESTART"])
    }),
  )

  it.effect("with panic=0 it stays until somebody asks, or presses Ctrl-Alt-Del", () =>
    Effect.gen(function* () {
      const { ask, coordinator, machine } = yield* node({ cmdline: "panic=0" })
      yield* coordinator.bootFailed(0)
      yield* TestClock.adjust("365 days")
      assert.deepStrictEqual(machine.reboots, ["CAD_ON"])
      assert.isTrue(machine.kmsg.some((line) => line.includes("panic=0: staying here")))
      yield* ask("POWER_OFF", "power button")
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(machine.reboots, ["CAD_ON", "POWER_OFF"])
    }),
  )

  it.effect("because the machine goes down is no reason to wait", () =>
    Effect.gen(function* () {
      const { ask, coordinator, machine } = yield* node()
      yield* ask("POWER_OFF")
      yield* coordinator.bootFailed(3600)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(machine.reboots, ["POWER_OFF"])
    }),
  )
})

it.effect("what init went on after is said once more and kept with the log", () =>
  Effect.gen(function* () {
    const { ask, faults, machine } = yield* node()
    faults.tell("uncaught exception", "again")
    yield* ask()
    yield* TestClock.adjust("10 millis")
    assert.strictEqual(machine.read(DUMP), "Y\n")
    assert.include(machine.kmsg, "crit error init: went on after 1 fault: uncaught exception: again")
  }),
)

it.effect("a machine that does not go down is the kernel's to end: init dies", () =>
  Effect.gen(function* () {
    const { ask, driving, machine } = yield* node()
    machine.failOn("reboot", "EPERM")
    yield* ask()
    yield* TestClock.adjust("10 millis")
    assert.isTrue(Exit.isFailure(yield* Fiber.await(driving)))
  }),
)

it.effect("remarks stand in the record, with the step that they are about", () =>
  Effect.gen(function* () {
    const { ask, machine, record } = yield* node({
      filesystems: [...TestMachine.builtinFilesystems, "overlay"],
    })
    yield* machine.kernel.makeDirectory("/etc")
    yield* machine.kernel.mount({
      source: "overlay",
      target: "/etc",
      fstype: "overlay",
      flags: [],
      options: "lowerdir=/etc:/run",
    })
    machine.failOn("umount", "EBUSY", { path: "/etc" })
    yield* ask()
    yield* TestClock.adjust("10 millis")
    const mounts = (yield* record)?.steps.find(({ name }) => name === "mounts")
    assert.match(mounts?.remarks[0] ?? "", /^\/etc is busy, held by nobody that can be found$/u)
    assert.strictEqual(machine.read(DUMP), "Y\n")
  }),
)

it.effect("a request that came before anybody drove is not lost", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make()
    const asked = yield* Deferred.make<void>()
    yield* Effect.scoped(
      Effect.gen(function* () {
        const shutdown = yield* Shutdown
        yield* shutdown.before({
          name: "tell",
          deadline: "1 second",
          run: Deferred.succeed(asked, undefined),
        })
        yield* shutdown.request({ action: "RESTART", by: "a stage" })
        yield* Deferred.await(asked)
        yield* TestClock.adjust("10 millis")
      }).pipe(Effect.provide(TestMachine.platform(machine))),
    )
    assert.deepStrictEqual(machine.reboots, ["RESTART"])
  }),
)
