/**
 * The one part of a node that outlives a reboot.
 *
 * Found by its GPT partition type on any disk, or by `datapart=`; mounted, and
 * its directories put where the rest of the node expects them. A node without
 * one boots all the same, in RAM, and says so. Nothing here ever formats,
 * repairs or writes to a filesystem that does not mount.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel, type MountFlag } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as Gpt from "./Gpt.ts"

/**
 * GPT partition type of a kiOS data partition.
 *
 * @example
 * ```ts
 * import * as DataPartition from "@kios/stages-mount/DataPartition"
 *
 * const sfdisk = `label: gpt\ntype=${DataPartition.PARTITION_TYPE}\n`
 * ```
 */
export const PARTITION_TYPE = "97aac693-d920-465a-94fe-eb59fc86dfaa"

/**
 * Where the partition itself is mounted.
 *
 * @example
 * ```ts
 * import * as DataPartition from "@kios/stages-mount/DataPartition"
 *
 * const modules = `${DataPartition.MOUNT_POINT}/modules`
 * ```
 */
export const MOUNT_POINT = "/run/kios/data"

/**
 * The partition's directories and where they appear. `/meta/etc` is the business of the /etc overlay.
 *
 * @example
 * ```ts
 * import * as DataPartition from "@kios/stages-mount/DataPartition"
 *
 * const outlives = DataPartition.directories.map(([, target]) => target)
 * ```
 */
export const directories: ReadonlyArray<readonly [inPartition: string, target: string]> = [
  ["data/oci", "/var/lib/containerd"],
  ["data/pods", "/var/lib/kubelet"],
  ["meta/log", "/var/log"],
]

// exec stays allowed: volumes of pods and layers of containers inherit it.
const flags: ReadonlyArray<MountFlag> = ["MS_NOSUID", "MS_NODEV", "MS_RELATIME"]

// How long `datapart=` is waited for: a disk behind a slow controller.
const WAIT_SECONDS = 10

interface Candidate extends Gpt.GptPartition {
  readonly device: string
}

/**
 * The partition's device name: `vda` has `vda1`, `nvme0n1` has `nvme0n1p1`.
 *
 * @example
 * ```ts
 * import * as DataPartition from "@kios/stages-mount/DataPartition"
 *
 * DataPartition.partitionDevice("nvme0n1", 2) // "/dev/nvme0n1p2"
 * ```
 */
export const partitionDevice = (disk: string, number: number): string =>
  `/dev/${disk}${/\d$/u.test(disk) ? "p" : ""}${number}`

/** The partitions of one disk, by the primary table or, if that is damaged, the backup. */
const partitionsOf = Effect.fnUntraced(function* (
  disk: string,
): Effect.fn.Return<ReadonlyArray<Candidate>, KernelError, Kernel> {
  const kernel = yield* Kernel
  const number = (path: string) => Effect.map(kernel.readText(path), (text) => Number.parseInt(text, 10))
  const sectorBytes = yield* number(`/sys/block/${disk}/queue/logical_block_size`)
  // Always in units of 512 bytes, whatever the sector is.
  const sectors = Math.floor(((yield* number(`/sys/block/${disk}/size`)) * 512) / sectorBytes)
  const device = `/dev/${disk}`
  const table = Effect.fnUntraced(function* (lba: bigint) {
    const block = yield* kernel.readAt(device, Number(lba) * sectorBytes, sectorBytes)
    const header = Gpt.parseHeader(block, lba)
    if (Result.isFailure(header)) return Result.fail(header.failure)
    const { entriesLba, entryBytes, entryCount } = header.success
    if (entriesLba >= BigInt(sectors)) return Result.fail("the partition entries lie beyond the disk")
    return Gpt.parseEntries(
      header.success,
      yield* kernel.readAt(device, Number(entriesLba) * sectorBytes, entryBytes * entryCount),
    )
  })
  if (sectors < 3) return []
  let found = yield* table(1n)
  if (Result.isFailure(found)) {
    const primary = found.failure
    found = yield* table(BigInt(sectors - 1))
    if (Result.isFailure(found)) return []
    yield* Effect.logWarning(`${device}: using the backup partition table: ${primary}`)
  }
  return found.success.map((partition) => ({ ...partition, device: partitionDevice(disk, partition.number) }))
})

// Memory, loop and optical devices hold no data partition.
const isDisk = (name: string) => !/^(loop|ram|zram|sr|fd|dm-|md)/u.test(name)

const allPartitions = Effect.gen(function* () {
  const kernel = yield* Kernel
  const disks = (yield* kernel.readDirectory("/sys/block")).filter(isDisk)
  const found = yield* Effect.forEach(
    disks,
    (disk) =>
      Effect.catch(partitionsOf(disk), (error) =>
        Effect.as(
          Effect.logWarning(`/dev/${disk} could not be read: ${error.message}`),
          [] as ReadonlyArray<Candidate>,
        ),
      ),
    { concurrency: 1 },
  )
  return found.flat()
})

/** The device that a `datapart=` value means, once it is there. */
const bySpec = Effect.fnUntraced(function* (spec: string) {
  const kernel = yield* Kernel
  if (spec.startsWith("/dev/")) return (yield* kernel.stat(spec)) === undefined ? undefined : spec
  const [key, value = ""] = [spec.slice(0, spec.indexOf("=")), spec.slice(spec.indexOf("=") + 1)]
  for (const partition of yield* allPartitions) {
    if (key === "PARTUUID" && partition.uuid === value.toLowerCase()) return partition.device
    if (key === "PARTLABEL" && partition.label === value) return partition.device
    if (key === "UUID" || key === "LABEL") {
      const filesystem = yield* Effect.catch(ext4Names(partition.device), (error) =>
        // A device node comes a moment after the table that tells of it.
        Effect.as(error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message), undefined),
      )
      if (
        filesystem !== undefined &&
        (key === "UUID" ? filesystem.uuid === value.toLowerCase() : filesystem.label === value)
      ) {
        return partition.device
      }
    }
  }
  return undefined
})

/** UUID and label in an ext4 superblock; undefined when it is none. Documentation/filesystems/ext4/super.rst. */
const ext4Names = Effect.fnUntraced(function* (device: string) {
  const kernel = yield* Kernel
  const superblock = Buffer.from(yield* kernel.readAt(device, 1024, 0x88))
  if (superblock.length < 0x88 || superblock.readUInt16LE(0x38) !== 0xef53) return undefined
  const uuid = superblock.toString("hex", 0x68, 0x78).replace(/^(.{8})(.{4})(.{4})(.{4})/u, "$1-$2-$3-$4-")
  return { uuid, label: superblock.toString("utf8", 0x78, 0x88).split("\0")[0] ?? "" }
})

const find = Effect.gen(function* () {
  const { values } = yield* Cmdline
  const spec = values.datapart
  if (spec === "none") return undefined
  if (spec !== undefined) {
    const device = yield* bySpec(spec).pipe(
      Effect.repeat({
        schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: `${WAIT_SECONDS} seconds` })),
        until: (found) => found !== undefined,
      }),
    )
    if (device === undefined)
      yield* Effect.logError(`datapart=${spec}: no such device within ${WAIT_SECONDS} s`)
    return device
  }
  const candidates = (yield* allPartitions).filter((partition) => partition.type === PARTITION_TYPE)
  const chosen = candidates[0]
  if (candidates.length > 1) {
    yield* Effect.logWarning(
      `several data partitions: using ${chosen?.device}, the first by device name, and not ${candidates
        .slice(1)
        .map((other) => other.device)
        .join(", ")} (choose with datapart=)`,
    )
  }
  return chosen?.device
})

const mountDevice = Effect.fnUntraced(function* (device: string) {
  const kernel = yield* Kernel
  yield* kernel.makeDirectory(MOUNT_POINT)
  yield* Effect.acquireRelease(
    kernel.mount({ source: device, target: MOUNT_POINT, fstype: "ext4", flags }),
    () =>
      Effect.catch(kernel.umount(MOUNT_POINT), (error) =>
        Effect.andThen(
          Effect.logWarning(`${error.message}; detaching it`),
          Effect.ignore(kernel.umount(MOUNT_POINT, ["MNT_DETACH"])),
        ),
      ),
  )
  for (const [inPartition, target] of directories) {
    const source = `${MOUNT_POINT}/${inPartition}`
    yield* kernel.makeDirectory(source)
    yield* kernel.makeDirectory(target)
    yield* Effect.acquireRelease(kernel.mount({ source, target, fstype: "none", flags: ["MS_BIND"] }), () =>
      Effect.ignore(kernel.umount(target, ["MNT_DETACH"])),
    )
    yield* kernel.mount({
      source: "none",
      target,
      fstype: "none",
      flags: ["MS_REMOUNT", "MS_BIND", ...flags],
    })
  }
})

/**
 * The stage. It only fails when the node's own filesystems do; a data
 * partition that is missing or does not mount is told, and the node lives in RAM.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { DataPartition } from "@kios/core/capabilities/DataPartition"
 *
 * const lasts = DataPartition.use((data) => Effect.succeed(data.device !== undefined))
 * ```
 */
export const stage = Stage.make({
  name: "data-partition",
  description: "find and mount what outlives a reboot",
  // After a power cut, mounting replays the journal, on a slow disk for minutes.
  timeout: "5 minutes",
  requires: [PseudoFilesystems, EphemeralFilesystems, BootModules, Cmdline],
  provides: [DataPartition],
  tolerates: [
    { operation: "readText", path: /^\/sys\/block\//u, because: "another disk may hold it" },
    {
      operation: "readAt",
      path: /\d$/u,
      errno: ["ENOENT"],
      because: "a partition that datapart= names is waited for",
      silent: true,
    },
    { operation: "readAt", because: "another disk may hold it" },
    { operation: "makeDirectory", because: "the node lives in RAM" },
    { operation: "mount", because: "the node lives in RAM" },
  ],
  layer: Layer.effect(
    DataPartition,
    Effect.gen(function* () {
      const device = yield* find
      if (device === undefined) {
        yield* Effect.logWarning(
          "no data partition: this node lives in RAM and nothing that it keeps outlives a reboot",
        )
        return { device: undefined }
      }
      // A scope of its own: what fails half-way is unmounted at once, and not at shutdown.
      const scope = yield* Effect.flatMap(Effect.scope, Scope.fork)
      return yield* mountDevice(device).pipe(
        Scope.provide(scope),
        Effect.as({ device: device as string | undefined }),
        Effect.catch((error) =>
          Effect.andThen(
            Scope.close(scope, Exit.void),
            Effect.as(
              Effect.logError(
                `data partition ${device} is not used, this node lives in RAM: ${error.message}`,
              ),
              { device: undefined },
            ),
          ),
        ),
      )
    }),
  ),
})
