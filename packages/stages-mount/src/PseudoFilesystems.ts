/**
 * /proc, /sys, /dev and what belongs below them.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { mountAll, type MountRow, tolerances } from "./MountTable.ts"

const strict = ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"] as const

/**
 * The mounts, in order. Flags are those of the strictest peer (Talos) or stricter.
 *
 * @example
 * ```ts
 * import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
 *
 * const table = PseudoFilesystems.mounts.map(({ flags, target }) => `${target} ${flags.join(",")}`)
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = [
  { source: "proc", target: "/proc", fstype: "proc", flags: strict, why: "every process reads it" },
  {
    source: "sysfs",
    target: "/sys",
    fstype: "sysfs",
    flags: strict,
    why: "devices, and the mount point of cgroups",
  },
  {
    source: "devtmpfs",
    target: "/dev",
    fstype: "devtmpfs",
    flags: ["MS_NOSUID", "MS_NOEXEC"],
    options: "mode=0755",
    why: "device nodes: nodev would make them useless",
  },
  {
    source: "devpts",
    target: "/dev/pts",
    fstype: "devpts",
    flags: ["MS_NOSUID", "MS_NOEXEC"],
    options: "ptmxmode=0666,mode=0620,gid=5",
    why: "terminals: nodev would make them useless",
  },
  {
    source: "tmpfs",
    target: "/dev/shm",
    fstype: "tmpfs",
    flags: strict,
    options: "mode=1777,size=64M",
    why: "shm_open(3) of pods that share the host's IPC namespace",
  },
  {
    source: "securityfs",
    target: "/sys/kernel/security",
    fstype: "securityfs",
    flags: strict,
    mayBeAbsent: true,
    why: "containerd looks there for AppArmor",
  },
  {
    source: "bpf",
    target: "/sys/fs/bpf",
    fstype: "bpf",
    flags: strict,
    options: "mode=0700",
    mayBeAbsent: true,
    why: "CNIs pin their programs there",
  },
  {
    source: "tracefs",
    target: "/sys/kernel/tracing",
    fstype: "tracefs",
    flags: strict,
    mayBeAbsent: true,
    why: "tracing pods",
  },
  {
    source: "pstore",
    target: "/sys/fs/pstore",
    fstype: "pstore",
    flags: strict,
    mayBeAbsent: true,
    why: "what the firmware kept of the log of a boot that died",
  },
]

/**
 * The stage.
 *
 * @example
 * ```ts
 * import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
 *
 * for (const row of PseudoFilesystems.mounts) console.log(row.target, row.why)
 * ```
 */
export const stage = Stage.make({
  name: "pseudo-filesystems",
  description: "/proc, /sys, /dev and what belongs below them",
  requires: [MountedRoot],
  provides: [PseudoFilesystems],
  tolerates: [
    ...tolerances(mounts),
    { operation: "symlink", errno: ["EEXIST"], because: "devtmpfs made it", silent: true },
  ],
  layer: Layer.effect(
    PseudoFilesystems,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const mounted = yield* mountAll(mounts)
      // What programs expect of a /dev that udev would have made.
      for (const [path, target] of links) {
        yield* Effect.catchIf(
          kernel.symlink(target, path),
          (error) => error.errno === "EEXIST",
          () => Effect.void,
        )
      }
      return { mounted }
    }),
  ),
})

const links = [
  ["/dev/fd", "/proc/self/fd"],
  ["/dev/stdin", "/proc/self/fd/0"],
  ["/dev/stdout", "/proc/self/fd/1"],
  ["/dev/stderr", "/proc/self/fd/2"],
] as const
