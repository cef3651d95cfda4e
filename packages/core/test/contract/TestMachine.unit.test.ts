// The contract on the machine in memory. LinuxKernel.kernel.test.ts runs the same cases on Linux.
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Kernel } from "@kios/core/Kernel"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, leaving, prints } from "@kios/core/testing/TestPrograms"
import { all } from "./cases.ts"
import { run } from "./harness.ts"

const machine = () =>
  TestMachine.make({
    sysctls: { "net.ipv4.ip_forward": { value: "0", accepts: (value) => /^\d+$/u.test(value) } },
    programs: {
      "/bin/exits": (self) => Effect.succeed(Number(self.args[0])),
      "/bin/forever": forever,
      "/bin/stubborn": ignoring(["SIGTERM"], prints(["ready"], forever)),
      "/bin/prints": (self) => prints(self.args)(self),
      "/bin/leaves": (self) =>
        leaving(Array.from({ length: Number(self.args[0]) }, () => exits(3, "5 millis")))(self),
    },
  })

describe("contract: TestMachine", () => {
  for (const one of all)
    it.live(one.name, () =>
      Effect.gen(function* () {
        const kernel = yield* Kernel
        for (const fstype of ["proc", "sysfs", "devtmpfs"]) {
          const target = { proc: "/proc", sysfs: "/sys", devtmpfs: "/dev" }[fstype] ?? "/"
          yield* kernel.makeDirectory(target)
          yield* kernel.mount({ source: fstype, target, fstype, flags: [] })
        }
        yield* run(one, "/tmp", {
          exits: (code) => ({ command: "/bin/exits", args: [String(code)] }),
          forever: { command: "/bin/forever", args: [] },
          stubborn: { command: "/bin/stubborn", args: [] },
          prints: (lines) => ({ command: "/bin/prints", args: lines }),
          leaves: (children) => ({ command: "/bin/leaves", args: [String(children)] }),
        })
      }).pipe(Effect.provide(machine().layer)),
    )
})
