// Builds one stage on a machine in memory.
import { Effect, Layer } from "effect"
import * as Cmdline from "@kios/core/Cmdline"
import type { KernelError } from "@kios/core/KernelError"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { stageTester } from "../../core/test/support/oneStage.ts"

/** What earlier stages provide, as if they had run. */
export const earlier = (cmdline = "") =>
  Layer.mergeAll(
    Layer.succeed(MountedRoot, { readOnly: [] }),
    Layer.succeed(PseudoFilesystems, { mounted: [] }),
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.succeed(BootModules, { loaded: [] }),
    Layer.succeed(Cmdline.Cmdline, Cmdline.parse(cmdline)),
  )

export const { outcome, up } = stageTester(earlier as never)

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
