import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Context from "effect/Context"
import * as Plan from "@kios/core/Plan"
import * as PlanSvg from "@kios/core/PlanSvg"
import * as Stage from "@kios/core/Stage"
import * as LayeredLayout from "@kios/core/internal/LayeredLayout"
import { parseXml } from "./support/xml.ts"

/** Stages by what each waits for; a name with `?` is an optional stage. */
const stagesOf = (graph: Readonly<Record<string, ReadonlyArray<string>>>): ReadonlyArray<Stage.Any> =>
  Object.entries(graph).map(([name, after]) => ({
    name: name.replace("?", ""),
    description: `does ${name}`,
    criticality: name.endsWith("?") ? ("optional" as const) : ("required" as const),
    requires: after.map((other) => Context.Service<unknown, unknown>(`test/${other}`)),
    provides: [Context.Service<unknown, unknown>(`test/${name.replace("?", "")}`)],
    wants: [],
    timeout: "1 second",
    retry: undefined,
    tolerates: [],
    layer: Layer.effectDiscard(Effect.void) as never,
  }))

const diamond = stagesOf({ root: [], left: ["root"], right: ["root"], "last?": ["left", "right", "root"] })

describe("Plan", () => {
  it("without durations the longest chain is critical, and nothing is measured", () => {
    const plan = Plan.make(stagesOf({ a: [], b: ["a"], c: ["b"], d: ["a"] }))
    assert.deepStrictEqual(plan.criticalPath, ["a", "b", "c"])
    assert.isUndefined(plan.criticalPathMs)
    assert.notInclude(JSON.stringify(plan), "durationMs")
  })

  it("with durations the slowest chain is critical, and its sum is told", () => {
    const plan = Plan.make(diamond, { root: 10, left: 5, right: 900, last: 1 })
    assert.deepStrictEqual(plan.criticalPath, ["root", "right", "last"])
    assert.strictEqual(plan.criticalPathMs, 911)
    assert.include(Plan.toText(plan), "* critical path, 911.0 ms: root > right > last")
  })

  it("a stage that was not measured counts nothing but keeps its place in the chain", () => {
    const plan = Plan.make(diamond, { root: 10, last: 5 })
    assert.strictEqual(plan.criticalPathMs, 15)
    assert.deepStrictEqual([plan.criticalPath[0], plan.criticalPath.at(-1)], ["root", "last"])
    assert.isUndefined(plan.stages[1]?.durationMs)
  })

  it("no stages at all can be printed in every form", () => {
    const plan = Plan.make([])
    assert.deepStrictEqual(plan, { stages: [], criticalPath: [] })
    assert.include(Plan.toText(plan), "critical path:")
    assert.strictEqual(parseXml(PlanSvg.toSvg(plan)).name, "svg")
  })
})

describe("PlanSvg", () => {
  it("draws a box for each stage, optional ones dashed, and the critical path apart", () => {
    const svg = parseXml(PlanSvg.toSvg(Plan.make(diamond, { root: 10, left: 5, right: 900, last: 1 })))
    const boxes = svg.all("rect").filter((rect) => rect.classes.includes("box"))
    // Two more are in the legend.
    assert.strictEqual(boxes.length, 4 + 2)
    assert.strictEqual(boxes.filter((box) => box.classes.includes("optional")).length, 1 + 1)
    assert.strictEqual(boxes.filter((box) => box.classes.includes("hot")).length, 3)
    // root > right > last, and the legend's.
    assert.strictEqual(svg.all("path").filter((path) => path.classes.includes("critical")).length, 2 + 1)
    for (const text of ["root", "left", "right", "last", "900 ms"]) assert.include(svg.texts(), text)
  })

  it("leaves out what follows from others, unless all are asked for", () => {
    const plan = Plan.make(diamond)
    assert.notDeepInclude(PlanSvg.directEdges(plan), ["root", "last"])
    assert.strictEqual(PlanSvg.directEdges(plan).length, 4)
    const edges = (options: PlanSvg.PlanOptions) =>
      parseXml(PlanSvg.toSvg(plan, options))
        .all("path")
        .filter((path) => path.classes.includes("edge") || path.classes.includes("critical")).length
    assert.strictEqual(edges({ edges: "all" }), edges({}) + 1)
  })

  it("keeps a line of the critical path that follows from others", () => {
    const plan = Plan.make(stagesOf({ a: [], b: ["a"], c: ["a", "b"] }), { a: 5, c: 5 })
    const path = plan.criticalPath
    for (const [index, name] of path.entries())
      if (index > 0) assert.deepInclude(PlanSvg.directEdges(plan), [path[index - 1] ?? "", name] as const)
  })

  it("is well-formed whatever the names and descriptions are", () => {
    const stages = stagesOf({ "a<b>&\"'": [], "\u0000\u001b[31m": [], "\ud800": [] })
    const svg = parseXml(PlanSvg.toSvg(Plan.make(stages), { title: "<&>" }))
    assert.include(svg.texts(), "a<b>&\"'")
    assert.include(svg.texts(), "<&>")
  })

  it("is the same every time", () => {
    const plan = Plan.make(diamond)
    assert.strictEqual(PlanSvg.toSvg(plan), PlanSvg.toSvg(plan))
  })
})

describe("LayeredLayout", () => {
  it("boxes of a layer do not overlap, and a line passes every layer between its ends", () => {
    let seed = 3
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647
      return seed % below
    }
    for (let round = 0; round < 60; round += 1) {
      const nodes = Array.from({ length: 2 + random(40) }, (_, index) => ({
        name: `n${index}`,
        layer: random(7),
        height: 20 + random(40),
      }))
      const edges = nodes.flatMap((from) =>
        nodes
          .filter((to) => to.layer > from.layer && random(6) === 0)
          .map((to) => ({ from: from.name, to: to.name, weight: 1 + random(9) })),
      )
      const layout = LayeredLayout.make(nodes, edges)
      for (const node of nodes) {
        const y = layout.y.get(node.name) ?? Number.NaN
        assert.isAtLeast(y - node.height / 2, -0.001)
        assert.isAtMost(y + node.height / 2, layout.height + 0.001)
        for (const other of nodes) {
          if (other === node || other.layer !== node.layer) continue
          const distance = Math.abs(y - (layout.y.get(other.name) ?? Number.NaN))
          assert.isAtLeast(distance, (node.height + other.height) / 2)
        }
      }
      for (const edge of edges) {
        const [from, to] = [edge.from, edge.to].map(
          (name) => nodes.find((node) => node.name === name)?.layer ?? 0,
        )
        assert.strictEqual(layout.between(edge).length, (to ?? 0) - (from ?? 0) - 1)
      }
    }
  })

  it("untangles what can be drawn without crossings", () => {
    const nodes = ["a", "b", "c"].flatMap((name) => [
      { name: `${name}0`, layer: 0, height: 20 },
      { name: `${name}1`, layer: 1, height: 20 },
    ])
    const edges = [
      ["a0", "c1"],
      ["b0", "a1"],
      ["c0", "b1"],
    ].map(([from = "", to = ""]) => ({ from, to, weight: 1 }))
    const { y } = LayeredLayout.make(nodes, edges)
    const order = (names: ReadonlyArray<string>) =>
      names.toSorted((a, b) => (y.get(a) ?? 0) - (y.get(b) ?? 0))
    const left = order(["a0", "b0", "c0"])
    assert.deepStrictEqual(
      order(["a1", "b1", "c1"]),
      left.map((name) => edges.find((edge) => edge.from === name)?.to ?? ""),
    )
  })
})
