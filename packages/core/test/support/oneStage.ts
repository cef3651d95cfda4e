// Builds one stage on a machine in memory.
import { type Context, Effect, Layer, type Scope } from "effect"
import type { Kmsg } from "@kios/core/Kmsg"
import type * as Stage from "@kios/core/Stage"
import * as TestMachine from "@kios/core/testing/TestMachine"

/** The two helpers, for a package whose stages find `earlier` done when a test does not say otherwise. */
export const stageTester = (earlier: () => Layer.Layer<never>) => {
  /** Brings the stage up in the test's scope. */
  const up = <I, E, R>(
    stage: { readonly layer: Layer.Layer<I, E, R> },
    machine: TestMachine.TestMachine,
    before: Layer.Layer<Exclude<R, Stage.Platform | Kmsg>> = earlier() as never,
  ): Effect.Effect<Context.Context<I>, E, Scope.Scope> =>
    Layer.build(stage.layer).pipe(
      Effect.provide(Layer.provideMerge(before, TestMachine.platform(machine)) as never),
    ) as Effect.Effect<Context.Context<I>, E, Scope.Scope>

  /** The errno that the stage fails with, or "up". */
  const outcome = <I, E, R>(
    stage: { readonly layer: Layer.Layer<I, E, R> },
    machine: TestMachine.TestMachine,
    before?: Layer.Layer<Exclude<R, Stage.Platform | Kmsg>>,
  ): Effect.Effect<string> =>
    Effect.scoped(up(stage, machine, before)).pipe(
      Effect.as("up"),
      Effect.catch((error) => Effect.succeed((error as { readonly errno?: string }).errno ?? String(error))),
    )
  return { up, outcome }
}
