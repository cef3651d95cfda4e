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

/**
 * The stage. Documentation/filesystems/overlayfs.rst; the upper layer is
 * `/meta/etc` of the data partition or, without one, a directory in RAM.
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
      const base = persistent ? `${MOUNT_POINT}/meta` : "/run/kios"
      const upper = `${base}/etc`
      const work = `${base}/.etc-work`
      yield* kernel.makeDirectory(upper)
      yield* kernel.makeDirectory(work, 0o700)
      yield* Effect.acquireRelease(
        kernel.mount({
          source: "etc",
          target: "/etc",
          fstype: "overlay",
          flags: ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
          options: `lowerdir=${IMAGE_ETC},upperdir=${upper},workdir=${work}`,
        }),
        () => Effect.ignore(kernel.umount("/etc", ["MNT_DETACH"])),
      )
      return { persistent }
    }),
  ),
})
