// The supervisor's states, one by one, on the test's clock.
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Readiness from "@kios/core/Readiness"
import * as RestartPolicy from "@kios/core/RestartPolicy"
import { type ProcessSpec, Supervisor } from "@kios/core/Supervisor"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, inTurn, prints, type Program } from "@kios/core/testing/TestPrograms"

const supervised = (program: Program, spec: Partial<ProcessSpec> = {}) =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ programs: { "/bin/agent": program } })
    const scope = yield* Scope.make()
    const process = yield* Supervisor.use((supervisor) =>
      supervisor.supervise({
        name: "agent",
        command: "/bin/agent",
        args: ["--listen", "7"],
        env: { PATH: "/bin" },
        readiness: Readiness.immediate,
        ...spec,
      }),
    ).pipe(Scope.provide(scope), Effect.provide(TestMachine.platform(machine)))
    yield* TestClock.adjust(0)
    const log = () => machine.log({ only: ["spawn", "kill"] })
    return { machine, process, scope, log, state: Effect.map(process.state, (state) => state._tag) }
  })

describe("start", () => {
  it.effect("a process is up once it is ready, and not before", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { log, process, state } = yield* supervised(forever, {
        readiness: Readiness.make("the gate", Deferred.await(gate)),
      })
      assert.strictEqual(yield* state, "Waiting")
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* state, "Up")
      yield* process.awaitUp("1 second")
      assert.deepStrictEqual(log(), ['spawn("/bin/agent", "--listen", "7")'])
    }),
  )

  it.effect("what it is started with reaches the process", () =>
    Effect.gen(function* () {
      const { machine } = yield* supervised(forever, { oomScoreAdj: -999 })
      const [entry] = machine.processes()
      assert.deepInclude(entry, {
        command: "/bin/agent",
        args: ["--listen", "7"],
        env: { PATH: "/bin" },
        oomScoreAdj: -999,
      })
    }),
  )

  it.effect("who needs it and does not get it is told why: what it last said and how it ended", () =>
    Effect.gen(function* () {
      const { process } = yield* supervised(prints(["reading config", "panic: no config"], exits(2)))
      const failure = yield* Effect.flip(
        Effect.raceFirst(process.awaitUp(0), Effect.andThen(TestClock.adjust("1 second"), Effect.never)),
      ).pipe(Effect.catch(() => Effect.die("it was up")))
      assert.match(
        failure.message,
        /^agent was not up within 0(ms|ns)?: it last ended with exit code 2 after \d+ ms, saying: reading config \| panic: no config$/u,
      )
    }),
  )

  it.effect("and without a death, what it is waiting for", () =>
    Effect.gen(function* () {
      const { process } = yield* supervised(forever, {
        readiness: Readiness.make("GET /healthz", Effect.never),
      })
      const fiber = yield* Effect.forkChild(Effect.flip(process.awaitUp("5 seconds")), {
        startImmediately: true,
      })
      yield* TestClock.adjust("5 seconds")
      const failure = yield* Fiber.join(fiber)
      assert.strictEqual(
        failure.message,
        "agent was not up within 5s: it is Waiting and has not answered GET /healthz",
      )
    }),
  )

  it.effect("a program that cannot be started is tried again", () =>
    Effect.gen(function* () {
      const { machine, process, state } = yield* supervised(forever, { command: "/bin/missing" })
      assert.strictEqual(yield* state, "BackingOff")
      assert.match(
        (yield* process.lastDeath)?.reason ?? "",
        /^could not be started: spawn\("\/bin\/missing"\): ENOENT \(no such executable/u,
      )
      yield* TestClock.adjust("10 seconds")
      assert.isAbove(machine.log({ only: ["spawn"] }).length, 3)
    }),
  )
})

describe("death", () => {
  it.effect("is followed by a start after a delay that doubles up to the cap", () =>
    Effect.gen(function* () {
      const { process, state } = yield* supervised(exits(1), {
        restart: { initial: "1 second", maximum: "8 seconds", stableAfter: "1 minute" },
      })
      const delays: Array<number> = []
      for (let death = 0; death < 7; death++) {
        assert.strictEqual(yield* state, "BackingOff")
        const now = yield* process.state
        const delay = now._tag === "BackingOff" ? now.delayMs : Number.NaN
        delays.push(delay)
        const starts = yield* process.starts
        yield* TestClock.adjust(delay * 0.9)
        assert.strictEqual(yield* process.starts, starts)
        yield* TestClock.adjust(delay * 0.1 + 1)
        assert.strictEqual(yield* process.starts, starts + 1)
      }
      for (const [index, nominal] of [1000, 2000, 4000, 8000, 8000, 8000, 8000].entries()) {
        assert.isAtLeast(delays[index] ?? 0, nominal * 0.8)
        assert.isAtMost(delays[index] ?? 0, nominal * 1.2)
      }
    }),
  )

  it.effect("is forgotten when it was up for long enough", () =>
    Effect.gen(function* () {
      const { machine, process } = yield* supervised(
        inTurn(exits(1), exits(1), exits(1), exits(0, "2 minutes"), forever),
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* process.starts, 4)
      yield* TestClock.adjust("2 minutes")
      assert.isTrue(
        machine.kmsg.some((line) =>
          /ended with exit code 0 after 120000 ms \(death 1 in a row\)/u.test(line),
        ),
        machine.kmsg.join("\n"),
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* process.starts, 5)
    }),
  )

  it.effect("by a signal is told by the signal's name, with the last lines of output", () =>
    Effect.gen(function* () {
      const { machine, process } = yield* supervised(
        prints(
          Array.from({ length: 60 }, (_, n) => `line ${n}`),
          forever,
        ),
      )
      yield* machine.kernel.kill(machine.processes()[0]?.pid ?? 0, "SIGKILL")
      yield* TestClock.adjust(0)
      const death = yield* process.lastDeath
      assert.strictEqual(death?.reason, "signal SIGKILL")
      assert.deepStrictEqual(death?.lastLines.slice(-1), ["line 59"])
      assert.strictEqual(death?.lastLines.length, 40)
    }),
  )

  it.effect("a process that is not ready in time is ended and started again", () =>
    Effect.gen(function* () {
      const { log, process } = yield* supervised(forever, {
        readiness: Readiness.make("GET /healthz", Effect.never),
        startTimeout: "30 seconds",
      })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* process.lastDeath)?.reason, "not ready within 30s (GET /healthz)")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        log().map((line) => line.replaceAll(/\d+/gu, "N").slice(0, 16)),
        ['spawn("/bin/agen', "kill(N, SIGTERM)", 'spawn("/bin/agen'],
      )
    }),
  )

  it.effect("while waiting to be ready is a death too", () =>
    Effect.gen(function* () {
      const { process, state } = yield* supervised(exits(3, "1 second"), {
        readiness: Readiness.make("never", Effect.never),
      })
      assert.strictEqual(yield* state, "Waiting")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* state, "BackingOff")
      assert.deepInclude(yield* process.lastDeath, { reason: "exit code 3", ranForMs: 1000 })
    }),
  )
})

describe("restart", () => {
  it.effect("ends the process and starts the next without delay, and counts as no death", () =>
    Effect.gen(function* () {
      const { log, process, state } = yield* supervised(forever)
      yield* process.restart
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* state, "Up")
      assert.strictEqual(yield* process.starts, 2)
      assert.isUndefined(yield* process.lastDeath)
      assert.strictEqual(log().length, 3)
    }),
  )

  it.effect("cuts a back-off short", () =>
    Effect.gen(function* () {
      const { process, state } = yield* supervised(inTurn(exits(1), forever), {
        restart: { initial: "1 hour", maximum: "1 hour", stableAfter: "1 minute" },
      })
      assert.strictEqual(yield* state, "BackingOff")
      yield* process.restart
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* state, "Up")
    }),
  )
})

describe("stop", () => {
  it.effect("is SIGTERM, and no more when that is enough", () =>
    Effect.gen(function* () {
      const { log, scope, state } = yield* supervised(forever)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* state, "Stopped")
      assert.match(log()[1] ?? "", /^kill\(\d+, SIGTERM\)$/u)
      assert.strictEqual(log().length, 2)
    }),
  )

  it.effect("is SIGKILL when the time after SIGTERM is over", () =>
    Effect.gen(function* () {
      const { log, scope, state } = yield* supervised(ignoring(["SIGTERM"]), { stopTimeout: "20 seconds" })
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("19 seconds")
      assert.strictEqual(yield* state, "Stopping")
      assert.strictEqual(log().length, 3)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      assert.strictEqual(yield* state, "Stopped")
      assert.match(log().slice(1).join(), /^kill\((\d+), SIGTERM\),kill\(\1, SIGCONT\),kill\(\1, SIGKILL\)$/u)
    }),
  )

  it.effect("while backing off starts nothing any more", () =>
    Effect.gen(function* () {
      const { log, process, scope, state } = yield* supervised(exits(1))
      yield* Scope.close(scope, Exit.void)
      const starts = yield* process.starts
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* process.starts, starts)
      assert.strictEqual(yield* state, "Stopped")
      assert.isFalse(log().some((line) => line.startsWith("kill")))
    }),
  )
})

describe("RestartPolicy", () => {
  const ms = (deaths: number, random: number, policy = RestartPolicy.standard) =>
    Duration.toMillis(RestartPolicy.delay(policy, deaths, random))
  it("doubles, with 80 % to 120 % of jitter", () => {
    assert.deepStrictEqual(
      [1, 2, 3, 4].map((deaths) => ms(deaths, 0.5)),
      [100, 200, 400, 800],
    )
    assert.strictEqual(ms(1, 0), 80)
    assert.strictEqual(ms(1, 1), 120)
  })
  it.prop(
    "is never longer than the cap and its jitter, nor shorter than the start, at any count",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 })),
    ],
    ([deaths, permille]) => {
      const delay = ms(deaths, permille / 1000)
      assert.isAtLeast(delay, 80)
      assert.isAtMost(delay, 36_000)
    },
  )
})

describe("faults", () => {
  it.effect("a defect does not end supervision", () =>
    Effect.gen(function* () {
      const { log, state } = yield* supervised(forever, {
        readiness: Readiness.make("a question with a bug", Effect.die(new Error("bug"))),
        restart: { initial: "1 second", maximum: "1 second", stableAfter: "1 minute" },
      })
      assert.strictEqual(yield* state, "BackingOff")
      yield* TestClock.adjust("3 seconds")
      assert.isAtLeast(log().filter((line) => line.startsWith("spawn")).length, 3)
    }),
  )

  it.effect("never being ready is no sign of health: the back-off grows", () =>
    Effect.gen(function* () {
      const { process, state } = yield* supervised(forever, {
        readiness: Readiness.make("nothing", Effect.never),
        startTimeout: "2 minutes",
        restart: { initial: "10 seconds", maximum: "1 hour", stableAfter: "1 minute" },
      })
      const delays: Array<number> = []
      for (let life = 0; life < 3; life++) {
        yield* TestClock.adjust("2 minutes")
        const now = yield* process.state
        delays.push(now._tag === "BackingOff" ? now.delayMs : -1)
        yield* TestClock.adjust(Duration.millis(delays.at(-1) ?? 0))
        assert.strictEqual(yield* state, "Waiting")
      }
      assert.isAbove(delays[1] ?? 0, delays[0] ?? 0)
      assert.isAbove(delays[2] ?? 0, delays[1] ?? 0)
    }),
  )

  it.effect("who restarts it and waits gets the new process", () =>
    Effect.gen(function* () {
      const { process } = yield* supervised(forever)
      const pid = Effect.map(process.state, (state) => ("pid" in state ? state.pid : undefined))
      const before = yield* pid
      yield* process.restart
      const waiting = yield* Effect.forkChild(process.awaitUp("10 seconds"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waiting)
      assert.notStrictEqual(yield* pid, before)
    }),
  )
})
