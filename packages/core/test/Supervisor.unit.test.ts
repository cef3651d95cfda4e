// The supervisor's states, one by one, on the test's clock.
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, References, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Events } from "@kios/core/Events"
import { KernelError } from "@kios/core/KernelError"
import * as Liveness from "@kios/core/Liveness"
import * as Readiness from "@kios/core/Readiness"
import * as RestartPolicy from "@kios/core/RestartPolicy"
import { type ProcessSpec, Supervisor } from "@kios/core/Supervisor"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, inTurn, prints, type Program } from "@kios/core/testing/TestPrograms"

const supervised = (
  program: Program,
  spec: Partial<ProcessSpec> = {},
  files: TestMachine.TestMachineOptions["files"] = {},
) =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      programs: { "/bin/agent": program },
      files: { ...files, ...(spec.cgroup === undefined ? {} : { "/cg/memory.events": "oom_kill 0\n" }) },
    })
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

describe("arguments that are an Effect", () => {
  it.effect("are asked for before each start", () =>
    Effect.gen(function* () {
      let asked = 0
      const { log, process } = yield* supervised(forever, { args: Effect.sync(() => [`--run=${++asked}`]) })
      yield* process.restart
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        log().filter((line) => line.startsWith("spawn")),
        ['spawn("/bin/agent", "--run=1")', 'spawn("/bin/agent", "--run=2")'],
      )
    }),
  )
  it.effect("that cannot be had are a start that failed, and are asked for again", () =>
    Effect.gen(function* () {
      let asked = 0
      const { log, machine } = yield* supervised(forever, {
        args: Effect.suspend(() =>
          asked++ === 0
            ? Effect.fail(new KernelError({ syscall: "open", errno: "EMFILE" }))
            : Effect.succeed([]),
        ),
      })
      assert.deepStrictEqual(log(), [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log(), ['spawn("/bin/agent")'])
      assert.include(machine.kmsg.join("\n"), "could not be started: open(): EMFILE")
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

describe("a condition for starting again", () => {
  const dying = (restartWhen: Effect.Effect<void>) =>
    supervised(inTurn(exits(1), exits(1), forever), {
      restart: { initial: "1 second", maximum: "1 second", stableAfter: "1 minute" },
      restartWhen,
    })

  it.effect("makes the back-off last until it holds", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { process, state } = yield* dying(Deferred.await(gate))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* state, "BackingOff")
      assert.strictEqual(yield* process.starts, 1)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* state, "Up")
      assert.strictEqual(yield* process.starts, 3)
    }),
  )

  it.effect("holds up neither a restart that is asked for nor the end", () =>
    Effect.gen(function* () {
      const { process, scope, state } = yield* dying(Effect.never)
      yield* TestClock.adjust("1 hour")
      yield* process.restart
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* process.starts, 2)
      assert.strictEqual(yield* state, "BackingOff")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* state, "Stopped")
    }),
  )

  it.effect("that breaks is none", () =>
    Effect.gen(function* () {
      const { state } = yield* dying(Effect.die("a bug"))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* state, "Up")
    }),
  )
})

describe("liveness", () => {
  /** Answers until it is told not to. */
  const answering = () => {
    const switch_ = { answers: true, asked: 0 }
    const probe = Effect.suspend(() => {
      switch_.asked++
      return switch_.answers ? Effect.void : Effect.never
    })
    return { switch_, liveness: Liveness.make("GET /healthz", probe) }
  }

  it.effect("a process that no longer answers is ended and started again", () =>
    Effect.gen(function* () {
      const { liveness, switch_ } = answering()
      const { log, machine, process, state } = yield* supervised(forever, { liveness })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* process.starts, 1)
      assert.strictEqual(switch_.asked, 720)
      switch_.answers = false
      // The next probe, and three more: 5 s each.
      yield* TestClock.adjust("24 seconds")
      assert.strictEqual(yield* state, "Up")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        (yield* process.lastDeath)?.reason,
        "unresponsive: no answer to GET /healthz within 5s",
      )
      assert.match(log()[1] ?? "", /^kill\(\d+, SIGTERM\)$/u)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* process.starts, 2)
      assert.isTrue(
        machine.kmsg.some((line) => line.includes("agent: unresponsive: 4 probes failed in a row")),
        machine.kmsg.join("\n"),
      )
    }),
  )

  it.effect("one that answers now and then is left alone", () =>
    Effect.gen(function* () {
      let asked = 0
      const { process } = yield* supervised(forever, {
        liveness: Liveness.make(
          "a question",
          Effect.suspend(() => (++asked % 4 === 0 ? Effect.void : Effect.fail("busy"))),
        ),
      })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* process.starts, 1)
    }),
  )

  it.effect(
    "a question that breaks is one without an answer, and a process that ignores SIGTERM is killed",
    () =>
      Effect.gen(function* () {
        const { log, process } = yield* supervised(inTurn(ignoring(["SIGTERM"]), forever), {
          liveness: Liveness.make("a question", Effect.die(new Error("bug")), {
            every: "1 second",
            failures: 2,
          }),
          stopTimeout: "7 seconds",
        })
        yield* TestClock.adjust("8999 millis")
        assert.deepStrictEqual(
          log()
            .slice(1)
            .map((line) => line.replace(/\d+/u, "N")),
          ["kill(N, SIGTERM)", "kill(N, SIGCONT)"],
        )
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* process.lastDeath, {
          reason: "unresponsive: bug",
          status: { _tag: "Signaled", signal: "SIGKILL" },
          ranForMs: 9000,
        })
      }),
  )

  it.effect("nobody is asked before it is up, nor after it is gone", () =>
    Effect.gen(function* () {
      const { liveness, switch_ } = answering()
      const gate = yield* Deferred.make<void>()
      const { scope } = yield* supervised(forever, {
        liveness,
        readiness: Readiness.make("the gate", Deferred.await(gate)),
      })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(switch_.asked, 0)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(switch_.asked, 6)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(switch_.asked, 6)
    }),
  )

  it.live("the time in which init itself does not run is not held against the process", () =>
    Effect.gen(function* () {
      // The answer takes a few turns of the loop, which stands still for longer than the answer may take.
      const answer = Effect.sleep("20 millis").pipe(Effect.repeat({ times: 3 }), Effect.asVoid)
      const asking = yield* Effect.forkChild(
        Liveness.ask(Liveness.make("a question", answer, { timeout: "2 seconds" })),
        { startImmediately: true },
      )
      const until = performance.now() + 2500
      while (performance.now() < until);
      yield* Fiber.join(asking)
    }),
  )
})

describe("events", () => {
  it.effect("every run has one start and one end, with its exit code or signal", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({
        programs: { "/bin/agent": inTurn(exits(3), exits(0, "1 second"), forever) },
      })
      const record = yield* Effect.gen(function* () {
        const scope = yield* Scope.make()
        const supervisor = yield* Supervisor
        const process = yield* Scope.provide(
          supervisor.supervise({
            name: "agent",
            command: "/bin/agent",
            args: [],
            env: {},
            readiness: Readiness.immediate,
          }),
          scope,
        )
        yield* TestClock.adjust("10 seconds")
        yield* machine.kernel.kill(machine.processes()[0]?.pid ?? 0, "SIGABRT")
        yield* TestClock.adjust("10 seconds")
        yield* process.restart
        yield* TestClock.adjust("10 seconds")
        yield* Scope.close(scope, Exit.void)
        return yield* Events.use((events) => events.current)
      }).pipe(Effect.provide(TestMachine.platform(machine)))
      assert.deepStrictEqual(
        record.events.flatMap((event) =>
          event.kind === "process-ended"
            ? [[event.run, event.exitCode ?? event.signal, event.wanted]]
            : event.kind === "process-started"
              ? [[event.run]]
              : [],
        ),
        [
          [1],
          [1, 3, false],
          [2],
          [2, 0, false],
          [3],
          [3, "SIGABRT", false],
          [4],
          [4, "SIGTERM", true],
          [5],
          [5, "SIGTERM", true],
        ],
      )
      assert.deepInclude(record.processes[0], { starts: 5, deaths: 3, wantedEnds: 2, pid: null })
    }),
  )

  it.effect("a SIGKILL that the kernel counts as its own is told so", () =>
    Effect.gen(function* () {
      for (const [kills, expected] of [
        ["1", "signal SIGKILL, by the kernel for want of memory"],
        ["0", "signal SIGKILL"],
      ] as const) {
        const { machine, process } = yield* supervised(forever, { cgroup: "/cg" }, { "/cg/cgroup.procs": "" })
        machine.write({ "/cg/memory.events": `low 0\noom 1\noom_kill ${kills}\n` })
        yield* machine.kernel.kill(machine.processes()[0]?.pid ?? 0, "SIGKILL")
        yield* TestClock.adjust(0)
        assert.strictEqual((yield* process.lastDeath)?.reason, expected)
      }
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

describe("interruption", () => {
  it.live("at any moment of its start leaves neither a process nor a scope that does not close", () =>
    Effect.gen(function* () {
      let ended = 0
      for (let turns = 0; turns < 400; turns += 4) {
        const machine = TestMachine.make({ programs: { "/bin/agent": forever } })
        const scope = yield* Scope.make()
        const supervising = Effect.gen(function* () {
          const supervisor = yield* Supervisor
          const process = yield* supervisor.supervise({
            name: "agent",
            command: "/bin/agent",
            args: [],
            env: {},
            readiness: Readiness.immediate,
          })
          yield* process.awaitUp("1 minute")
          ended++
        }).pipe(
          Scope.provide(scope),
          // A chance to be interrupted after every third operation.
          Effect.provideService(References.MaxOpsBeforeYield, 3),
          Effect.provide(TestMachine.platform(machine)),
        )
        const fiber = yield* Effect.forkChild(supervising, { startImmediately: true })
        for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        yield* Effect.timeout(Scope.close(scope, Exit.void), "10 seconds")
        assert.deepStrictEqual(machine.processes(), [], `interrupted after ${turns} turns`)
      }
      // It was interrupted before, within and after.
      assert.isAbove(ended, 0)
      assert.isBelow(ended, 100)
    }),
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
