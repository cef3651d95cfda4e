/**
 * PID 1 of the contract's virtual machine: runs every case on the live kernel,
 * tells each in a line of the kernel log, and powers off.
 */
import { Cause, Effect, Exit } from "effect"
import * as Kmsg from "@kios/core/Kmsg"
import { formatAttributes } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { all } from "../../../packages/core/test/contract/cases.ts"
import { run } from "../../../packages/core/test/contract/harness.ts"
import { shellPrograms } from "../../../packages/core/test/contract/programs.ts"

const kernel = LinuxKernel.make({ koffiPath: "/lib/kios/koffi.node" })
const kmsg = Kmsg.device("/dev/kmsg")
setInterval(() => {}, 2 ** 30)
// Of what is compared in an error, as a log takes it.
process.env["NO_COLOR"] = "1"
process.on("uncaughtException", (error) => kmsg.writeUnsafe("crit", `error contract: ${error.stack}`))

// Node runs under any name; BusyBox goes by the name of its file.
const programs = shellPrograms({ command: "/bin/node", args: ["-e", "setInterval(() => {}, 1e6)"] })

const main = Effect.gen(function* () {
  for (const [fstype, target] of [
    ["proc", "/proc"],
    ["sysfs", "/sys"],
    ["devtmpfs", "/dev"],
  ] as const) {
    yield* kernel.makeDirectory(target)
    yield* kernel.mount({ source: fstype, target, fstype, flags: [] })
  }
  yield* kmsg.write("notice", "milestone init")
  const counts = { passed: 0, failed: 0 }
  for (const one of all) {
    // A case that waits for ever fails by its name.
    const exit = yield* Effect.exit(
      Effect.scoped(run(one, "/tmp", programs)).pipe(Effect.timeout("60 seconds")),
    )
    counts[Exit.isSuccess(exit) ? "passed" : "failed"]++
    const outcome = Exit.isSuccess(exit)
      ? "ok"
      : `failed ${formatAttributes({ reason: Cause.pretty(exit.cause) })}`
    yield* kmsg.write("notice", `case ${one.name} ${outcome}`)
  }
  yield* kmsg.write("notice", `milestone contract-done passed=${counts.passed} failed=${counts.failed}`)
}).pipe(
  Effect.provideService(Kernel, kernel),
  Effect.catchCause((cause) => kmsg.write("crit", `error contract: ${Cause.pretty(cause)}`)),
  Effect.andThen(kernel.reboot("POWER_OFF")),
)
void Effect.runPromise(main)
