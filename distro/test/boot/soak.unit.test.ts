// The soak test's own parts: its books find what is wrong, its plan has all signals, its script is one.
import { assert, describe, it } from "@effect/vitest"
import type { EventRecord, Recorded } from "@kios/core/Events"
import { execFileSync } from "node:child_process"
import { random } from "../../../packages/core/test/support/Scale.ts"
import { append, type Kill, match } from "./node/SoakAccount.ts"
import { daemons, killsOf, plan, script } from "./node/SoakScript.ts"

const stamp = { time: "2026-11-22T06:00:00.000Z", severity: "err" } as const

const ended = (
  sequence: number,
  pid: number,
  how: { readonly code?: number; readonly signal?: string; readonly reason?: string },
  process = "containerd",
): Recorded => ({
  ...stamp,
  sequence,
  atMs: sequence * 1000,
  kind: "process-ended",
  process,
  run: sequence,
  pid,
  exitCode: how.code ?? null,
  signal: how.signal ?? null,
  oomKilled: false,
  wanted: false,
  reason: how.reason ?? (how.signal === undefined ? `exit code ${how.code}` : `signal ${how.signal}`),
  ranForMs: 500,
  deaths: 1,
  nextStartInMs: 100,
  lastLines: [],
})

const kill = (pid: number, signal: Kill["signal"], daemon = "containerd"): Kill => ({
  daemon,
  signal,
  pid,
  atMs: 0,
})

describe("the books", () => {
  it("agree when each kill is told as what it was", () => {
    const kills = [
      kill(10, "SIGKILL"),
      kill(11, "SIGABRT"),
      kill(12, "SIGABRT"),
      kill(13, "SIGSTOP"),
      kill(14, "SIGSTOP"),
    ]
    const events = [
      ended(1, 10, { signal: "SIGKILL" }),
      ended(2, 11, { code: 2 }),
      ended(3, 12, { signal: "SIGABRT" }),
      ended(4, 13, { code: 0, reason: "unresponsive: no answer within 5s" }),
      ended(5, 14, { signal: "SIGTERM", reason: "not ready within 2m (health and CRI)" }),
    ]
    assert.deepStrictEqual(match(kills, events), {
      untold: [],
      wrong: [],
      own: 0,
      slow: 0,
      hangs: [4000, 5000],
    })
  })

  it("miss an end that was not told", () => {
    assert.deepStrictEqual(match([kill(10, "SIGKILL")], []).untold, [kill(10, "SIGKILL")])
  })

  it("find an exit status that is another's, and a death that nobody caused", () => {
    const events = [ended(1, 10, { code: 0 }), ended(2, 11, { signal: "SIGKILL" })]
    const { wrong } = match([kill(10, "SIGKILL")], events)
    assert.lengthOf(wrong, 2)
    assert.match(wrong[0] ?? "", /pid 10: exit code 0 .*, killed by SIGKILL$/)
    assert.match(wrong[1] ?? "", /pid 11: signal SIGKILL .*, and nobody killed it$/)
  })

  it("count what init ended for being too slow, which nobody had stopped, apart", () => {
    const late = ended(1, 10, { code: 0, reason: "unresponsive: no answer within 5s" })
    assert.deepStrictEqual(match([], [late]), { untold: [], wrong: [], own: 0, slow: 1, hangs: [] })
  })

  it("let the kubelet exit by itself, and nobody else", () => {
    assert.deepStrictEqual(match([], [ended(1, 10, { code: 1 }, "kubelet")]).own, 1)
    assert.lengthOf(match([], [ended(1, 10, { code: 1 }, "containerd")]).wrong, 1)
  })

  it("are told of events that were lost", () => {
    const part = (...events: ReadonlyArray<Recorded>): EventRecord => ({
      version: 1,
      clock: "CLOCK_MONOTONIC",
      total: 9,
      processes: [],
      events,
    })
    const [one, two, three, four] = [1, 2, 3, 4].map((n) => ended(n, n, { code: 0 }))
    if (one === undefined || two === undefined || three === undefined || four === undefined) return
    assert.deepStrictEqual(append([one, two], part(two, three)), [one, two, three])
    assert.throws(() => append([one, two], part(four)), "event 3 is missing: the next that is kept is 4")
  })
})

describe("the plan", () => {
  const bursts = plan({ bursts: 25, quick: 7, calm: 45 }, random(1))

  it("kills each daemon more than 200 times, by each signal", () => {
    for (const daemon of daemons) {
      assert.isAtLeast(killsOf(bursts, daemon), 200)
      const signals = new Set(bursts.flatMap(({ steps }) => steps[daemon].map(({ signal }) => signal)))
      assert.deepStrictEqual([...signals].sort(), ["SIGABRT", "SIGKILL", "SIGSTOP"])
    }
  })

  it("is the same for the same seed", () => {
    assert.deepStrictEqual(plan({ bursts: 25, quick: 7, calm: 45 }, random(1)), bursts)
    assert.notDeepEqual(plan({ bursts: 25, quick: 7, calm: 45 }, random(2)), bursts)
  })

  it("is a script that a shell can read", () => {
    for (const burst of bursts)
      execFileSync("sh", ["-n"], { input: script(burst, { containerd: "12/345", kubelet: "" }) })
  })
})
