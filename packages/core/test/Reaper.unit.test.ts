// The reaper's rounds on the machine in memory; Reaper.kernel.test.ts is PID 1 of a real pid namespace.
import { assert, it } from "@effect/vitest"
import { Effect, Scope, Exit } from "effect"
import { TestClock } from "effect/testing"
import { Kernel } from "@kios/core/Kernel"
import * as Reaper from "@kios/core/Reaper"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, leaving } from "@kios/core/testing/TestPrograms"

const start = (command: string) => Kernel.use((kernel) => kernel.spawn({ command, args: [], env: {} }))

it.effect("a round takes every orphan that is dead, and nobody else", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      programs: {
        "/leaves": leaving([exits(1), exits(2), forever, exits(3, "1 minute")]),
        "/forever": forever,
      },
    })
    yield* Effect.gen(function* () {
      const parent = yield* start("/leaves")
      yield* start("/forever")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* parent.exit, { _tag: "Exited", code: 0 })
      assert.strictEqual(yield* Reaper.reapAll, 2)
      assert.strictEqual(yield* Reaper.reapAll, 0)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Reaper.reapAll, 1)
    }).pipe(Effect.provide(machine.layer))
    assert.strictEqual(machine.processes().length, 2)
    assert.deepStrictEqual(machine.stolen, [])
  }),
)

it.effect("the status of a supervised child is left for its spawner, and orphans behind it are reaped", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      lateCollection: 5,
      programs: { "/supervised": exits(7), "/leaves": leaving([exits(1)]) },
    })
    yield* Effect.gen(function* () {
      const child = yield* start("/supervised")
      yield* start("/leaves")
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* Reaper.reapAll, 1)
      assert.deepStrictEqual(yield* child.exit, { _tag: "Exited", code: 7 })
    }).pipe(Effect.provide(machine.layer))
    assert.deepStrictEqual(machine.stolen, [])
    assert.strictEqual(machine.log({ only: ["reap"] }).length, 1)
  }),
)

it.effect("a child that nobody collects ends the round instead of hanging it", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ lateCollection: 1_000_000, programs: { "/supervised": exits(7) } })
    yield* Effect.gen(function* () {
      yield* start("/supervised")
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* Reaper.reapAll, 0)
    }).pipe(Effect.provide(machine.layer))
    assert.deepStrictEqual(machine.stolen, [])
  }),
)

for (const [syscall, errno] of [
  ["waitid", "EINVAL"],
  ["waitpid", "EINVAL"],
] as const)
  it.effect(`${syscall} that fails is told and ends the round`, () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ programs: { "/leaves": leaving([exits(1)]) } })
      machine.failOn(syscall, errno)
      yield* Effect.gen(function* () {
        yield* start("/leaves")
        yield* TestClock.adjust(0)
        assert.strictEqual(yield* Reaper.reapAll, 0)
      }).pipe(Effect.provide(TestMachine.platform(machine)))
      assert.isTrue(
        machine.kmsg.some((line) => line.includes(`reaping orphans: ${syscall}(`) && line.includes(errno)),
      )
    }),
  )

it.effect("reaps on every SIGCHLD until its scope closes, also those from before it ran", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      programs: {
        "/leaves": leaving([exits(1, "1 second"), exits(1, "2 seconds"), exits(1, "3 seconds"), exits(1)]),
      },
    })
    const scope = yield* Scope.make()
    yield* Effect.gen(function* () {
      yield* start("/leaves")
      yield* TestClock.adjust(0)
      yield* Scope.provide(Reaper.run, scope)
      const zombies = () => machine.processes().filter((process) => process.status !== undefined).length
      for (let second = 0; second < 3; second++) {
        yield* TestClock.adjust(second === 0 ? 0 : "1 second")
        assert.strictEqual(zombies(), 0)
      }
      assert.strictEqual(machine.processes().length, 1)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(zombies(), 1)
    }).pipe(Effect.provide(machine.layer))
  }),
)

it.effect("pids come again, and the reaper is not confused", () =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      pidMax: 6,
      programs: { "/leaves": leaving([exits(1)]), "/supervised": exits(9) },
    })
    const pids = new Set<number>()
    yield* Effect.gen(function* () {
      for (let round = 0; round < 20; round++) {
        const leaver = yield* start("/leaves")
        yield* TestClock.adjust(0)
        const child = yield* start("/supervised")
        pids.add(leaver.pid).add(child.pid)
        yield* TestClock.adjust(0)
        assert.strictEqual(yield* Reaper.reapAll, 1)
        assert.deepStrictEqual(yield* child.exit, { _tag: "Exited", code: 9 })
      }
    }).pipe(Effect.provide(machine.layer))
    assert.isAtMost(pids.size, 5)
    assert.deepStrictEqual(machine.processes(), [])
  }),
)
