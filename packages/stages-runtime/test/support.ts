// Builds one stage on a machine in memory.
import { Effect, Layer } from "effect"
import * as Cmdline from "@kios/core/Cmdline"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { Etc } from "@kios/core/capabilities/Etc"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { stageTester } from "../../core/test/support/oneStage.ts"

/** What earlier stages provide, as if they had run. */
export const earlier = (cmdline = "") =>
  Layer.mergeAll(
    Layer.succeed(PseudoFilesystems, { mounted: [] }),
    Layer.succeed(BootModules, { loaded: [] }),
    Layer.succeed(Modules, { loaded: [] }),
    Layer.succeed(Etc, { persistent: false }),
    Layer.succeed(Cmdline.Cmdline, Cmdline.parse(cmdline)),
  )

export const { outcome, up } = stageTester(earlier as never)

/** A machine with /proc. */
export const withProc = (
  options: TestMachine.TestMachineOptions = {},
): Effect.Effect<TestMachine.TestMachine> => {
  const machine = TestMachine.make({ ...options, files: { "/proc/": "", ...options.files } })
  const mount = machine.kernel.mount({ source: "proc", target: "/proc", fstype: "proc", flags: [] })
  return Effect.as(Effect.orDie(mount), machine)
}
