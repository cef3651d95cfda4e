/**
 * Stages composed into a boot.
 *
 * The list is in an order that the types can check (each stage after what it
 * needs); the schedule is the graph: at run time a stage starts the moment its
 * own requirements are up, whatever its place in the list.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { BootReport, type StageFacts } from "./BootReport.ts"
import type {
  Check,
  Find,
  Fits,
  Misfit,
  Named,
  Needed,
  Provided,
  Replaced,
  Stages,
} from "./internal/PipelineTypes.ts"
import type * as Stage from "./Stage.ts"

export type { Needed, Provided, Stages } from "./internal/PipelineTypes.ts"
import { StageFailed, StageSkipped, StageTimeout } from "./StageError.ts"

export { StageFailed, StageSkipped, StageTimeout } from "./StageError.ts"

/** Stages that were checked to fit. */
export interface Pipeline<S extends Stages> {
  readonly stages: S
  /**
   * The boot: building this layer runs the stages, its scope is the life of
   * the node. Fails with the first required stage that fails, after the others
   * were interrupted and what they acquired was released.
   */
  readonly layer: Layer.Layer<Provided<S>, StageFailed, Needed<S>>
}

/**
 * Composes stages. A stage that needs what no earlier stage provides, provides
 * what one provides already, or is required but rests on an optional one, is a
 * compile error whose message names the stage and the service.
 *
 * @example
 * ```ts
 * import * as Context from "effect/Context"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * class Disk extends Context.Service<Disk, { readonly path: string }>()("example/Disk") {}
 *
 * const disk = Stage.make({
 *   name: "disk",
 *   description: "find the disk",
 *   provides: [Disk],
 *   layer: Layer.succeed(Disk, { path: "/dev/vda" }),
 * })
 * const report = Stage.make({
 *   name: "report",
 *   description: "say which disk it is",
 *   requires: [Disk],
 *   layer: Layer.effectDiscard(Disk.use((found) => Effect.log(found.path))),
 * })
 *
 * const boot = Pipeline.make([disk, report]) // [report, disk] does not compile
 * ```
 */
export const make = <const S extends ReadonlyArray<unknown>>(
  // `unknown`, not `Stage.Any`: that would widen stages written in place.
  stages: S & Check<S>,
): Pipeline<Extract<S, Stages>> => compose(stages as unknown as Extract<S, Stages>)

const compose = <S extends Stages>(stages: S): Pipeline<S> => ({ stages, layer: wire(stages) as never })

const indexOf = (stages: Stages, name: string): number => {
  const index = stages.findIndex((stage) => stage.name === name)
  if (index < 0)
    throw new Error(
      `the pipeline has no stage "${name}"; it has ${stages.map((stage) => stage.name).join(", ")}`,
    )
  return index
}

const splice = (
  stages: Stages,
  name: string,
  before: Stages,
  replacement: Stages | undefined,
  after: Stages,
): never => {
  const at = indexOf(stages, name)
  const middle = replacement ?? stages.slice(at, at + 1)
  return compose([...stages.slice(0, at), ...before, ...middle, ...after, ...stages.slice(at + 1)]) as never
}

/**
 * A pipeline with one more stage at its end.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const longer = Pipeline.append(Pipeline.make([]), idle)
 * ```
 */
export const append = <const S extends Stages, const New extends Stage.Any>(
  pipeline: Pipeline<S>,
  stage: New & Fits<[...S, New]>,
): Pipeline<[...S, New]> => compose([...pipeline.stages, stage] as [...S, New])

/**
 * A pipeline with another stage in the place of the one of that name: a
 * container runtime of one's own, say. What the old stage provided and others
 * need, the new one has to provide.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const busy = Stage.make({ name: "busy", description: "do nothing, often", layer: Layer.empty })
 * const other = Pipeline.replace(Pipeline.make([idle]), "idle", busy)
 * ```
 */
export const replace = <const S extends Stages, const Name extends Named<S>, const New extends Stage.Any>(
  pipeline: Pipeline<S>,
  name: Name,
  stage: New & Fits<Replaced<S, Name, [New]>>,
): Pipeline<Extract<Replaced<S, Name, [New]>, Stages>> =>
  splice(pipeline.stages, name, [], [stage as Stage.Any], [])

/**
 * A pipeline without the stage of that name. Leaving out what another stage
 * needs is a compile error at the name.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const nothing = Pipeline.without(Pipeline.make([idle]), "idle")
 * ```
 */
export const without = <const S extends Stages, const Name extends Named<S>>(
  pipeline: Pipeline<S>,
  name: Name & Misfit<Fits<Replaced<S, Name, []>>>,
): Pipeline<Extract<Replaced<S, Name, []>, Stages>> => splice(pipeline.stages, name, [], [], [])

/**
 * A pipeline with a stage more, just before the one of that name.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const first = Stage.make({ name: "first", description: "be first", layer: Layer.empty })
 * const both = Pipeline.insertBefore(Pipeline.make([idle]), "idle", first)
 * ```
 */
export const insertBefore = <
  const S extends Stages,
  const Name extends Named<S>,
  const New extends Stage.Any,
>(
  pipeline: Pipeline<S>,
  name: Name,
  stage: New & Fits<Replaced<S, Name, [New, Find<S, Name>]>>,
): Pipeline<Extract<Replaced<S, Name, [New, Find<S, Name>]>, Stages>> =>
  splice(pipeline.stages, name, [stage as Stage.Any], undefined, [])

/**
 * A pipeline with a stage more, just after the one of that name.
 *
 * @example
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 *
 * const idle = Stage.make({ name: "idle", description: "do nothing", layer: Layer.empty })
 * const last = Stage.make({ name: "last", description: "be last", layer: Layer.empty })
 * const both = Pipeline.insertAfter(Pipeline.make([idle]), "idle", last)
 * ```
 */
export const insertAfter = <const S extends Stages, const Name extends Named<S>, const New extends Stage.Any>(
  pipeline: Pipeline<S>,
  name: Name,
  stage: New & Fits<Replaced<S, Name, [Find<S, Name>, New]>>,
): Pipeline<Extract<Replaced<S, Name, [Find<S, Name>, New]>, Stages>> =>
  splice(pipeline.stages, name, [], undefined, [stage as Stage.Any])

// oxlint-disable-next-line typescript/no-explicit-any -- wired by name; the types were checked by make
type AnyLayer = Layer.Layer<any, any, any>

const wire = (stages: ReadonlyArray<Stage.Any>): AnyLayer => {
  const providers = new Map<string, { readonly stage: string; readonly layer: AnyLayer }>()
  const all: Array<AnyLayer> = []
  // Known from the whole list, so that a stage that is wanted but listed later is a mistake that is seen.
  const anywhere = new Set(stages.flatMap((stage) => stage.provides.map((key) => key.key)))
  for (const stage of stages) {
    const needs = new Map<string, AnyLayer>()
    for (const key of [...stage.requires, ...stage.wants]) {
      const provider = providers.get(key.key)
      if (provider !== undefined) needs.set(provider.stage, provider.layer)
      else if (stage.requires.includes(key))
        throw new Error(`stage "${stage.name}" needs "${key.key}", which no earlier stage provides`)
      else if (anywhere.has(key.key))
        throw new Error(
          `stage "${stage.name}" wants "${key.key}", which only a later stage provides: list that one first`,
        )
    }
    const own = observed(stage, { criticality: stage.criticality, requires: [...needs.keys()] })
    const layer =
      needs.size === 0
        ? own
        : Layer.provide(own, [...needs.values()] as unknown as [AnyLayer, ...Array<AnyLayer>])
    all.push(layer)
    // The same reference wherever it is needed, so that it is built once.
    for (const key of stage.provides) providers.set(key.key, { stage: stage.name, layer })
  }
  return Layer.mergeAll(...(all as [AnyLayer, ...Array<AnyLayer>]))
}

/** The stage's own layer with its skip, timeout, retry, report and failure policy around it. */
const observed = (stage: Stage.Any, facts: StageFacts): AnyLayer =>
  // oxlint-disable-next-line typescript/no-explicit-any -- see AnyLayer
  Layer.fromBuildMemo<any, any, any>((memoMap, scope) =>
    Effect.gen(function* () {
      const report = yield* BootReport
      const have = yield* Effect.context<never>()
      // An optional stage that failed leaves its services out of the context.
      const missing = stage.requires.map((key) => key.key).filter((key) => !have.mapUnsafe.has(key))
      if (missing.length > 0) {
        const skipped = new StageSkipped({ stage: stage.name, missing })
        yield* report.stageSkipped(stage.name, skipped.message, facts)
        return yield* skipped
      }
      yield* report.stageStarted(stage.name, facts)
      const timeout = Duration.fromInputUnsafe(stage.timeout)
      const once = Layer.buildWithMemoMap(stage.layer, memoMap, scope)
      yield* Scope.addFinalizer(scope, report.stageReleased(stage.name))
      const attempts =
        stage.retry === undefined ? once : Effect.retry(once, stage.retry as Schedule.Schedule<unknown>)
      return yield* attempts.pipe(
        Effect.timeoutOrElse({
          duration: timeout,
          orElse: () =>
            Effect.fail(new StageTimeout({ stage: stage.name, timeout: Duration.format(timeout) })),
        }),
        Effect.annotateLogs("stage", stage.name),
        Effect.tap(() => report.stageUp(stage.name)),
        // Added last, it comes first.
        Effect.tap(() => Scope.addFinalizer(scope, report.stageReleasing(stage.name))),
        Effect.tapCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : report.stageFailed(stage.name, describe(cause), stage.criticality),
        ),
        // A fiber that is being interrupted runs no failure handlers, only this one.
        Effect.onInterrupt(() => report.stageInterrupted(stage.name)),
      )
    }).pipe(
      Effect.catchCause((cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
        return stage.criticality === "optional"
          ? Effect.succeed(Context.empty() as Context.Context<any>)
          : Effect.fail(
              new StageFailed({ stage: stage.name, reason: describe(cause), cause: Cause.squash(cause) }),
            )
      }),
    ),
  )

/** What went wrong, in one line. */
const describe = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  const text = error instanceof Error ? error.message || error.name : String(error)
  return text.replaceAll(/\s*\n\s*/gu, "; ")
}
