/**
 * A plan as a picture: the stages from left to right by what has to be up
 * before them, a line from each stage to those that wait for it, and the
 * critical path, which decides how long the boot takes, thick and coloured.
 */
import type { Plan, PlannedStage } from "./Plan.ts"
import * as LayeredLayout from "./internal/LayeredLayout.ts"
import * as Svg from "./internal/Svg.ts"

/** How a plan is drawn. */
export interface PlanOptions {
  /** What it is called. Default `kiOS boot plan`. */
  readonly title?: string
  /**
   * Which requirements are drawn. `direct` leaves out those that follow from
   * others: where kubelet waits for containerd and containerd for /proc, the
   * line from /proc to kubelet says nothing new. Default `direct`.
   */
  readonly edges?: "direct" | "all"
  /** Default `auto`. */
  readonly theme?: Svg.Theme
}

const MARGIN = 24
const BODY = 84
const COLUMN_GAP = 46
const NAME = 210
const ARROW = 7

/**
 * The requirements that no other requirement implies, and those on the
 * critical path, as pairs of stage names.
 *
 * @example
 * ```ts
 * import * as Plan from "@kios/core/Plan"
 * import * as PlanSvg from "@kios/core/PlanSvg"
 *
 * PlanSvg.directEdges(Plan.make([])) // []
 * ```
 */
export const directEdges = (plan: Plan): ReadonlyArray<readonly [from: string, to: string]> => {
  const before = new Map<string, ReadonlySet<string>>()
  for (const stage of plan.stages)
    before.set(stage.name, new Set(stage.after.flatMap((name) => [name, ...(before.get(name) ?? [])])))
  return plan.stages.flatMap((stage) =>
    stage.after
      .filter(
        (name) =>
          isCritical(plan, name, stage.name) ||
          !stage.after.some((other) => other !== name && before.get(other)?.has(name) === true),
      )
      .map((name) => [name, stage.name] as const),
  )
}

const isCritical = (plan: Plan, from: string, to: string): boolean => {
  const index = plan.criticalPath.indexOf(to)
  return index > 0 && plan.criticalPath[index - 1] === from
}

const rules = (colors: Svg.Colors): ReadonlyArray<string> => [
  `.box{fill:${colors.faint};stroke:${colors.gray}}.optional{stroke-dasharray:5 3}`,
  `.hot{fill:${colors.paleOrange};stroke:${colors.orange};stroke-width:2}.on{font-weight:600}`,
  `.took{font-size:11px;fill:${colors.muted}}`,
  `.edge{stroke:${colors.gray};stroke-width:1.25;fill:none}.head{fill:${colors.gray}}`,
  `.critical{stroke:${colors.orange};stroke-width:3;fill:none}.hothead{fill:${colors.orange}}`,
]

/**
 * Draws a plan. The picture is one SVG document: text that can be searched,
 * descriptions as tool tips, colours for light and dark pages.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Plan from "@kios/core/Plan"
 * import * as PlanSvg from "@kios/core/PlanSvg"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const svg = PlanSvg.toSvg(Plan.make([idle]), { theme: "dark" })
 * ```
 */
export const toSvg = (plan: Plan, options: PlanOptions = {}): string => {
  const measured = plan.criticalPathMs !== undefined
  const critical = new Set(plan.criticalPath)
  const height = measured ? 40 : 28
  const pairs =
    options.edges === "all"
      ? plan.stages.flatMap((stage) => stage.after.map((name) => [name, stage.name] as const))
      : directEdges(plan)
  // The critical path last: what is drawn last is on top.
  const edges = pairs
    .map(([from, to]) => ({ from, to, weight: isCritical(plan, from, to) ? 20 : 1 }))
    .toSorted((a, b) => a.weight - b.weight)
  const layout = LayeredLayout.make(
    plan.stages.map((stage) => ({ name: stage.name, layer: stage.depth, height })),
    edges,
  )

  const label = (stage: PlannedStage) => Svg.fit(stage.name, NAME, 12, critical.has(stage.name))
  const columns: Array<{ x: number; width: number }> = []
  for (const stage of plan.stages) {
    while (columns.length <= stage.depth) columns.push({ x: 0, width: 60 })
    const column = columns[stage.depth]
    if (column !== undefined)
      column.width = Math.max(column.width, Svg.textWidth(label(stage), 12, critical.has(stage.name)) + 18)
  }
  let x = MARGIN
  for (const column of columns) {
    column.x = x
    x += column.width + COLUMN_GAP
  }
  const stageOf = new Map(plan.stages.map((stage) => [stage.name, stage]))
  const columnOf = (name: string) => stageOf.get(name)?.depth ?? 0
  const yOf = (name: string) => BODY + (layout.y.get(name) ?? 0)

  const n = Svg.number
  const lines: Array<string> = []
  for (const edge of edges) {
    const hot = edge.weight > 1
    const [from, to] = [columnOf(edge.from), columnOf(edge.to)]
    const heights = [...layout.between(edge).map((y) => y + BODY), yOf(edge.to)]
    let atX = (columns[from]?.x ?? 0) + (columns[from]?.width ?? 0)
    let atY = yOf(edge.from)
    let path = `M${n(atX)} ${n(atY)}`
    for (const [index, y] of heights.entries()) {
      const column = columns[from + index + 1] ?? { x: 0, width: 0 }
      const last = from + index + 1 === to
      const endX = last ? column.x - ARROW + 1 : column.x
      const middle = (atX + endX) / 2
      path += `C${n(middle)} ${n(atY)} ${n(middle)} ${n(y)} ${n(endX)} ${n(y)}`
      if (!last) path += `H${n(column.x + column.width)}`
      atX = column.x + column.width
      atY = y
    }
    const tip = (columns[to]?.x ?? 0) - 1
    lines.push(
      Svg.element("path", { class: hot ? "critical" : "edge", d: path }),
      Svg.element("path", {
        class: hot ? "hothead" : "head",
        d: `M${n(tip)} ${n(atY)}l${-ARROW - (hot ? 2 : 0)} ${hot ? -5.5 : -3.5}v${hot ? 11 : 7}z`,
      }),
    )
  }
  const boxes = plan.stages.map((stage) => {
    const hot = critical.has(stage.name)
    const column = columns[stage.depth] ?? { x: 0, width: 0 }
    const y = yOf(stage.name)
    const middle = column.x + column.width / 2
    const tip = `${stage.name} (${stage.criticality}): ${stage.description}${stage.after.length === 0 ? "" : `\nwaits for ${stage.after.join(", ")}`}`
    return Svg.element(
      "g",
      {},
      Svg.tooltip(tip),
      Svg.element("rect", {
        class: `box${hot ? " hot" : ""}${stage.criticality === "optional" ? " optional" : ""}`,
        x: column.x,
        y: y - height / 2,
        width: column.width,
        height,
        rx: 6,
      }),
      Svg.element(
        "text",
        { class: hot ? "on" : undefined, x: middle, y: measured ? y - 2 : y + 4, "text-anchor": "middle" },
        Svg.escape(label(stage)),
      ),
      ...(measured
        ? [
            Svg.element(
              "text",
              { class: "took", x: middle, y: y + 13, "text-anchor": "middle" },
              stage.durationMs === undefined ? "not measured" : Svg.escape(Svg.duration(stage.durationMs)),
            ),
          ]
        : []),
    )
  })

  const width = Math.max(640, x - COLUMN_GAP + MARGIN)
  const swatch = (kind: string) => Svg.element("rect", { class: kind, y: -7, width: 22, height: 14, rx: 4 })
  const legend = Svg.legend(
    [
      { label: "required stage", draw: swatch("box") },
      { label: "optional stage", draw: swatch("box optional") },
      { label: "starts after", draw: Svg.element("path", { class: "edge", d: "M0 0H22" }) },
      { label: "critical path", draw: Svg.element("path", { class: "critical", d: "M0 0H22" }) },
    ],
    { x: MARGIN, y: BODY + layout.height + 36, width: width - 2 * MARGIN },
  )
  const heading = options.title ?? "kiOS boot plan"
  const subtitle = [
    `critical path: ${plan.criticalPath.length} of ${plan.stages.length} stages`,
    ...(plan.criticalPathMs === undefined ? [] : [Svg.duration(plan.criticalPathMs)]),
  ].join(", ")
  return Svg.document({
    width,
    height: BODY + layout.height + 36 + legend.height,
    title: heading,
    description: `Stages of a boot and what each waits for. Critical path: ${plan.criticalPath.join(", then ")}.`,
    theme: options.theme ?? "auto",
    rules,
    body: [
      Svg.element("text", { class: "title", x: MARGIN, y: 36 }, Svg.escape(heading)),
      Svg.element("text", { class: "muted", x: MARGIN, y: 56 }, Svg.escape(subtitle)),
      ...lines,
      ...boxes,
      ...legend.body,
    ],
  })
}
