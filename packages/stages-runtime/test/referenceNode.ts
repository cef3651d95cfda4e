// The reference distro's stages and a machine in memory that they boot on.
import { Effect, Layer } from "effect"
import * as Liveness from "@kios/core/Liveness"
import * as Pipeline from "@kios/core/Pipeline"
import * as Readiness from "@kios/core/Readiness"
import * as Stage from "@kios/core/Stage"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { forever } from "@kios/core/testing/TestPrograms"
import { DataPartition as DataPartitionService } from "@kios/core/capabilities/DataPartition"
import * as Kubelet from "@kios/stages-kubelet/Kubelet"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import * as Logind from "@kios/stages-kubelet/Logind"
import * as SystemSocket from "@kios/stages-kubelet/SystemSocket"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as DataPartition from "@kios/stages-mount/DataPartition"
import * as DiskGrow from "@kios/stages-mount/DiskGrow"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as Containerd from "@kios/stages-runtime/Containerd"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import * as Hostname from "@kios/stages-runtime/Hostname"
import { ContainerdClient } from "@kios/stages-runtime/containerd/ContainerdClient"
import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as Loopback from "@kios/stages-runtime/Loopback"
import * as MachineId from "@kios/stages-runtime/MachineId"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
import * as PowerButton from "@kios/stages-runtime/PowerButton"
import * as PreviousBoot from "@kios/stages-runtime/PreviousBoot"
import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
import * as ShutdownLog from "@kios/stages-runtime/ShutdownLog"
import * as Sysctl from "@kios/stages-runtime/Sysctl"
import * as Watchdog from "@kios/stages-runtime/Watchdog"
import { kubeconfig } from "../../stages-kubelet/test/life.ts"
import * as Node from "../../stages-kubelet/test/ready.ts"

const release = "6.12.0-test"
const modules = KernelModules.stages({
  boot: ["overlay"],
  node: ["br_netfilter"],
  pods: ["xt_comment"],
})
const kubeletStage = Kubelet.make({
  readiness: Readiness.immediate,
  liveness: Liveness.make("nothing", Effect.void),
})
/** With containerd at an address, and a kubelet that is ready as soon as it runs. */
export const pipeline = (address: string) =>
  Pipeline.make([
    RootSwitch.stage,
    PseudoFilesystems.stage,
    CommandLine.stage,
    EphemeralFilesystems.stage,
    Cgroups.stage,
    modules.boot,
    DataPartition.stage,
    DiskGrow.stage,
    PersistentStore.stage,
    PreviousBoot.stage,
    ShutdownLog.stage,
    RemainingPods.stage,
    EtcOverlay.stage,
    Containerd.make({ ...ContainerdConfig.reference, address }),
    ImagePreload.stage,
    modules.node,
    modules.pods,
    modules.data,
    PowerButton.stage,
    Watchdog.stage,
    Sysctl.stage,
    Loopback.stage,
    MachineId.stage,
    Hostname.stage,
    Logind.stage,
    SystemSocket.stage,
    PodMilestones.stage,
    KubeletConfigFile.make({ containerRuntimeEndpoint: `unix://${address}` }),
    kubeletStage,
  ])

/** What an import that succeeds needs: the archives are read by no kernel of ours. */
export const importing = Pipeline.make([
  RootSwitch.stage,
  EphemeralFilesystems.stage,
  Stage.make({
    name: "containerd",
    description: "a container runtime that takes any archive",
    provides: [ContainerdClient],
    layer: Layer.succeed(ContainerdClient, {
      importImage: () => Effect.succeed([{ name: "pause" }]),
    } as unknown as ContainerdClient["Service"]),
  }),
  Stage.make({
    name: "no-data-partition",
    description: "a node that lives in RAM",
    provides: [DataPartitionService],
    layer: Layer.succeed(DataPartitionService, { device: undefined }),
  }),
  ImagePreload.stage,
])

/** The kubelet's own stages, on a node that is ready for it. */
export const kubelet = Pipeline.make([
  Stage.make({
    name: "node",
    description: "what is there before the kubelet is",
    provides: [
      Node.Cgroups,
      Node.ContainerRuntime,
      Node.EphemeralFilesystems,
      Node.Etc,
      Node.Hostname,
      Node.Images,
      Node.Loopback,
      Node.Modules,
      Node.Sysctls,
    ],
    layer: Node.ready,
  }),
  KubeletConfigFile.make({ containerRuntimeEndpoint: "unix:///run/x.sock" }),
  kubeletStage,
])

/** A machine for it, with all the files that its owner may write. */
export const kubeletNode = () =>
  TestMachine.make({
    programs: { "/bin/kubelet": forever },
    files: {
      "/proc/meminfo": "MemTotal: 1024 kB\n",
      "/proc/sys/kernel/threads-max": "7000\n",
      "/cg/kubelet/cgroup.procs": "",
      "/run/kios/log/": "",
      "/var/lib/": "",
      "/etc/kubernetes/bootstrap-kubelet.conf": kubeconfig(),
      "/etc/kubernetes/config.yaml": "kind: KubeletConfiguration\n",
      "/etc/kubernetes/kubelet.conf.d/50-pods.conf": "{}",
      "/etc/kubernetes/node-labels": "a=b\n",
      "/etc/kubernetes/node-taints": "a=b:NoSchedule\n",
      "/etc/kubernetes/node-ip": "10.0.0.7\n",
      "/etc/kubernetes/provider-id": "x://y\n",
      "/etc/kubernetes/credential-providers.yaml": "x",
      "/var/lib/kubelet/credential-providers/ecr": "x",
    },
  })

/** A disk with a data partition that has a host name. */
const dataDisk = () =>
  TestDisks.gpt({
    partitions: [
      {
        type: DataPartition.PARTITION_TYPE,
        ext4: {
          label: "state",
          files: {
            "/meta/etc/hostname": "node-7\n",
            "/meta/etc/modprobe.d/node.conf": "options bridge x=1\n",
            "/meta/etc/modules-load.d/node.conf": "of_data\n",
            [`/modules/${release}/modules.dep`]: "of_data.ko:\n",
            [`/modules/${release}/of_data.ko`]: "\x7fELF of module of_data.",
            "/modules/flat.ko": "\x7fELF of module flat.",
          },
        },
      },
    ],
  })

/** The same disk after its owner has made it larger. */
export const enlargedDisk = () =>
  TestDisks.enlarged(
    TestDisks.gpt({ partitions: [{ type: DataPartition.PARTITION_TYPE, sectors: 2048, ext4: {} }] }),
    4 * 2 ** 20,
  )

/** A disk whose primary table is lost, so that the kernel has none of its partitions. */
export const backupOnlyDisk = () => {
  const disk = dataDisk()
  disk.bytes.fill(0, 512, 1024)
  disk.partitions.clear()
  return disk
}

/** What the firmware kept of a boot whose init was killed. */
const kept = {
  "dmesg-efi_pstore-178000000001001":
    "Panic#1 Part1\n<0>[    5.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
}

/** A machine for it, with a data partition unless `disks` says otherwise; `died` says that the boot before did. */
export const node = (
  options: {
    readonly disks?: TestMachine.TestMachineOptions["disks"]
    readonly parameters?: string
    readonly died?: boolean
    readonly files?: Readonly<Record<string, string>>
  } = {},
) =>
  TestMachine.make({
    cmdline: `console=ttyS0 kios.log=warn ${options.parameters ?? ""}`.trimEnd(),
    osrelease: release,
    // A disk, and a display that nothing drives.
    devices: {
      "virtio/virtio0": "virtio:d00000002v00001AF4",
      "pci/0000:00:03.0": "pci:v00001AF4d00001000sv00001AF4sd00000001bc03sc00i00",
    },
    files: {
      "/lib/kios/etc/modprobe.d/kios.conf": "options virtio_blk queue_depth=64\n",
      "/init": "x",
      "/bin/": "",
      "/lib/kios/etc/hostname": "image\n",
      "/lib64/ld.so": "",
      ...options.files,
    },
    programs: { "/bin/containerd": forever, "/bin/kubelet": forever },
    modules: {
      overlay: { filesystems: ["overlay"] },
      virtio_blk: {
        path: "kernel/drivers/block/virtio_blk.ko",
        aliases: ["virtio:d00000002v*"],
      },
      of_data: {},
      flat: {},
      xt_comment: {},
      efi_pstore: { pstore: options.died === true ? kept : {} },
      softdog: { watchdog: {} },
      bridge: {},
      br_netfilter: { needs: ["bridge"], sysctls: { "net.bridge.bridge-nf-call-iptables": "0" } },
    },
    inputs: { event0: "Power Button", event1: "AT keyboard" },
    sysctls: { "net.ipv4.ip_forward": "0", "kernel.pid_max": "32768" },
    disks: options.disks ?? { vda: dataDisk() },
  })
