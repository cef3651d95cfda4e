// What supervision decides: each state by itself, and random events against a model of a process.
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Machine from "@kios/core/internal/SupervisorMachine"

const settings: Machine.Settings = {
  policy: { initialMs: 100, maximumMs: 1000, stableAfterMs: 5000 },
  startTimeoutMs: 3000,
  notReady: "not ready within 3s (a question)",
  stopTimeoutMs: 2000,
  liveness: { failures: 3 },
}
const at = (now: number): Machine.Moment => ({ now, random: 0.5 })
const exited = (run: number, code = 1): Machine.Input => ({
  _tag: "Exited",
  run,
  status: { _tag: "Exited", code },
  oomKilled: false,
})
const killed = (run: number, oomKilled = false): Machine.Input => ({
  _tag: "Exited",
  run,
  status: { _tag: "Signaled", signal: "SIGKILL" },
  oomKilled,
})

/** Goes through inputs, a millisecond each; returns the machine and the commands of the last input. */
const after = (...inputs: ReadonlyArray<Machine.Input>) => {
  let machine = Machine.initial
  let commands: ReadonlyArray<Machine.Command> = []
  for (const [index, input] of inputs.entries())
    [machine, commands] = Machine.step(settings, machine, input, at(index))
  return {
    machine,
    state: machine.state,
    signals: commands.flatMap((one) => (one._tag === "Signal" ? [`${one.signal} ${one.pid}`] : [])),
    news: commands.flatMap((one) => (one._tag === "Tell" ? [one.news] : [])),
    activities: Machine.activities(settings, machine).map(({ key }) => key),
  }
}
const start: Machine.Input = { _tag: "Start" }
const stop: Machine.Input = { _tag: "Stop" }
const restart: Machine.Input = { _tag: "Restart" }
const spawned = (run = 1, pid = 7): Machine.Input => ({ _tag: "Spawned", run, pid })
const ready = (run = 1): Machine.Input => ({ _tag: "Ready", run })
const timer = (name: Machine.Timer, run = 1): Machine.Input => ({ _tag: "TimeIsUp", run, timer: name })
const probe = (tag: "ProbePassed" | "ProbeFailed", run = 1): Machine.Input =>
  tag === "ProbePassed" ? { _tag: tag, run } : { _tag: tag, run, reason: "no answer" }

describe("Stopped", () => {
  it("does nothing but start", () => {
    assert.deepStrictEqual(after(start).activities, ["Spawn 1"])
    for (const input of [stop, restart, spawned(0), ready(0), exited(0), timer("back-off", 0)])
      assert.deepStrictEqual(after(input).machine, Machine.initial, input._tag)
  })
})

describe("Starting", () => {
  it("waits for readiness once it is spawned", () => {
    const { activities, news, state } = after(start, spawned())
    assert.deepStrictEqual(state, { _tag: "Waiting", pid: 7 })
    assert.deepStrictEqual(news, [{ _tag: "Started", pid: 7 }])
    assert.deepStrictEqual(activities, ["AwaitExit 1", "AwaitReady 1", "start timer 1"])
  })
  it("backs off from what cannot be spawned", () => {
    const { activities, news, state } = after(start, { _tag: "NotSpawned", run: 1, reason: "ENOENT" })
    assert.deepStrictEqual(state, { _tag: "BackingOff", delayMs: 100 })
    assert.deepInclude(news[0], {
      _tag: "Ended",
      reason: "could not be started: ENOENT",
      status: undefined,
      pid: undefined,
      wanted: false,
      deaths: 1,
      nextStartInMs: 100,
    })
    assert.deepStrictEqual(activities, ["back-off timer 1"])
  })
  it("a stop waits for the process, and then ends it", () => {
    assert.deepStrictEqual(after(start, stop).activities, ["Spawn 1"])
    const { news, signals, state } = after(start, stop, spawned())
    assert.deepStrictEqual(state, { _tag: "Stopping", pid: 7 })
    assert.deepStrictEqual(signals, ["SIGTERM 7", "SIGCONT 7"])
    assert.deepStrictEqual(news, [{ _tag: "Started", pid: 7 }])
    assert.strictEqual(
      after(start, stop, { _tag: "NotSpawned", run: 1, reason: "ENOENT" }).state._tag,
      "Stopped",
    )
  })
  it("a restart asks for what is going on", () => {
    assert.deepStrictEqual(after(start, restart).machine, after(start).machine)
  })
})

describe("Waiting", () => {
  it("is up when it is ready, and probed from then on", () => {
    const { activities, news, state } = after(start, spawned(), ready())
    assert.deepStrictEqual(state, { _tag: "Up", pid: 7 })
    assert.deepStrictEqual(news, [{ _tag: "Ready", pid: 7, afterMs: 2 }])
    assert.deepStrictEqual(activities, ["AwaitExit 1", "Probe 1"])
  })
  it("is ended when it is not ready in time, or cannot be asked", () => {
    for (const [input, reason] of [
      [timer("start"), settings.notReady],
      [{ _tag: "NotReady", run: 1, reason: "a bug" }, "a bug"],
    ] as const) {
      const late = after(start, spawned(), input)
      assert.deepStrictEqual(late.state, { _tag: "Stopping", pid: 7 })
      assert.deepStrictEqual(late.signals, ["SIGTERM 7", "SIGCONT 7"])
      const dead = after(start, spawned(), input, exited(1, 0))
      assert.strictEqual(dead.state._tag, "BackingOff")
      assert.deepInclude(dead.news[0], { reason, wanted: false, status: { _tag: "Exited", code: 0 } })
    }
  })
  it("dies", () => {
    const { news, state } = after(start, spawned(), killed(1))
    assert.strictEqual(state._tag, "BackingOff")
    assert.deepInclude(news[0], { reason: "signal SIGKILL", oomKilled: false })
  })
})

describe("Up", () => {
  it("dies, and is told from being killed for want of memory", () => {
    const { news, state } = after(start, spawned(), ready(), killed(1, true))
    assert.strictEqual(state._tag, "BackingOff")
    assert.deepInclude(news[0], {
      reason: "signal SIGKILL, by the kernel for want of memory",
      oomKilled: true,
      ranForMs: 3,
    })
  })
  it("hangs when as many probes in a row fail as may not, and not before", () => {
    const two = [start, spawned(), ready(), probe("ProbeFailed"), probe("ProbeFailed")]
    assert.strictEqual(after(...two).state._tag, "Up")
    assert.strictEqual(after(...two, probe("ProbePassed"), ...two.slice(3)).state._tag, "Up")
    const hung = after(...two, probe("ProbeFailed"))
    assert.strictEqual(hung.state._tag, "Stopping")
    assert.deepStrictEqual(hung.signals, ["SIGTERM 7", "SIGCONT 7"])
    assert.deepStrictEqual(hung.news, [{ _tag: "Unresponsive", pid: 7, failures: 3, reason: "no answer" }])
    const dead = after(...two, probe("ProbeFailed"), exited(1, 0))
    assert.deepInclude(dead.news[0], { reason: "unresponsive: no answer", wanted: false, deaths: 1 })
  })
  it("is not probed where nobody asked for it", () => {
    const { machine } = after(start, spawned(), ready())
    const without = { ...settings, liveness: undefined }
    assert.deepStrictEqual(
      Machine.activities(without, machine).map(({ key }) => key),
      ["AwaitExit 1"],
    )
    assert.strictEqual(Machine.step(without, machine, probe("ProbeFailed"), at(9))[0], machine)
  })
  it("is ended for a restart, which is no death", () => {
    assert.deepStrictEqual(after(start, spawned(), ready(), restart).signals, ["SIGTERM 7", "SIGCONT 7"])
    const { machine, news } = after(start, spawned(), ready(), restart, exited(1, 0))
    assert.deepInclude(news[0], { wanted: true, nextStartInMs: 0, deaths: 0 })
    assert.deepInclude(machine, { run: 2, deaths: 0 })
    assert.strictEqual(machine.state._tag, "Starting")
  })
})

describe("Stopping", () => {
  const stopping = [start, spawned(), ready(), stop]
  it("ends in Stopped", () => {
    const { activities, news, state } = after(...stopping, exited(1, 0))
    assert.strictEqual(state._tag, "Stopped")
    assert.deepStrictEqual(
      news.map((one) => [one._tag, "wanted" in one && one.wanted]),
      [
        ["Ended", true],
        ["Stopped", false],
      ],
    )
    assert.deepStrictEqual(activities, [])
  })
  it("kills when its time is up", () => {
    const { activities, news, signals, state } = after(...stopping, timer("stop"))
    assert.deepStrictEqual(state, { _tag: "Killed", pid: 7 })
    assert.deepStrictEqual(signals, ["SIGKILL 7"])
    assert.deepStrictEqual(news, [{ _tag: "Killing", pid: 7 }])
    assert.deepStrictEqual(activities, ["AwaitExit 1", "kill timer 1"])
  })
  it("a stop outranks the restart or the fault that it was ended for", () => {
    for (const why of [restart, timer("start")])
      assert.strictEqual(after(start, spawned(), why, stop, exited(1)).state._tag, "Stopped")
    assert.strictEqual(after(...stopping, restart, exited(1)).state._tag, "Stopped")
  })
  it("a restart that is asked for meanwhile saves the back-off, not the death", () => {
    const { machine, news } = after(start, spawned(), timer("start"), restart, exited(1))
    assert.strictEqual(machine.state._tag, "Starting")
    assert.deepInclude(news[0], { wanted: false, deaths: 1, nextStartInMs: 0 })
  })
})

describe("Killed", () => {
  const killing = [start, spawned(), ready(), stop, timer("stop")]
  it("ends in Stopped", () => {
    assert.strictEqual(after(...killing, killed(1)).state._tag, "Stopped")
  })
  it("tells of a process that not even SIGKILL ends, and goes on waiting", () => {
    const { news, signals, state } = after(...killing, timer("kill"))
    assert.strictEqual(state._tag, "Killed")
    assert.deepStrictEqual(news, [{ _tag: "Unkillable", pid: 7 }])
    assert.deepStrictEqual(signals, [])
    assert.deepStrictEqual(after(...killing, timer("stop")).signals, [])
  })
})

describe("BackingOff", () => {
  const dead = [start, spawned(), exited(1)]
  it("starts again when the delay is over, or when it is asked to", () => {
    for (const input of [timer("back-off"), restart]) {
      const { activities, machine } = after(...dead, input)
      assert.deepStrictEqual(activities, ["Spawn 2"])
      assert.strictEqual(machine.deaths, 1)
    }
  })
  it("stops", () => {
    const { news, state } = after(...dead, stop)
    assert.strictEqual(state._tag, "Stopped")
    assert.deepStrictEqual(news, [{ _tag: "Stopped" }])
  })
  it("doubles up to the cap, and begins anew after a time of being up", () => {
    let machine = Machine.initial
    let now = 0
    const give = (input: Machine.Input) => {
      ;[machine] = Machine.step(settings, machine, input, at(now))
    }
    const delays: Array<number> = []
    const live = (up: number | undefined) => {
      give(spawned(machine.run))
      if (up !== undefined) give(ready(machine.run))
      now += up ?? 60_000
      give(exited(machine.run))
      delays.push(machine.state._tag === "BackingOff" ? machine.state.delayMs : Number.NaN)
      give(timer("back-off", machine.run))
    }
    give(start)
    // Not being ready is no sign of health, however long it lasts.
    for (const up of [undefined, 0, 4999, 0, 0, 0, 5000, 0]) live(up)
    assert.deepStrictEqual(delays, [100, 200, 400, 800, 1000, 1000, 100, 200])
  })
})

/** A process as the machine should take it to be, and what it may be told next. */
class Model {
  machine = Machine.initial
  now = 0
  pid = 100
  /** The process that there is, and the signals that it got. */
  alive: { readonly pid: number; readonly run: number; readonly signals: Array<string> } | undefined
  /** Activities that have not ended. */
  readonly going = new Map<string, Machine.Activity>()
  readonly seen = new Set<string>()
  readonly history: Array<Machine.Input> = []
  readonly runs = { started: 0, ended: 0, spawned: 0, exited: 0 }
  stopAsked = false
  /** Of this run. */
  restartAsked = false
  faulty = false
  failures = 0
  deaths = 0
  upAt: number | undefined

  give(input: Machine.Input, random: number): void {
    const before = this.machine
    this.now += Math.floor(random * 4000)
    if (input._tag === "Spawned") {
      assert.isUndefined(this.alive, "two processes at once")
      this.alive = { pid: input.pid, run: input.run, signals: [] }
      this.runs.spawned++
    }
    const dying = input._tag === "Exited" ? this.alive : undefined
    if (dying !== undefined) {
      this.alive = undefined
      this.runs.exited++
    }
    this.expect(input)
    const [next, commands] = Machine.step(settings, before, input, { now: this.now, random })
    this.machine = next
    this.history.push(input)
    for (const command of commands) this.command(command, dying?.pid)
    this.check(before)
  }

  /** What the input should mean, by rules of the model's own. */
  private expect(input: Machine.Input): void {
    const { state } = this.machine
    switch (input._tag) {
      case "Stop":
        this.stopAsked = true
        break
      case "Restart":
        if ((state._tag === "Waiting" || state._tag === "Up") && !this.stopAsked) this.restartAsked = true
        break
      case "Ready":
        if (state._tag === "Waiting") this.upAt = this.now
        break
      case "NotReady":
        if (state._tag === "Waiting") this.faulty = true
        break
      case "TimeIsUp":
        if (input.timer === "start" && state._tag === "Waiting") this.faulty = true
        break
      case "ProbePassed":
        this.failures = 0
        break
      case "ProbeFailed":
        if (state._tag === "Up" && ++this.failures === 3) this.faulty = true
        break
      default:
        break
    }
  }

  private command(command: Machine.Command, dying: number | undefined): void {
    if (command._tag === "Signal") {
      assert.strictEqual(command.pid, this.alive?.pid, "a signal for a process that is not there")
      assert.strictEqual(command.run, this.alive?.run)
      if (command.signal === "SIGKILL")
        assert.deepStrictEqual(this.alive?.signals, ["SIGTERM", "SIGCONT"], "SIGKILL comes after SIGTERM")
      this.alive?.signals.push(command.signal)
      assert.strictEqual(new Set(this.alive?.signals).size, this.alive?.signals.length, "a signal twice")
      return
    }
    const { news } = command
    switch (news._tag) {
      case "Started":
        this.runs.started++
        break
      case "Unresponsive":
        assert.strictEqual(this.failures, 3)
        break
      case "Ended": {
        assert.strictEqual(news.pid, dying)
        if (dying !== undefined) this.runs.ended++
        // An end is wanted when it was asked for before anything was wrong, or when everything is to end.
        const wanted = this.stopAsked || (dying !== undefined && this.restartAsked && !this.faulty)
        assert.strictEqual(news.wanted, wanted, JSON.stringify(news))
        if (wanted) this.deaths = 0
        else {
          this.deaths = this.upAt !== undefined && this.now - this.upAt >= 5000 ? 1 : this.deaths + 1
          assert.strictEqual(news.deaths, this.deaths)
          const nominal = Math.min(100 * 2 ** (this.deaths - 1), 1000)
          const delay = news.nextStartInMs ?? Number.NaN
          if (delay !== 0) {
            assert.isAtLeast(delay, nominal * 0.8)
            assert.isAtMost(delay, nominal * 1.2)
          }
        }
        assert.strictEqual(news.nextStartInMs === undefined, this.stopAsked)
        this.restartAsked = false
        this.faulty = false
        this.failures = 0
        this.upAt = undefined
        break
      }
      default:
        break
    }
  }

  private check(before: Machine.Machine): void {
    const { machine } = this
    const { state } = machine
    assert.strictEqual("pid" in state ? state.pid : undefined, this.alive?.pid, state._tag)
    assert.include([before.run, before.run + 1], machine.run)
    // Each run that has begun is told of, and each that has ended, once.
    assert.strictEqual(this.runs.started, this.runs.spawned)
    assert.strictEqual(this.runs.ended, this.runs.exited)
    const wanted = Machine.activities(settings, machine)
    assert.strictEqual(wanted.length === 0, state._tag === "Stopped", "a state that nothing leads out of")
    assert.strictEqual(new Set(wanted.map(({ key }) => key)).size, wanted.length)
    if (this.stopAsked && before.state._tag !== "Starting")
      assert.notStrictEqual(state._tag, "Starting", "a start after the stop")
    for (const key of this.going.keys()) if (!wanted.some((one) => one.key === key)) this.going.delete(key)
    for (const activity of wanted) {
      assert.strictEqual(activity.run, machine.run)
      if (activity._tag === "Spawn") assert.isUndefined(this.alive)
      // As the supervisor does: what has ended is not begun again.
      if (!this.seen.has(activity.key)) this.going.set(activity.key, activity)
      this.seen.add(activity.key)
    }
  }

  /** How an activity can end; `choice` picks one. */
  outcome(activity: Machine.Activity, choice: number): Machine.Input {
    const { run } = activity
    if (activity._tag !== "Probe") this.going.delete(activity.key)
    switch (activity._tag) {
      case "Spawn":
        return choice % 4 === 0
          ? { _tag: "NotSpawned", run, reason: "ENOMEM" }
          : { _tag: "Spawned", run, pid: ++this.pid }
      case "AwaitExit":
        return choice % 2 === 0 ? exited(run, choice % 256) : killed(run, choice % 3 === 0)
      case "AwaitReady":
        return choice % 4 === 0 ? { _tag: "NotReady", run, reason: "a bug" } : { _tag: "Ready", run }
      case "Probe":
        return probe(choice % 4 === 0 ? "ProbePassed" : "ProbeFailed", run)
      case "Timer":
        return { _tag: "TimeIsUp", run, timer: activity.timer }
    }
  }
}

const Choice = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9999 }))
const many = { arbitrary: { runs: 400 } }
const Choices = Schema.Array(Choice).check(Schema.isMinLength(60), Schema.isMaxLength(120))

/** Lets a model live through the choices. */
const live = (choices: ReadonlyArray<number>): Model => {
  const model = new Model()
  model.give(start, 0)
  for (const choice of choices) {
    const random = (choice % 100) / 100
    const which = Math.floor(choice / 100)
    const going = [...model.going.values()]
    const activity = going[which % Math.max(1, going.length)]
    if (which >= 95 && !model.stopAsked) model.give(restart, random)
    else if (which === 94) model.give(stop, random)
    else if (which >= 80) {
      // An answer that comes too late: of a run that is over, or a second time.
      const late = model.history.filter((input) => "run" in input && input.run < model.machine.run)
      const input = late[which % Math.max(1, late.length)]
      if (input === undefined) continue
      const before = model.machine
      assert.deepStrictEqual(
        Machine.step(settings, before, input, { now: model.now, random }),
        [before, []],
        "an earlier run changes nothing",
      )
    } else if (activity !== undefined) model.give(model.outcome(activity, choice), random)
  }
  return model
}

describe("random events", () => {
  it.prop("keep every promise that the model makes", [Choices], ([choices]) => void live(choices), many)

  it("reach every state, and runs beyond the first", () => {
    const reached = new Set<string>()
    const step = (size: number) =>
      Array.from({ length: size }, (_, n) => (n * 7919 + size * 104_729) % 10_000)
    for (let size = 1; size <= 160; size++) {
      const model = live(step(size))
      reached.add(model.machine.state._tag)
      if (model.machine.run > 3) reached.add("a fourth run")
    }
    assert.deepStrictEqual([...reached].toSorted(), [
      "BackingOff",
      "Killed",
      "Starting",
      "Stopped",
      "Stopping",
      "Up",
      "Waiting",
      "a fourth run",
    ])
  })

  it.prop(
    "and after them a stop comes to an end, whatever the process does about it",
    [Choices],
    ([choices]) => {
      const model = live(choices)
      if (!model.stopAsked) model.give(stop, 0)
      for (let steps = 0; model.machine.state._tag !== "Stopped"; steps++) {
        assert.isBelow(steps, 8)
        const going = [...model.going.values()]
        // It ends only by SIGKILL.
        const next =
          model.machine.state._tag === "Killed"
            ? going.find(({ _tag }) => _tag === "AwaitExit")
            : going.find(({ _tag }) => _tag !== "AwaitExit")
        if (next === undefined) throw new Error("nothing leads out of this state")
        model.give(model.outcome(next, 1), 0)
      }
      assert.isUndefined(model.alive)
      assert.deepStrictEqual([...model.going.keys()], [])
    },
  )

  it.prop("and after them a healthy process comes up, unless it is to stop", [Choices], ([choices]) => {
    const model = live(choices.filter((choice) => Math.floor(choice / 100) !== 94))
    for (let steps = 0; model.machine.state._tag !== "Up"; steps++) {
      assert.isBelow(steps, 10)
      const { state } = model.machine
      const going = [...model.going.values()]
      const ending = state._tag === "Stopping" || state._tag === "Killed"
      const next = going.find(({ _tag }) => (ending ? _tag === "AwaitExit" : _tag !== "AwaitExit"))
      if (next === undefined) throw new Error(`nothing leads out of ${state._tag}`)
      model.give(model.outcome(next, 1), 0)
    }
  })
})
