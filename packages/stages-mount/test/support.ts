// Builds one stage on a machine in memory.
import { type Context, Effect, Layer, type Scope } from "effect"
import type * as Stage from "@kios/core/Stage"
import * as Cmdline from "@kios/core/Cmdline"
import type { KernelError } from "@kios/core/KernelError"
import type { Kmsg } from "@kios/core/Kmsg"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

/** What earlier stages provide, as if they had run. */
export const earlier = (cmdline = "") =>
  Layer.mergeAll(
    Layer.succeed(MountedRoot, { readOnly: [] }),
    Layer.succeed(PseudoFilesystems, { mounted: [] }),
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.succeed(BootModules, { loaded: [] }),
    Layer.succeed(Cmdline.Cmdline, Cmdline.parse(cmdline)),
  )

/** Brings the stage up in the test's scope. */
export const up = <I, E, R>(
  stage: { readonly layer: Layer.Layer<I, E, R> },
  machine: TestMachine.TestMachine,
  before: Layer.Layer<Exclude<R, Stage.Platform | Kmsg>> = earlier() as never,
): Effect.Effect<Context.Context<I>, E, Scope.Scope> =>
  Layer.build(stage.layer).pipe(
    Effect.provide(Layer.merge(before, TestMachine.platform(machine)) as never),
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

/** A machine with these disks, on which /dev, /sys, /run and /var are mounted; then `files` are put there. */
export const onDisks = (
  disks: NonNullable<TestMachine.TestMachineOptions["disks"]>,
  files: Parameters<TestMachine.TestMachine["write"]>[0] = {},
): Effect.Effect<TestMachine.TestMachine, KernelError> => {
  const machine = TestMachine.make({ disks, files: { "/dev/": "", "/sys/": "", "/run/": "", "/var/": "" } })
  const mounts = ["devtmpfs /dev", "sysfs /sys", "tmpfs /run", "tmpfs /var"].map((row) => {
    const [fstype = "", target = ""] = row.split(" ")
    return machine.kernel.mount({ source: fstype, target, fstype, flags: [] })
  })
  return Effect.map(Effect.all(mounts), () => {
    machine.write(files)
    return machine
  })
}
