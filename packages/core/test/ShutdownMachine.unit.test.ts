// What going down decides: each way from one phase to the next, and whatever happens in whatever order.
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Machine from "@kios/core/internal/ShutdownMachine"
import type { ShutdownAction } from "@kios/core/Shutdown"

const settings: Machine.Settings = { beforeMs: 45_000, waitMs: 0 }
const asked = (action: ShutdownAction = "POWER_OFF"): Machine.Input => ({
  _tag: "Requested",
  request: { action, by: "a test" },
})
const done = (phase: Machine.Phase): Machine.Input => ({ _tag: "Done", phase })
const late = (phase: Machine.Phase, urgency: Machine.Urgency = "ordered"): Machine.Input => ({
  _tag: "TimeIsUp",
  phase,
  urgency,
})
const tooLong: Machine.Input = { _tag: "WholeTimeIsUp" }

/** Goes through inputs, two seconds each; returns the machine and what the last input told. */
const after = (...inputs: ReadonlyArray<Machine.Input>) => {
  let machine = Machine.initial
  let news: ReadonlyArray<Machine.News> = []
  for (const [index, input] of inputs.entries())
    [machine, news] = Machine.step(machine, input, (index + 1) * 2000)
  return { machine, phase: machine.phase, urgency: machine.urgency, told: news.map(({ _tag }) => _tag), news }
}
const upTo = (phase: Machine.Phase): ReadonlyArray<Machine.Input> => [
  asked(),
  ...Machine.phases.slice(0, Machine.phases.indexOf(phase)).map(done),
]

describe("ordered", () => {
  it("nothing happens before somebody asks", () => {
    for (const input of [done("boot"), late("sync"), tooLong])
      assert.deepStrictEqual(after(input).machine, Machine.initial)
  })
  it("goes through the phases in their order, each ended once", () => {
    const seen = Machine.phases.map((phase) => after(...upTo(phase)).phase)
    assert.deepStrictEqual(seen, [...Machine.phases])
    assert.strictEqual(after(...upTo("stages"), done("before")).phase, "stages")
    assert.strictEqual(after(...upTo("reboot"), done("reboot")).phase, "reboot")
  })
  it("leaves behind what is late", () => {
    const { news, phase } = after(...upTo("stages"), late("stages"))
    assert.strictEqual(phase, "processes")
    assert.deepStrictEqual(news, [{ _tag: "Ended", phase: "stages", how: "late" }])
    assert.strictEqual(after(...upTo("stages"), late("before")).phase, "stages")
  })
})

describe("a second request", () => {
  it("cuts what comes first and is waited for", () => {
    for (const phase of ["boot", "before"] as const) {
      const { news, ...rest } = after(...upTo(phase), asked("RESTART"))
      assert.deepInclude(rest, { phase: "stages", urgency: "hurried" })
      assert.deepStrictEqual(news.at(-1), { _tag: "Ended", phase, how: "cut" })
    }
  })
  it("lets go on, with less time, what the filesystems need", () => {
    for (const phase of ["stages", "processes", "mounts", "sync"] as const) {
      const { machine } = after(...upTo(phase), asked())
      assert.deepInclude(machine, { phase, urgency: "hurried" })
      assert.isBelow(
        Machine.deadline(settings, phase, "hurried"),
        Machine.deadline(settings, phase, "ordered"),
        phase,
      )
      // The time that it had before it was cut is over later, and means nothing.
      assert.strictEqual(after(...upTo(phase), asked(), late(phase)).phase, phase)
    }
  })
  it("ends the wait after a failed boot, whenever it comes", () => {
    assert.strictEqual(after(...upTo("wait"), asked()).phase, "reboot")
    assert.strictEqual(Machine.deadline({ ...settings, waitMs: Infinity }, "wait", "hurried"), 0)
  })
  it("is the same as the first when it comes within a second", () => {
    const [first] = Machine.step(Machine.initial, asked(), 5000)
    assert.strictEqual(Machine.step(first, asked("HALT"), 5999)[0], first)
    assert.strictEqual(Machine.step(first, asked(), 6000)[0].urgency, "hurried")
  })
  it("decides what is done in the end", () => {
    assert.strictEqual(after(asked("POWER_OFF"), asked("RESTART")).machine.request?.action, "RESTART")
  })
})

describe("a third request, and a shutdown that takes too long", () => {
  it("go straight to sync", () => {
    for (const phase of ["stages", "processes", "mounts"] as const)
      for (const { machine } of [after(...upTo(phase), asked(), asked()), after(...upTo(phase), tooLong)])
        assert.deepInclude(machine, { phase: "sync", urgency: "forced" })
    assert.deepStrictEqual(after(...upTo("stages"), tooLong).told, ["TooLong", "Ended"])
  })
  it("leave a machine alone that only waits to be looked at", () => {
    assert.strictEqual(after(...upTo("wait"), tooLong).phase, "wait")
  })
})

describe("whatever happens", () => {
  const Input = Schema.Struct({
    tag: Schema.Literals(["Requested", "Done", "TimeIsUp", "WholeTimeIsUp"]),
    phase: Schema.Literals(Machine.phases),
    urgency: Schema.Literals(["ordered", "hurried", "forced"]),
    now: Schema.Boolean,
    pause: Schema.Natural,
  })
  const Story = Schema.Array(Input).check(Schema.isMaxLength(60))
  const urgencies = ["ordered", "hurried", "forced"]

  /** The story's inputs, most of which are about the present. */
  const play = (story: typeof Story.Type, see: (before: Machine.Machine, next: Machine.Machine) => void) => {
    let machine = Machine.initial
    let at = 0
    for (const one of story) {
      at += one.pause % 3000
      const phase = one.now ? (machine.phase ?? one.phase) : one.phase
      const urgency = one.now ? machine.urgency : one.urgency
      const input = (one.tag === "Requested" ? asked() : { _tag: one.tag, phase, urgency }) as Machine.Input
      const [next] = Machine.step(machine, input, at)
      see(machine, next)
      machine = next
    }
    return machine
  }

  it.prop("no phase comes back, and none gets slower", [Story], ([story]) => {
    play(story, (before, next) => {
      const place = ({ phase }: Machine.Machine) => (phase === undefined ? -1 : Machine.phases.indexOf(phase))
      assert.isAtLeast(place(next), place(before))
      assert.isAtLeast(urgencies.indexOf(next.urgency), urgencies.indexOf(before.urgency))
      if (next.urgency === "forced") assert.isAtLeast(place(next), Machine.phases.indexOf("sync"))
    })
  })

  it.prop("from anywhere, time alone leads to reboot(2) within the time of the whole", [Story], ([story]) => {
    let machine = play([{ ...first, pause: 0 }, ...story], () => {})
    let took = 0
    for (
      let work = Machine.work(settings, machine);
      machine.phase !== "reboot";
      work = Machine.work(settings, machine)
    ) {
      assert.isDefined(work)
      if (work === undefined) return
      const { deadlineMs, phase, whole } = work
      const left = Machine.MARGIN_MS - took
      const [next] =
        whole && left < deadlineMs
          ? Machine.step(machine, tooLong, 0)
          : Machine.step(machine, late(phase, machine.urgency), 0)
      assert.notStrictEqual(next, machine)
      // What comes first has a time of its own.
      if (phase !== "boot" && phase !== "before") took += Math.min(deadlineMs, whole ? left : deadlineMs)
      machine = next
    }
    // After the whole is over, there is the sync that was forced, and the wait that is none.
    assert.isAtMost(took, Machine.MARGIN_MS + 5000 + 1000)
  })
  const first = { tag: "Requested", phase: "boot", urgency: "ordered", now: true } as const
})
