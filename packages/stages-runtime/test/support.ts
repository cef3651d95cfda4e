// Builds one stage on a machine in memory.
import { type Context, Effect, Layer, type Scope } from "effect"
import type * as Stage from "@kios/core/Stage"
import * as Cmdline from "@kios/core/Cmdline"
import type { Kmsg } from "@kios/core/Kmsg"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { Etc } from "@kios/core/capabilities/Etc"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

/** What earlier stages provide, as if they had run. */
export const earlier = (cmdline = "") =>
  Layer.mergeAll(
    Layer.succeed(PseudoFilesystems, { mounted: [] }),
    Layer.succeed(BootModules, { loaded: [] }),
    Layer.succeed(Modules, { loaded: [] }),
    Layer.succeed(Etc, { persistent: false }),
    Layer.succeed(Cmdline.Cmdline, Cmdline.parse(cmdline)),
  )

/** Brings the stage up in the test's scope. */
export const up = <I, E, R>(
  stage: { readonly layer: Layer.Layer<I, E, R> },
  machine: TestMachine.TestMachine,
  before: Layer.Layer<Exclude<R, Stage.Platform | Kmsg>> = earlier() as never,
): Effect.Effect<Context.Context<I>, E, Scope.Scope> =>
  Layer.build(stage.layer).pipe(
    Effect.provide(Layer.provideMerge(before, TestMachine.platform(machine)) as never),
  ) as Effect.Effect<Context.Context<I>, E, Scope.Scope>

/** The errno that the stage fails with, or "up". */
export const outcome = <I, E, R>(
  stage: { readonly layer: Layer.Layer<I, E, R> },
  machine: TestMachine.TestMachine,
  before?: Layer.Layer<Exclude<R, Stage.Platform | Kmsg>>,
): Effect.Effect<string> =>
  Effect.scoped(up(stage, machine, before)).pipe(
    Effect.as("up"),
    Effect.catch((error) => Effect.succeed((error as { readonly errno?: string }).errno ?? String(error))),
  )

/** A machine with /proc. */
export const withProc = (
  options: TestMachine.TestMachineOptions = {},
): Effect.Effect<TestMachine.TestMachine> => {
  const machine = TestMachine.make({ ...options, files: { "/proc/": "", ...options.files } })
  const mount = machine.kernel.mount({ source: "proc", target: "/proc", fstype: "proc", flags: [] })
  return Effect.as(Effect.orDie(mount), machine)
}
