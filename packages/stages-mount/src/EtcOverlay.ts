/**
 * /etc: the image's files below, what was written to the node above.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Etc } from "@kios/core/capabilities/Etc"
import { MOUNT_POINT } from "./DataPartition.ts"
import { mountOne, type MountRow, strict } from "./MountTable.ts"

/**
 * Where the image keeps its defaults for /etc.
 *
 * @example
 * ```ts
 * import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
 *
 * const hosts = `${EtcOverlay.IMAGE_ETC}/hosts`
 * ```
 */
export const IMAGE_ETC = "/lib/kios/etc"

const IN_RAM = "/run/kios/etc"

// What is written to the node, and overlayfs' own scratch beside it.
const layers = {
  "data-partition": { upper: `${MOUNT_POINT}/meta/etc`, work: `${MOUNT_POINT}/meta/.etc-work` },
  "no-data-partition": { upper: `${IN_RAM}/upper`, work: `${IN_RAM}/work` },
} as const

const overlay = (when: keyof typeof layers) => ({
  source: "etc",
  target: "/etc",
  fstype: "overlay",
  flags: strict,
  options: `lowerdir=${IMAGE_ETC},upperdir=${layers[when].upper},workdir=${layers[when].work}`,
  when,
})

/**
 * The mounts, in order, of a node with a data partition and of one without.
 *
 * @example
 * ```ts
 * import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
 *
 * const persistent = EtcOverlay.mounts.filter((row) => row.when !== "no-data-partition")
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = [
  {
    ...overlay("data-partition"),
    why: "the image's files below, what was written to the node above; not read-only: pods write manifests, CNI configuration and resolv.conf",
    reference:
      "Talos, whose /etc/cni and /etc/kubernetes are writable as well; Documentation/filesystems/overlayfs.rst",
  },
  {
    source: "tmpfs",
    target: IN_RAM,
    fstype: "tmpfs",
    flags: strict,
    options: "mode=0755,size=16M,nr_inodes=4k",
    when: "no-data-partition",
    why: "the upper layer of /etc: who fills it does not fill /run, where the runtime lives",
    reference: "Talos, which gives it 8M",
  },
  {
    ...overlay("no-data-partition"),
    why: "the same, forgotten at the next boot",
    reference: "Talos; Documentation/filesystems/overlayfs.rst",
  },
]

/**
 * The stage. Documentation/filesystems/overlayfs.rst; the upper layer is
 * `/meta/etc` of the data partition or, without one, a small tmpfs.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Etc } from "@kios/core/capabilities/Etc"
 *
 * const note = Etc.use((etc) => Effect.log(etc.persistent ? "kept" : "in RAM"))
 * ```
 */
export const stage = Stage.make({
  name: "etc-overlay",
  description: "/etc, the image's files below what was written to the node",
  requires: [DataPartition, EphemeralFilesystems, BootModules],
  provides: [Etc],
  layer: Layer.effect(
    Etc,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const persistent = (yield* DataPartition).device !== undefined
      const when = persistent ? "data-partition" : "no-data-partition"
      for (const row of mounts.filter((one) => one.when === when)) {
        if (row.target === "/etc") {
          yield* kernel.makeDirectory(layers[when].upper)
          yield* kernel.makeDirectory(layers[when].work, 0o700)
        } else yield* kernel.makeDirectory(row.target)
        yield* Effect.acquireRelease(mountOne(row), () =>
          Effect.ignore(kernel.umount(row.target, ["MNT_DETACH"])),
        )
      }
      return { persistent }
    }),
  ),
})
