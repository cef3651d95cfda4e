/**
 * The reference distro: which stages make a kiOS node.
 *
 * The list is in an order that the types check; the schedule is the graph.
 */
import * as Pipeline from "@kios/core/Pipeline"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import * as Kubelet from "@kios/stages-kubelet/Kubelet"
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

const modules = KernelModules.stages({
  boot: KernelModules.bootModules,
  node: KernelModules.nodeModules,
  pods: KernelModules.podModules,
})
const runtime = ContainerdConfig.reference

/**
 * The stages of a kiOS node. A distro of one's own takes them as they are, or replaces, adds and leaves out some.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import { pipeline as reference } from "@kios/distro/pipeline"
 *
 * const withoutSampleMilestones = Pipeline.without(reference, "pod-milestones")
 * ```
 */
export const pipeline = Pipeline.make([
  RootSwitch.stage,
  PseudoFilesystems.stage,
  CommandLine.stage,
  EphemeralFilesystems.stage,
  Cgroups.stage,
  modules.boot,
  modules.disks,
  DataPartition.stage,
  DiskGrow.stage,
  PersistentStore.stage,
  PreviousBoot.stage,
  ShutdownLog.stage,
  RemainingPods.stage,
  EtcOverlay.stage,
  Containerd.make(runtime),
  ImagePreload.stage,
  modules.node,
  modules.pods,
  modules.data,
  modules.devices,
  PowerButton.stage,
  Watchdog.stage,
  Sysctl.stage,
  Loopback.stage,
  MachineId.stage,
  Hostname.stage,
  Logind.stage,
  SystemSocket.stage,
  PodMilestones.stage,
  KubeletConfigFile.make({ containerRuntimeEndpoint: `unix://${runtime.address}` }),
  Kubelet.stage,
])
