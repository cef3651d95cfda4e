/**
 * The data partition and its filesystem grow to the end of the disk, when
 * `datapart.grow` asks for it: as when a cloud gives a node a larger disk than
 * the image was made for.
 *
 * Everything happens while the partition is mounted and in use. A power cut at
 * any point leaves a valid partition table and a filesystem that mounts; the
 * next boot goes on from there.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { MOUNT_POINT } from "./DataPartition.ts"
import * as Disks from "./internal/Disks.ts"
import * as GptGrow from "./internal/GptGrow.ts"
import * as Superblock from "./internal/Superblock.ts"

const inMiB = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`

/** Grows the partition's entry and the kernel's idea of it; one that cannot grow is told and stays as it is. */
const growPartition = Effect.fnUntraced(function* (disk: Disks.Disk, name: string, number: number) {
  const kernel = yield* Kernel
  const device = `/dev/${name}`
  const read = yield* Disks.readTable(disk)
  if (Result.isFailure(read)) {
    yield* Effect.logWarning(
      `${device} does not grow: ${disk.device} has no GUID partition table: ${read.failure.reason}`,
    )
    return
  }
  const first = yield* kernel.readAt(disk.device, 0, disk.sectorBytes)
  const backupIsWhole = yield* Disks.backupIsWhole(disk, read.success)
  const planned = GptGrow.plan(disk, read.success, { first, backupIsWhole, number })
  if (Result.isFailure(planned)) {
    yield* Effect.logWarning(`${device} does not grow: ${planned.failure}`)
    return
  }
  const { partition, writes } = planned.success
  for (const { bytes, position, what } of writes) {
    yield* Effect.logDebug(`${disk.device}: writing the ${what}`)
    yield* kernel.writeAt(disk.device, position, bytes)
  }
  const extent = Disks.extentOf(disk, partition)
  const known = yield* Disks.sizeInSysfs(`/sys/block/${disk.name}/${name}/size`)
  if (known === extent.length) return
  yield* kernel.resizePartition(disk.device, extent)
  yield* Effect.logInfo(`${device} has grown to ${inMiB(extent.length)}, the end of ${disk.device}`)
})

const grow = Effect.fnUntraced(function* (device: string) {
  const kernel = yield* Kernel
  const partition = yield* Disks.diskOf(device)
  const name = device.slice("/dev/".length)
  if (partition !== undefined)
    yield* growPartition(yield* Disks.describe(partition.disk), name, partition.number)
  const deviceBytes = yield* Disks.sizeInSysfs(
    `/sys/block/${partition === undefined ? name : `${partition.disk}/${name}`}/size`,
  )
  const content = yield* Superblock.identify(device)
  if (deviceBytes === undefined || content._tag === "Other") {
    yield* Effect.logWarning(`${device}: the filesystem does not grow: its device's size is not known`)
    return
  }
  const { ext4 } = content
  const blocks = Superblock.blocksOn(ext4, deviceBytes)
  if (blocks <= ext4.blocks) {
    yield* Effect.logInfo(`${device} is as large as its disk allows: ${inMiB(ext4.blocks * ext4.blockBytes)}`)
    return
  }
  yield* kernel.resizeFilesystem(MOUNT_POINT, blocks)
  yield* Effect.logInfo(
    `the filesystem on ${device} has grown from ${inMiB(ext4.blocks * ext4.blockBytes)} to ${inMiB(blocks * ext4.blockBytes)}`,
  )
})

/**
 * The stage. Optional: a disk that cannot grow is as good as it was. It runs
 * beside the start of the container runtime.
 *
 * @example
 * ```ts
 * import * as DiskGrow from "@kios/stages-mount/DiskGrow"
 *
 * DiskGrow.stage.criticality // "optional"
 * ```
 */
export const stage = Stage.make({
  name: "disk-grow",
  description: "grow the data partition to its disk, if datapart.grow says so",
  requires: [DataPartition, Cmdline],
  criticality: "optional",
  timeout: "5 minutes",
  tolerates: [
    {
      operation: "readText",
      path: /^\/sys\/block\/[^/]+\/(removable|[^/]+\/size)$/u,
      because: "a partition whose size is not known is told it once more",
      silent: true,
    },
  ],
  layer: Layer.effectDiscard(
    Effect.gen(function* () {
      const { values } = yield* Cmdline
      const { device } = yield* DataPartition
      if (values.growDataPartition !== true || device === undefined) return
      yield* grow(device)
    }),
  ),
})
