import { assert, describe, it } from "@effect/vitest"
import type { BootRecord } from "@kios/core/BootReport"
import * as TimelineSvg from "@kios/core/TimelineSvg"
import { large, ran, record } from "./support/records.ts"
import { parseXml, type Xml } from "./support/xml.ts"

const bars = (svg: Xml, kind: string) =>
  // The legend's are in groups.
  svg.children.filter((child) => child.name === "rect" && child.classes.includes(kind))
const labelOf = (svg: Xml, name: string) => {
  const found = svg.all("text").find((text) => text.children.some((part) => part.text === name))
  if (found === undefined) throw new Error(`no label ${name}`)
  return found
}

describe("TimelineSvg", () => {
  it("draws a bar as long as its stage took, by its outcome, with name and duration", () => {
    const svg = parseXml(
      TimelineSvg.toSvg(
        record(
          [
            ran("disk", 1000, 2000),
            ran("etc", 2000, 4000, ["disk"]),
            ran("net", 2000, 2500, ["disk"], {
              outcome: "failed",
              criticality: "optional",
              reason: "no cable",
            }),
            ran("web", 2500, 2500, ["net"], {
              outcome: "skipped",
              criticality: "optional",
              reason: "no net",
            }),
            ran("slow", 2000, null, ["disk"]),
          ],
          [{ name: "init", atMs: 1000, attributes: {} }],
        ),
      ),
    )
    const up = bars(svg, "up").map((bar) => bar.number("width"))
    assert.strictEqual(up.length, 2)
    assert.approximately((up[1] ?? 0) / (up[0] ?? 1), 2, 0.001)
    const second = up[0] ?? 0
    assert.approximately(bars(svg, "failed")[0]?.number("width") ?? 0, second / 2, 0.02)
    assert.approximately(bars(svg, "kernel")[0]?.number("width") ?? 0, second, 0.02)
    // It still runs when the picture ends.
    assert.approximately(bars(svg, "running")[0]?.number("width") ?? 0, 2 * second, 0.02)
    assert.strictEqual(bars(svg, "skipped").length, 1)
    const said = (name: string) => labelOf(svg, name).children.map((part) => part.text)
    assert.deepStrictEqual(said("etc"), ["etc", "2.00 s"])
    assert.deepStrictEqual(said("net"), ["net", "failed after 500 ms", "no cable"])
    assert.deepStrictEqual(said("web"), ["web", "skipped: no net"])
    assert.deepStrictEqual(said("kernel"), ["kernel", "1.00 s"])
  })

  it("leads in from the requirement that came up last", () => {
    const stages = [ran("a", 0, 100), ran("b", 0, 400), ran("c", 600, 1000, ["a", "b"])]
    const svg = parseXml(TimelineSvg.toSvg(record(stages)))
    const wait = bars(svg, "wait")
    assert.strictEqual(wait.length, 1)
    const perMs =
      (bars(svg, "up")
        .find((bar) => bar.all("title")[0]?.text.startsWith("c"))
        ?.number("width") ?? 0) / 400
    assert.approximately(wait[0]?.number("width") ?? 0, 200 * perMs, 0.05)
    assert.deepStrictEqual(TimelineSvg.criticalChain(record(stages)), ["b", "c"])
  })

  it("the chain that decided the total goes by what gated, not by what is listed first", () => {
    const chain = TimelineSvg.criticalChain(
      record([
        ran("a", 0, 10),
        ran("b", 0, 50),
        ran("c", 10, 40, ["a"]),
        ran("d", 50, 90, ["a", "b"]),
        ran("e", 40, 60, ["c"]),
      ]),
    )
    assert.deepStrictEqual(chain, ["b", "d"])
    assert.deepStrictEqual(TimelineSvg.criticalChain(record([])), [])
  })

  it("the total is in the title, or that there is none", () => {
    const title = (of: BootRecord) => parseXml(TimelineSvg.toSvg(of)).all("title")[0]?.text
    const done = [{ name: "boot-complete", atMs: 2345, attributes: {} }]
    assert.strictEqual(title(record([ran("a", 0, 2000)], done)), "kiOS boot: 2.35 s")
    assert.strictEqual(title(record([ran("a", 0, 2000)])), "kiOS boot: not complete after 2.00 s")
    const failed = ran("a", 0, 50, [], { outcome: "failed", reason: "x" })
    assert.strictEqual(title(record([failed])), "kiOS boot: failed at a after 50 ms")
  })

  it("is legible with 30 stages and 10 milestones: nothing overlaps and nothing leaves the page", () => {
    const boot = large()
    const svg = parseXml(TimelineSvg.toSvg(boot))
    assert.strictEqual(bars(svg, "up").length, 28)
    const labels = svg.all("text").filter((text) => text.classes.includes("halo"))
    // Stages, the kernel, milestones.
    assert.strictEqual(labels.length, 30 + 1 + 10)
    const [width, height] = [svg.number("width"), svg.number("height")]
    // As wide as the font of the test machines draws them, 7 px a character at most on average.
    const boxes = labels.map((text) => {
      const said = [
        text.text,
        ...text.children.filter(({ name }) => name === "tspan").map((part) => part.text),
      ].join(" ")
      const wide = said.length * (text.classes.includes("at") ? 5.8 : 6.4)
      const end = text.attributes.get("text-anchor") === "end"
      const x = text.number("x") - (end ? wide : 0)
      return { said, x, right: x + wide, y: text.number("y") }
    })
    for (const box of boxes) {
      assert.isAtLeast(box.x, 0, box.said)
      assert.isAtMost(box.right, width, box.said)
      assert.isAtMost(box.y, height, box.said)
      for (const other of boxes) {
        if (other === box || Math.abs(other.y - box.y) > 12) continue
        assert.isTrue(other.right <= box.x || box.right <= other.x, `"${box.said}" is on "${other.said}"`)
      }
    }
    // Every milestone has a line, and no label of a milestone is crossed by another's.
    const marks = svg.children.filter((child) => child.classes.includes("mark"))
    assert.strictEqual(marks.length, 10)
    for (const mark of marks) {
      const [, x = 0, from = 0, to = 0] = (
        /^M([\d.]+) ([\d.]+)V([\d.]+)$/u.exec(mark.attributes.get("d") ?? "") ?? []
      ).map(Number)
      for (const box of boxes.slice(0, 10))
        if (box.y - 8 > from && box.y < to)
          assert.isFalse(box.x + 1 < x && x < box.right, `${x} crosses "${box.said}"`)
    }
  })

  it("a long name is cut where people see it and whole in the tool tip", () => {
    const name = `a-${"very-".repeat(30)}long-name`
    const text = TimelineSvg.toSvg(record([ran(name, 0, 10), ran("end", 10, 1000, [name])]))
    const svg = parseXml(text)
    assert.isTrue(svg.texts().some((said) => said.startsWith("a-very-") && said.endsWith("\u2026")))
    assert.isTrue(svg.all("title").some((title) => title.text.includes(name)))
  })

  it("a pod that starts a day later does not make a dot of the boot", () => {
    const late = { name: "pod-running", atMs: 86_400_000, attributes: { pod: "default/late" } }
    const done = { name: "boot-complete", atMs: 3000, attributes: {} }
    const svg = parseXml(TimelineSvg.toSvg(record([ran("a", 1000, 3000)], [done, late])))
    assert.isAtLeast(bars(svg, "up")[0]?.number("width") ?? 0, 500)
    assert.include(svg.texts().join("\n"), "not shown: 1 milestones outside of 0.0 s to 3.0 s")
  })

  it("shows the part that is asked for", () => {
    const stages = [
      ran("early", 0, 100),
      ran("middle", 100, 900, ["early"]),
      ran("late", 900, 1000, ["middle"]),
    ]
    const svg = parseXml(TimelineSvg.toSvg(record(stages), { fromMs: 500, untilMs: 800 }))
    assert.deepStrictEqual(
      bars(svg, "up").map((bar) => bar.all("title")[0]?.text.split(" ")[0]),
      ["middle"],
    )
    assert.include(svg.texts().join("\n"), "2 stages outside of 0.5 s to 0.8 s")
  })

  it("an empty record, one moment and hostile names are drawn too", () => {
    for (const boot of [
      record([]),
      record([ran("now", 0, 0)]),
      record([], [{ name: "init", atMs: 0, attributes: {} }]),
      record([ran('<script>"&', 1, 2, [], { outcome: "failed", reason: "\u0000\u001b[31m</svg>" })]),
      // By hand, in a circle.
      record([ran("a", 5, 5, ["b"]), ran("b", 5, 5, ["a"])]),
    ])
      for (const theme of ["auto", "light", "dark"] as const) parseXml(TimelineSvg.toSvg(boot, { theme }))
  })

  it("has colours of its own for light and dark readers, and nothing from outside", () => {
    const text = TimelineSvg.toSvg(large())
    assert.include(text, "prefers-color-scheme:dark")
    assert.notInclude(TimelineSvg.toSvg(large(), { theme: "dark" }), "prefers-color-scheme")
    assert.notMatch(text.replace('xmlns="http://www.w3.org/2000/svg"', ""), /https?:|href|url\(|<script/u)
  })
})
