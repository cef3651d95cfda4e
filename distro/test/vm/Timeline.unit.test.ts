import { assert, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Timeline from "../../src/vm/Timeline.ts"
import { eventsOf } from "./fixtures/events.ts"

const boot = eventsOf(
  "[    0.000000] Linux version 6.12.107 (x)",
  "[    2.000000] Run /init as init process",
  "[    2.600000] kios: stage mounts up ms=100",
  "[    2.700000] kios: milestone init",
  "[    5.000000] kios: stage containerd up ms=2300",
  '[    5.500000] kios: stage ntp failed ms=500 reason="no route"',
  '[    5.600000] kios: stage clock skipped reason="ntp is not up"',
  "[   10.000000] kios: stage kubelet up ms=5000",
  "[   12.500000] kios: milestone pod-running pod=default/hello",
)

it("puts everything on the kernel's clock", () => {
  // events arrive at 1 s on the host's clock; power-on was at 0.25 s
  const timeline = Timeline.fromEvents(boot, 250_000_000n)
  assert.strictEqual(timeline.firmwareSeconds, 0.75)
  assert.strictEqual(timeline.kernelVersion, "6.12.107")
  assert.strictEqual(timeline.initSeconds, 2)
  assert.strictEqual(timeline.totalSeconds, 12.5)
  assert.deepStrictEqual(timeline.stages[1], { name: "containerd", start: 2.7, end: 5, outcome: "up" })
  assert.deepStrictEqual(timeline.milestones, [
    { name: "init", at: 2.7 },
    { name: "pod-running", at: 12.5, detail: "pod=default/hello" },
  ])
  assert.deepStrictEqual(JSON.parse(JSON.stringify(timeline)), timeline)
})

it("draws it", () => {
  const golden = `firmware 0.75 s, then seconds since kernel start (6.12.107)
kernel         0.00    2.00 ======
mounts         2.50    0.10         =
containerd     2.70    2.30         ========
init           2.70                 *
ntp            5.00    0.50                 xx failed: no route
kubelet        5.00    5.00                 ================
clock          5.60                           -
  skipped: ntp is not up
pod-running   12.50                               pod=default/hello *
`
  assert.strictEqual(Timeline.render(Timeline.fromEvents(boot, 250_000_000n), { width: 70 }), golden)
})

it("has colours only when asked", () => {
  const timeline = Timeline.fromEvents(boot)
  const plain = Timeline.render(timeline, { width: 70 })
  const colored = Timeline.render(timeline, { width: 70, color: true })
  assert.include(colored, "\u001b[31mxx\u001b[0m")
  // oxlint-disable-next-line no-control-regex
  assert.strictEqual(colored.replace(/\u001b\[\d+m/g, ""), plain)
})

it("shows the last boot, and says when there is nothing", () => {
  const again = eventsOf(
    "[    0.000000] Linux version 1 (x)",
    "[    9.000000] kios: milestone old",
    "[    9.500000] reboot: Restarting system",
    "[    0.000000] Linux version 1 (x)",
    "[    1.000000] kios: milestone new",
  )
  const timeline = Timeline.fromEvents(again, 0n)
  assert.deepStrictEqual(
    timeline.milestones.map((m) => m.name),
    ["new"],
  )
  assert.isUndefined(timeline.firmwareSeconds)
  assert.include(Timeline.render(Timeline.fromEvents([])), "(nothing was reported)")
})

const Spans = Schema.Array(
  Schema.Struct({ name: Schema.String, start: Schema.Natural, took: Schema.Natural, reason: Schema.String }),
)
it.prop("fits the terminal, whatever is in it", [Spans, Schema.Natural], ([spans, width]) => {
  const columns = 40 + (width % 160)
  const text = Timeline.render(
    {
      stages: spans.map(({ name, reason, start, took }, i) => ({
        name: name.replace(/\s/g, "-"),
        start,
        end: start + took,
        outcome: (["up", "failed", "skipped"] as const)[i % 3] ?? "up",
        reason: reason.replace(/\s/g, "-"),
      })),
      milestones: [],
      totalSeconds: Math.max(0, ...spans.map((span) => span.start + span.took)),
    },
    { width: columns },
  )
  for (const line of text.split("\n")) {
    // numbers of more than eight digits are no boot's
    if (!/\d{6,}\.\d\d/.test(line)) assert.isAtMost(line.length, columns)
    assert.strictEqual(line, line.trimEnd())
  }
})
