// The reference distro's stages and a machine in memory that they boot on.
import { Effect, Layer } from "effect"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { forever } from "@kios/core/testing/TestPrograms"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
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
import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
import * as Sysctl from "@kios/stages-runtime/Sysctl"

const modules = KernelModules.stages({ boot: ["overlay", "virtio_blk"], node: ["br_netfilter"] })
/** All but the kubelet itself, with containerd at an address. */
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
  ImagePreload.stage,
])

/** A disk with a data partition that has a host name. */
const dataDisk = () =>
  TestDisks.gpt({
    partitions: [
      {
        type: DataPartition.PARTITION_TYPE,
        ext4: { label: "state", files: { "/meta/etc/hostname": "node-7\n" } },
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

/** A machine for it, with a data partition unless `disks` says otherwise. */
export const node = (
  options: {
    readonly disks?: TestMachine.TestMachineOptions["disks"]
    readonly parameters?: string
    readonly files?: Readonly<Record<string, string>>
  } = {},
) =>
  TestMachine.make({
    cmdline: `console=ttyS0 kios.log=warn ${options.parameters ?? ""}`.trimEnd(),
    files: {
      "/init": "x",
      "/bin/": "",
      "/lib/kios/etc/hostname": "image\n",
      "/lib64/ld.so": "",
      ...options.files,
    },
    programs: { "/bin/containerd": forever },
    modules: {
      overlay: { filesystems: ["overlay"] },
      virtio_blk: {},
      bridge: {},
      br_netfilter: { needs: ["bridge"], sysctls: { "net.bridge.bridge-nf-call-iptables": "0" } },
    },
    sysctls: { "net.ipv4.ip_forward": "0", "kernel.pid_max": "32768" },
    disks: options.disks ?? { vda: dataDisk() },
  })
