// Runs a case on the machine in memory, which is what the kernel that we ship is to look like.
import { Effect } from "effect"
import { Kernel } from "@kios/core/Kernel"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, leaving, prints } from "@kios/core/testing/TestPrograms"
import type { Case } from "./cases.ts"
import { connectInMemory } from "./clients.ts"
import { run } from "./harness.ts"

const flag = { value: "0", accepts: (value: string) => /^\d+$/u.test(value) }

const machine = () =>
  TestMachine.make({
    files: { "/lib64/": { directory: true } },
    sysctls: { "net.ipv4.ip_forward": flag },
    disks: {
      vda: TestDisks.enlarged(
        TestDisks.gpt({
          partitions: [{ type: "97aac693-d920-465a-94fe-eb59fc86dfaa", sectors: 2048, ext4: {} }],
        }),
        6 * 2 ** 20,
      ),
    },
    modules: {
      overlay: { filesystems: ["overlay"] },
      virtio_blk: {},
      libcrc32c: {},
      vxlan: { needs: ["udp_tunnel"] },
      udp_tunnel: {},
      erofs: { needs: ["libcrc32c"], filesystems: ["erofs"] },
      watchdog: {},
      softdog: { needs: ["watchdog"], watchdog: { identity: "Software Watchdog" } },
      llc: {},
      stp: { needs: ["llc"] },
      bridge: { needs: ["stp", "llc"] },
      br_netfilter: {
        needs: ["bridge", "stp", "llc"],
        sysctls: { "net.bridge.bridge-nf-call-iptables": { ...flag, value: "1" } },
      },
    },
    programs: {
      "/bin/exits": (self) => Effect.succeed(Number(self.args[0])),
      "/bin/forever": forever,
      "/bin/stubborn": ignoring(["SIGTERM"], prints(["ready"], forever)),
      "/bin/prints": (self) => prints(self.args)(self),
      "/bin/leaves": (self) =>
        leaving(Array.from({ length: Number(self.args[0]) }, () => exits(3, "5 millis")))(self),
    },
  })

/** On a machine of its own. */
export const runInMemory = (one: Case): Effect.Effect<void, unknown> => {
  const subject = machine()
  return Effect.gen(function* () {
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
      connect: (path) => connectInMemory(subject, path),
      pid: 1,
    })
  }).pipe(Effect.scoped, Effect.provide(subject.layer))
}
