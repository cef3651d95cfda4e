/**
 * The writable directories of a node without a data partition: in RAM, capped.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { mountAll, type MountRow, strict } from "./MountTable.ts"

/**
 * The mounts, in order.
 *
 * @example
 * ```ts
 * import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
 *
 * const inRam = EphemeralFilesystems.mounts.map(({ target, why }) => `${target}: ${why}`)
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = [
  {
    source: "tmpfs",
    target: "/run",
    fstype: "tmpfs",
    flags: strict,
    options: "mode=0755,size=20%,nr_inodes=64k",
    why: "sockets, state of the runtime, reports",
    reference: "Talos for the flags, systemd for the size",
  },
  {
    source: "tmpfs",
    target: "/tmp",
    fstype: "tmpfs",
    flags: strict,
    options: "mode=0755,size=64M,nr_inodes=16k",
    why: "scratch files of the kubelet; not for everybody, as all who use it are root",
    reference: "Talos",
  },
  {
    source: "tmpfs",
    target: "/var",
    fstype: "tmpfs",
    flags: ["MS_NOSUID", "MS_NODEV"],
    options: "mode=0755,size=50%",
    why: "images, containers, pods' volumes; exec because emptyDir volumes and container layers inherit it; as many inodes as the kernel gives by itself (one for 8 KB of RAM), because layers are many small files",
    reference: "Talos, which tried noexec and took it back",
  },
  {
    source: "tmpfs",
    target: "/opt",
    fstype: "tmpfs",
    flags: ["MS_NOSUID", "MS_NODEV"],
    options: "mode=0755,size=256M,nr_inodes=16k",
    why: "/opt/cni/bin, where a CNI's DaemonSet puts the programs that the runtime executes: exec",
    reference: "Talos",
  },
]

const directories = ["/run/kios", "/run/kios/log", "/var/lib", "/var/log", "/opt/cni/bin"]

/**
 * The stage.
 *
 * @example
 * ```ts
 * import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
 *
 * for (const row of EphemeralFilesystems.mounts) console.log(row.target, row.options)
 * ```
 */
export const stage = Stage.make({
  name: "ephemeral-filesystems",
  description: "/run, /tmp, /var and /opt in RAM",
  requires: [MountedRoot],
  provides: [EphemeralFilesystems],
  layer: Layer.effect(
    EphemeralFilesystems,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const mounted = yield* mountAll(mounts)
      for (const directory of directories) yield* kernel.makeDirectory(directory)
      yield* kernel.symlink("/run", "/var/run")
      return { mounted }
    }),
  ),
})
