/**
 * The one part of a node that outlives a reboot.
 *
 * Found by its GPT partition type on any disk, or by `datapart=`; mounted, and
 * its directories put where the rest of the node expects them. A node without
 * one boots all the same, in RAM, and says so. Nothing here ever formats,
 * repairs or writes to a filesystem that does not mount.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel, type MountFlag } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as DataDevice from "./internal/DataDevice.ts"
import * as Disks from "./internal/Disks.ts"
import * as Superblock from "./internal/Superblock.ts"
import { mountOne, type MountRow, strict } from "./MountTable.ts"

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

const bound = (
  inPartition: string,
  target: string,
  flags: ReadonlyArray<MountFlag>,
  why: string,
): MountRow => ({
  source: `${MOUNT_POINT}/${inPartition}`,
  target,
  fstype: "none",
  flags: ["MS_BIND", ...flags, "MS_RELATIME"],
  why,
  reference: "Talos: /var is nosuid and nodev, noexec was tried there and reverted",
  when: "data-partition",
})

/**
 * The mounts, on a node with a data partition. The source of the first is the
 * partition's device.
 *
 * @example
 * ```ts
 * import * as DataPartition from "@kios/stages-mount/DataPartition"
 *
 * const [partition] = DataPartition.mounts // the partition itself, with errors=remount-ro
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = [
  {
    source: "the data partition",
    target: MOUNT_POINT,
    fstype: "ext4",
    flags: [...strict, "MS_RELATIME"],
    // Nothing is written any more to a filesystem that is known to be damaged.
    options: "errors=remount-ro",
    why: "what outlives a reboot; programs run from where its directories are bound, not from here",
    reference: "ext4(5); Talos: /var is nosuid and nodev",
    when: "data-partition",
  },
  bound(
    "data/oci",
    "/var/lib/containerd",
    ["MS_NOSUID", "MS_NODEV"],
    "images and containers' layers; exec stays allowed, containers run from it",
  ),
  bound(
    "data/pods",
    "/var/lib/kubelet",
    ["MS_NOSUID", "MS_NODEV"],
    "volumes of pods; exec stays allowed, pods run programs from volumes",
  ),
  bound(
    "data/cni",
    "/opt/cni/bin",
    ["MS_NOSUID", "MS_NODEV"],
    "programs that a CNI's pod installs and the runtime executes: exec; kept as long as /etc/cni/net.d, which names them, so that no network is ready without them",
  ),
  bound("meta/log", "/var/log", strict, "logs of pods and of the node"),
]

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
export const directories: ReadonlyArray<readonly [inPartition: string, target: string]> = mounts
  .filter(({ flags }) => flags.includes("MS_BIND"))
  .map(({ source, target }) => [source.slice(MOUNT_POINT.length + 1), target])

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
  `/dev/${Disks.partitionName(disk, number)}`

/** Why a device is not used. */
class Unusable extends Data.TaggedError("Unusable")<{ readonly message: string }> {}

/** The filesystem, if nothing is against mounting it for writing. */
const usable = Effect.fnUntraced(function* (device: string) {
  const content = yield* Superblock.identify(device)
  if (content._tag === "Other")
    return yield* new Unusable({
      message: `it holds ${content.name} and no ext4 filesystem; kiOS formats nothing (mkfs.ext4 makes one)`,
    })
  const objection = Superblock.objection(device, content.ext4)
  if (objection !== undefined) return yield* new Unusable({ message: objection })
  return content.ext4
})

// What is busy stays: once every process has ended it is tried again, and only then is it made read-only and detached.
// Detached now, its filesystem would stay mounted for writing where nobody can get at it.
const release = (target: string) =>
  Effect.flatMap(Kernel, (kernel) =>
    Effect.catch(kernel.umount(target), (error) =>
      Effect.logWarning(`${error.message}; it is tried again when every process has ended`),
    ),
  )

const mountDevice = Effect.fnUntraced(function* (candidate: DataDevice.Candidate) {
  const kernel = yield* Kernel
  const { device } = candidate
  yield* DataDevice.ensure(candidate)
  const ext4 = yield* usable(device)
  if (ext4.needsReplay) yield* Effect.logInfo(`${device} was not unmounted: its journal is replayed`)
  if (!ext4.hasJournal)
    yield* Effect.logWarning(
      `${device} has no journal: a power cut can damage it (tune2fs -O has_journal adds one)`,
    )
  for (const row of mounts) {
    const partition = row.target === MOUNT_POINT
    if (!partition) yield* kernel.makeDirectory(row.source)
    yield* kernel.makeDirectory(row.target)
    const mount = mountOne(partition ? { ...row, source: device } : row)
    yield* Effect.acquireRelease(partition ? explained(device, ext4, mount) : mount, () =>
      release(row.target),
    )
    // What the journal or the replay has brought to light.
    if (partition) yield* usable(device)
  }
})

/** A mount's error, with what the superblock tells of its cause. */
const explained = <R>(
  device: string,
  ext4: Superblock.Ext4,
  mount: Effect.Effect<void, KernelError, R>,
): Effect.Effect<void, KernelError | Unusable, R | Kernel> =>
  Effect.catch(mount, (error) =>
    Effect.gen(function* () {
      const partition = yield* Effect.catch(Disks.diskOf(device), () => Effect.succeed(undefined))
      const name = device.slice("/dev/".length)
      const bytes = yield* Disks.sizeInSysfs(
        `/sys/block/${partition === undefined ? name : `${partition.disk}/${name}`}/size`,
      )
      const cause = Superblock.explain(device, ext4, bytes, error.errno)
      return yield* cause === undefined ? error : new Unusable({ message: `${error.message}: ${cause}` })
    }),
  )

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
    {
      operation: "readText",
      path: /^\/sys\/block\/[^/]+\/(removable|[^/]+\/size)$|^\/sys\/class\//u,
      because: "it only says which of several is taken, and what a message explains",
      silent: true,
    },
    { operation: "readText", path: /^\/sys\/block\//u, because: "another disk may hold it" },
    {
      operation: "readDirectory",
      path: /^\/sys\/(bus|class|block\/)/u,
      because: "a kernel without the bus has no such directory",
      silent: true,
    },
    { operation: "readLink", because: "it only says whether more disks may come", silent: true },
    {
      operation: "readAt",
      path: /\d$/u,
      errno: ["ENOENT"],
      because: "a partition that datapart= names is waited for",
      silent: true,
    },
    { operation: "readAt", because: "another disk may hold it, or the node lives in RAM" },
    { operation: "addPartition", errno: ["EBUSY"], because: "the kernel has it meanwhile", silent: true },
    { operation: "addPartition", because: "the node lives in RAM" },
    { operation: "stat", path: /^\/(sys\/block|dev)\//u, because: "the node lives in RAM" },
    { operation: "makeDirectory", because: "the node lives in RAM" },
    { operation: "mount", because: "the node lives in RAM" },
  ],
  layer: Layer.effect(
    DataPartition,
    Effect.gen(function* () {
      const found = yield* DataDevice.find(PARTITION_TYPE)
      if (found === undefined) {
        yield* Effect.logWarning(
          "no data partition: this node lives in RAM and nothing that it keeps outlives a reboot",
        )
        return { device: undefined }
      }
      const { device } = found
      // A scope of its own: what fails half-way is unmounted at once, and not at shutdown.
      const scope = yield* Effect.flatMap(Effect.scope, Scope.fork)
      return yield* mountDevice(found).pipe(
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
