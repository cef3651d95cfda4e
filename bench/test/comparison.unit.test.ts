import type { Meaning, VmEvent } from "@kios/distro/vm/Milestones"
import { assert, it } from "@effect/vitest"
import { compare, median, type Pair, phasesOf, render } from "../boot/Comparison.ts"
import * as HostLoad from "../boot/HostLoad.ts"
import * as Picture from "../boot/Picture.ts"
import { fromEvents, kernelStart, milestones, type Sample } from "../boot/Sample.ts"

const sample = (firmware: number, ...times: ReadonlyArray<number>): Sample => ({
  firmware,
  ...(Object.fromEntries(milestones.map((name, index) => [name, times[index] ?? 0])) as Omit<
    Sample,
    "firmware"
  >),
})
const pairs: ReadonlyArray<Pair> = [
  { kios: sample(6, 5, 6, 8, 8, 10, 12), floor: sample(4, 4, 4.1, 6, 6, 8, 10) },
  { kios: sample(9, 10, 12, 16, 16, 20, 22), floor: sample(6, 8, 8.2, 12, 12, 16, 20) },
  { kios: sample(6, 5, 6, 8, 8, 10, 13), floor: sample(4, 4, 4.1, 6, 6, 8, 10) },
]

it("the median is the middle one or the mean of two", () => {
  assert.strictEqual(median([3, 1, 2]), 2)
  assert.strictEqual(median([4, 1, 2, 3]), 2.5)
  assert.isNaN(median([]))
})

it("ratios are taken within pairs: a slow moment that hits both changes nothing", () => {
  const row = compare(pairs).find(({ quantity }) => quantity === "pod-running")
  assert.deepStrictEqual(row, {
    quantity: "pod-running",
    kios: 13,
    floor: 10,
    added: 2,
    ratio: 1.2,
    lowestRatio: 1.1,
    highestRatio: 1.3,
  })
  const total = compare(pairs).find(({ quantity }) => quantity === "power-on to pod-running")
  assert.strictEqual(total?.kios, 19)
})

it("the table has a line for each quantity, in columns", () => {
  const lines = render(compare(pairs)).split("\n")
  assert.lengthOf(lines, 9)
  assert.strictEqual(new Set(lines.map((line) => line.length)).size, 1)
  assert.match(lines.find((line) => line.startsWith("pod-running")) ?? "", /13\.00 +10\.00 +\+2\.00 +1\.20/u)
})

it("phases follow one another and end with the pod", () => {
  const phases = phasesOf(compare(pairs), "floor")
  assert.deepStrictEqual(
    phases.map(({ start }) => start),
    [0, ...phases.slice(0, -1).map(({ end }) => end)],
  )
  assert.strictEqual(phases.at(-1)?.end, 10)
})

it("the pictures show both bars on one scale", () => {
  const rows = compare(pairs)
  const [kios = "", floor = ""] = Picture.text(rows, 80).split("\n")
  assert.isAtMost(kios.length, 80)
  assert.isAbove(kios.length, floor.length)
  const svg = Picture.svg(rows, "2 < 3 & so on")
  assert.include(svg, "2 &lt; 3 &amp; so on")
  const widths = [...svg.matchAll(/<rect [^>]*?width="([\d.]+)"[^>]*><title>/gu)].map((match) =>
    Number(match[1]),
  )
  assert.lengthOf(widths, 12)
  const sum = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0)
  assert.approximately(sum(widths.slice(6)) / sum(widths.slice(0, 6)), 10 / 13, 0.01)
  assert.strictEqual(Picture.tickStep(13, 12), 2)
  assert.strictEqual(Picture.tickStep(0.9, 12), 0.1)
})

const at = (meaning: Meaning, seconds: number): VmEvent => ({
  ...meaning,
  line: 0,
  at: BigInt(Math.round(seconds * 1e9)),
})

const boot = [
  at({ _tag: "Firmware", message: "EFI stub: Loaded initrd" }, 106),
  at({ _tag: "KernelStarted" }, 107.5),
  ...milestones.slice(0, -1).map((name, index) =>
    // The kernel's own idea of the time is passed over.
    ({ ...at({ _tag: "Milestone", name, fields: {} }, 110 + index), kernelSeconds: 999 }),
  ),
  at({ _tag: "Milestone", name: "pod-running", fields: { pod: "kube-system/dhcp" } }, 116),
  at({ _tag: "Milestone", name: "pod-running", fields: { pod: "default/hello" } }, 117),
]

it("a sample counts from the stub's last word to the pod that was asked for, on the host's clock", () => {
  assert.deepStrictEqual(fromEvents(boot, 100_000_000_000n, "default/hello"), sample(6, 4, 5, 6, 7, 8, 11))
  assert.deepStrictEqual(fromEvents(boot, 0n, "default/other"), { missing: ["milestone pod-running"] })
})

it("without a word of the stub, the kernel's first line is its start", () => {
  assert.strictEqual(kernelStart(boot), 106_000_000_000n)
  assert.strictEqual(kernelStart(boot.slice(1)), 107_500_000_000n)
  assert.isUndefined(kernelStart([]))
  assert.deepStrictEqual(fromEvents([], 0n, "default/hello"), { missing: ["the kernel's start"] })
})

it("what others took of the host is what was neither idle nor ours", () => {
  const stat = (user: number, idle: number) => `cpu  ${user} 0 100 ${idle} 50 0 0 0 9 9\ncpu0 1 2 3 4\n`
  const before = { ...HostLoad.parseStat(stat(1000, 5000))!, own: 300 }
  const after = { ...HostLoad.parseStat(stat(1150, 5050))!, own: 400 }
  assert.strictEqual(before.busy, 1100)
  assert.strictEqual(HostLoad.others(before, after), 0.25)
  assert.isUndefined(HostLoad.others(before, before))
  assert.isUndefined(HostLoad.parseStat("cpu  0 0 0 0 0 0 0 0 0 0\n"))
  assert.strictEqual(HostLoad.parseProcess("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0"), 730)
})
