// The reference distro's stages, all but the kubelet itself, booted together on one machine in memory.
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { BootReport } from "@kios/core/BootReport"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { makeFakeContainerd } from "./containerd/support/FakeContainerd.ts"
import { tempDir } from "./containerd/support/http2Server.ts"
import { node, pipeline } from "./referenceNode.ts"

it.live("boots, and goes down in order", () =>
  Effect.gen(function* () {
    const fake = yield* makeFakeContainerd(`${yield* tempDir}/c.sock`)
    const machine = node()
    const scope = yield* Scope.make()
    const record = yield* Layer.build(pipeline(fake.address).layer).pipe(
      Effect.andThen(BootReport.use((report) => report.current)),
      Effect.provide(TestMachine.platform(machine)),
      Scope.provide(scope),
      Effect.timeout("10 seconds"),
    )
    for (const stage of record.stages)
      assert.strictEqual(stage.outcome, "up", `${stage.name}: ${stage.reason}`)
    assert.strictEqual(record.stages.length, 29)
    assert.strictEqual(machine.hostname(), "node-7")
    assert.strictEqual(machine.sysctls.get("net.bridge.bridge-nf-call-iptables"), "1")
    assert.isTrue(machine.interfaces.get("lo"))
    assert.deepStrictEqual(
      machine
        .mounts()
        .map((mount) => mount.target)
        .toSorted(),
      [
        "/",
        "/bin",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/etc",
        "/lib",
        "/lib64",
        "/opt",
        "/opt/cni/bin",
        "/proc",
        "/run",
        "/run/kios/data",
        "/sys",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
        "/sys/fs/pstore",
        "/sys/kernel/security",
        "/sys/kernel/tracing",
        "/tmp",
        "/var",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/var/log",
      ],
    )
    for (const mount of machine.mounts()) {
      assert.include(mount.flags, "nosuid", mount.target)
      assert.strictEqual(mount.propagation, "shared", mount.target)
      if (["/", "/bin", "/lib", "/lib64"].includes(mount.target))
        assert.include(mount.flags, "ro", mount.target)
    }
    assert.isUndefined(
      machine.kmsg.find((line) => /^(err|crit|warning) /u.test(line)),
      machine.kmsg.join("\n"),
    )

    const up = machine.log().length
    yield* Scope.close(scope, Exit.void)
    assert.deepStrictEqual(
      machine
        .log()
        .slice(up)
        .filter((line) => !line.startsWith("kill(")),
      [
        'umount2("/etc", MNT_DETACH)',
        'umount2("/var/log", 0)',
        'umount2("/opt/cni/bin", 0)',
        'umount2("/var/lib/kubelet", 0)',
        'umount2("/var/lib/containerd", 0)',
        'umount2("/run/kios/data", 0)',
      ],
    )
    assert.deepStrictEqual(machine.processes(), [])
  }),
)
