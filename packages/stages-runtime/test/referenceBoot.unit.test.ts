// The reference distro's stages, all but the kubelet itself, booted together on one machine in memory.
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { BootReport } from "@kios/core/BootReport"
import * as Pipeline from "@kios/core/Pipeline"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { forever } from "@kios/core/testing/TestPrograms"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as DataPartition from "@kios/stages-mount/DataPartition"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as Containerd from "@kios/stages-runtime/Containerd"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import * as Hostname from "@kios/stages-runtime/Hostname"
import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as Loopback from "@kios/stages-runtime/Loopback"
import * as MachineId from "@kios/stages-runtime/MachineId"
import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
import * as Sysctl from "@kios/stages-runtime/Sysctl"
import { makeFakeContainerd } from "./containerd/support/FakeContainerd.ts"
import { tempDir } from "./containerd/support/http2Server.ts"

const modules = KernelModules.stages({ boot: ["overlay", "virtio_blk"], node: ["br_netfilter"] })
const pipeline = (address: string) =>
  Pipeline.make([
    RootSwitch.stage,
    PseudoFilesystems.stage,
    CommandLine.stage,
    EphemeralFilesystems.stage,
    Cgroups.stage,
    modules.boot,
    DataPartition.stage,
    RemainingPods.stage,
    Containerd.make({ ...ContainerdConfig.reference, address }),
    ImagePreload.stage,
    modules.node,
    Sysctl.stage,
    Loopback.stage,
    EtcOverlay.stage,
    MachineId.stage,
    Hostname.stage,
    PodMilestones.stage,
    KubeletConfigFile.make({ containerRuntimeEndpoint: `unix://${address}` }),
  ])

const node = () =>
  TestMachine.make({
    cmdline: "console=ttyS0 kios.log=warn",
    files: { "/init": "x", "/bin/": "", "/lib/kios/etc/hostname": "image\n", "/lib64/ld.so": "" },
    programs: { "/bin/containerd": forever },
    modules: {
      overlay: { filesystems: ["overlay"] },
      virtio_blk: {},
      bridge: {},
      br_netfilter: { needs: ["bridge"], sysctls: { "net.bridge.bridge-nf-call-iptables": "0" } },
    },
    sysctls: { "net.ipv4.ip_forward": "0", "kernel.pid_max": "32768" },
    disks: {
      vda: TestDisks.gpt({
        partitions: [
          { type: DataPartition.PARTITION_TYPE, ext4: { files: { "/meta/etc/hostname": "node-7\n" } } },
        ],
      }),
    },
  })

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
    assert.strictEqual(record.stages.length, 18)
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
        "/proc",
        "/run",
        "/run/kios/data",
        "/sys",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
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
        'umount2("/var/log", MNT_DETACH)',
        'umount2("/var/lib/kubelet", MNT_DETACH)',
        'umount2("/var/lib/containerd", MNT_DETACH)',
        'umount2("/run/kios/data", 0)',
      ],
    )
    assert.deepStrictEqual(machine.processes(), [])
  }),
)
