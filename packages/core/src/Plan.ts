/**
 * A pipeline as data, computed without running anything: what the stages are,
 * which needs which, and the longest chain among them.
 */
import type * as Stage from "./Stage.ts"

/** One stage of a {@link Plan}. */
export interface PlannedStage {
  readonly name: string
  readonly description: string
  readonly criticality: Stage.Criticality
  readonly requires: ReadonlyArray<string>
  /** Services that it waits for if somebody provides them. */
  readonly wants: ReadonlyArray<string>
  readonly provides: ReadonlyArray<string>
  /** Names of the stages that this one waits for. */
  readonly after: ReadonlyArray<string>
  /** Stages with the same number can start at the same time. */
  readonly depth: number
  /** How long the stage took, in milliseconds, where durations were given. */
  readonly durationMs?: number
}

/** A pipeline as data: its stages, what each waits for, and which chain of them decides how long a boot takes. */
export interface Plan {
  readonly stages: ReadonlyArray<PlannedStage>
  /** The chain that decides how long the boot takes, first to last. */
  readonly criticalPath: ReadonlyArray<string>
  /** What the critical path takes, in milliseconds, where durations were given. */
  readonly criticalPathMs?: number
}

/**
 * Computes the plan of a list of stages.
 *
 * @param durations milliseconds by stage name, as `durations` of
 * `@kios/core/BootRecord` reads them from a boot's record (a stage that is not
 * among them counts nothing); without any, every stage counts the same and the
 * critical path is the longest chain
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Plan from "@kios/core/Plan"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const plan = Plan.make(Pipeline.make([idle]).stages)
 * Plan.toText(plan)
 * ```
 */
export const make = (
  stages: ReadonlyArray<Stage.Any>,
  durations: Readonly<Record<string, number>> = {},
): Plan => {
  const measured = Object.keys(durations).length > 0
  const provider = new Map<string, string>()
  const planned: Array<PlannedStage> = []
  const longest = new Map<string, { readonly total: number; readonly chain: ReadonlyArray<string> }>()
  for (const stage of stages) {
    const requires = stage.requires.map((key) => key.key)
    const wants = stage.wants.map((key) => key.key)
    const after = [...new Set([...requires, ...wants].flatMap((key) => provider.get(key) ?? []))]
    const before = after.map((name) => longest.get(name) ?? { total: 0, chain: [] })
    const slowest = before.reduce((a, b) => (b.total > a.total ? b : a), before[0] ?? { total: 0, chain: [] })
    longest.set(stage.name, {
      total: slowest.total + (durations[stage.name] ?? (measured ? 0 : 1)),
      chain: [...slowest.chain, stage.name],
    })
    const durationMs = durations[stage.name]
    planned.push({
      name: stage.name,
      description: stage.description,
      criticality: stage.criticality,
      requires,
      wants,
      provides: stage.provides.map((key) => key.key),
      after,
      depth: Math.max(
        0,
        ...after.map((name) => (planned.find((other) => other.name === name)?.depth ?? 0) + 1),
      ),
      ...(durationMs === undefined ? {} : { durationMs }),
    })
    for (const key of stage.provides) provider.set(key.key, stage.name)
  }
  const critical = [...longest.values()].reduce((a, b) => (b.total > a.total ? b : a), {
    total: 0,
    chain: [],
  })
  return {
    stages: planned,
    criticalPath: critical.chain,
    ...(measured ? { criticalPathMs: critical.total } : {}),
  }
}

/**
 * The plan as lines of text: a stage each, in columns of what may start together.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Plan from "@kios/core/Plan"
 * import * as Stage from "@kios/core/Stage"
 * import * as Layer from "effect/Layer"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const text = Plan.toText(Plan.make(Pipeline.make([idle]).stages))
 * ```
 */
export const toText = (plan: Plan): string => {
  const width = Math.max(0, ...plan.stages.map((stage) => stage.name.length))
  const critical = new Set(plan.criticalPath)
  const measured = plan.criticalPathMs !== undefined
  const took = (ms: number | undefined) => (ms === undefined ? "-" : `${ms.toFixed(1)} ms`).padStart(12)
  const lines = [...plan.stages]
    .sort((a, b) => a.depth - b.depth)
    .map((stage) =>
      [
        String(stage.depth).padStart(2),
        critical.has(stage.name) ? "*" : " ",
        stage.name.padEnd(width),
        ...(measured ? [took(stage.durationMs)] : []),
        stage.criticality === "optional" ? "optional" : "required",
        stage.description + (stage.after.length === 0 ? "" : ` (after ${stage.after.join(", ")})`),
      ].join(" "),
    )
  const total = plan.criticalPathMs === undefined ? "" : `, ${plan.criticalPathMs.toFixed(1)} ms`
  return [...lines, "", `* critical path${total}: ${plan.criticalPath.join(" > ")}`].join("\n")
}

/**
 * The plan as a Mermaid flowchart; the critical path is drawn thick.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Plan from "@kios/core/Plan"
 * import * as Stage from "@kios/core/Stage"
 * import * as Layer from "effect/Layer"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const chart = Plan.toMermaid(Plan.make(Pipeline.make([idle]).stages)) // "flowchart LR\n  idle..."
 * ```
 */
export const toMermaid = (plan: Plan): string => {
  const on = (from: string, to: string) => plan.criticalPath[plan.criticalPath.indexOf(to) - 1] === from
  return [
    "flowchart LR",
    ...plan.stages.map(
      (stage) =>
        `  ${stage.name}${stage.criticality === "optional" ? `(["${stage.name}"])` : `["${stage.name}"]`}`,
    ),
    ...plan.stages.flatMap((stage) =>
      stage.after.map((name) => `  ${name} ${on(name, stage.name) ? "==>" : "-->"} ${stage.name}`),
    ),
  ].join("\n")
}
