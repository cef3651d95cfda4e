import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Events } from "@kios/core/Events"
import { releaseWhenQuiet } from "@kios/core/internal/releaseMemory"
import * as TestMachine from "@kios/core/testing/TestMachine"

it.effect("memory is given back half a minute after the last event, once, and not without a new one", () => {
  const machine = TestMachine.make()
  const released = () => machine.calls.filter(({ operation }) => operation === "releaseMemory").length
  return Effect.gen(function* () {
    const events = yield* Events
    const event = events.publish({ kind: "process-started", process: "agent", run: 1, pid: 12 })
    yield* Effect.forkScoped(releaseWhenQuiet, { startImmediately: true })
    // The boot counts as one.
    yield* TestClock.adjust("29 seconds")
    yield* event
    yield* TestClock.adjust("29 seconds")
    assert.strictEqual(released(), 0)
    yield* TestClock.adjust("1 seconds")
    assert.strictEqual(released(), 1)
    yield* TestClock.adjust("1 hours")
    assert.strictEqual(released(), 1)
    for (let n = 0; n < 10; n++) {
      yield* event
      yield* TestClock.adjust("20 seconds")
    }
    assert.strictEqual(released(), 1)
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual(released(), 2)
  }).pipe(Effect.scoped, Effect.provide(TestMachine.platform(machine)))
})
