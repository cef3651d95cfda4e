/**
 * The stages of a node up to containerd, for namespaces of a machine that
 * others use: without what reaches beyond them. Modules are there already,
 * disks are not ours to mount, and of some filesystems there is one, whoever
 * mounts it. `floor.c` leaves out the same with -DNAMESPACE.
 */
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import { mountAll, type MountRow, tolerances } from "@kios/stages-mount/MountTable"
import { mounts } from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as Containerd from "@kios/stages-runtime/Containerd"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Of these a mount anywhere is the machine's, with its options. */
export const shared: ReadonlyArray<string> = ["securityfs", "bpf", "tracefs", "pstore"]

const rows = mounts
  .filter(({ fstype }) => !shared.includes(fstype))
  .map(({ options, ...row }): MountRow =>
    // There is one devtmpfs, whoever mounts it: its size is not ours to set.
    options === undefined || row.fstype === "devtmpfs" ? row : { ...row, options },
  )

const pseudoFilesystems = Stage.make({
  name: "pseudo-filesystems",
  description: "/proc, /sys and /dev of the namespaces",
  requires: [MountedRoot],
  provides: [PseudoFilesystems],
  tolerates: tolerances(rows),
  layer: Layer.effect(
    PseudoFilesystems,
    Effect.map(mountAll(rows), (mounted) => ({ mounted })),
  ),
})

const noDisk = Stage.make({
  name: "data-partition",
  description: "the disks are others'",
  requires: [PseudoFilesystems],
  provides: [DataPartition],
  layer: Layer.succeed(DataPartition, { device: undefined }),
})

/** `count` stages that do nothing, each of which waits for the one before; containerd waits for the last. */
const idle = (
  count: number,
): { readonly stages: ReadonlyArray<Stage.Any>; readonly last: Stage.ServiceKey } => {
  let last: Stage.ServiceKey = PseudoFilesystems
  const stages = Array.from({ length: count }, (_, index) => {
    const key: Stage.ServiceKey = class extends Context.Service<never, object>()(`bench/idle-${index}`) {}
    const stage = Stage.make({
      name: `idle-${index}`,
      description: "does nothing",
      requires: [last] as ReadonlyArray<Stage.ServiceKey>,
      provides: [key] as ReadonlyArray<Stage.ServiceKey>,
      layer: Layer.succeed(key, {}),
    } as never)
    last = key
    return stage as unknown as Stage.Any
  })
  return { stages, last }
}

/** The pipeline, with `count` stages of no work before containerd. */
export const make = (count = 0) => {
  const { last, stages } = idle(count)
  const noModules = Stage.make({
    name: "boot-modules",
    description: "the modules are there",
    requires: [PseudoFilesystems],
    wants: [last],
    provides: [BootModules],
    layer: Layer.succeed(BootModules, { loaded: [] }),
  })
  const pipeline = Pipeline.make([
    RootSwitch.stage,
    pseudoFilesystems,
    CommandLine.stage,
    EphemeralFilesystems.stage,
    Cgroups.stage,
    noModules,
    noDisk,
    RemainingPods.stage,
    EtcOverlay.stage,
    Containerd.make(ContainerdConfig.reference),
  ])
  if (count === 0) return pipeline
  // The number is known when it is built only, so that no type can tell their order.
  return Pipeline.make([...pipeline.stages.slice(0, 2), ...stages, ...pipeline.stages.slice(2)] as never)
}
