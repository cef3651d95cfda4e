/**
 * /proc, /sys, /dev and what belongs below them.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { mountAll, type MountRow, strict, tolerances } from "./MountTable.ts"

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
  {
    source: "proc",
    target: "/proc",
    fstype: "proc",
    flags: strict,
    why: "every process reads it; no hidepid: everybody on the host is root, and a pod has a /proc of its own",
    reference: "Talos; proc(5)",
  },
  {
    source: "sysfs",
    target: "/sys",
    fstype: "sysfs",
    flags: strict,
    why: "devices, and the mount point of cgroups",
    reference: "Talos",
  },
  {
    source: "devtmpfs",
    target: "/dev",
    fstype: "devtmpfs",
    flags: ["MS_NOSUID", "MS_NOEXEC"],
    options: "mode=0755,size=4M,nr_inodes=64k",
    why: "device nodes: nodev would make them useless; a file that is no device is in the way of nobody within 4 MB",
    reference:
      "Talos for nosuid and mode, systemd for size; noexec is stricter than both, only SGX enclaves would miss it",
  },
  {
    source: "devpts",
    target: "/dev/pts",
    fstype: "devpts",
    flags: ["MS_NOSUID", "MS_NOEXEC"],
    options: "ptmxmode=0000,mode=0620,gid=5",
    why: "terminals: nodev would make them useless; they are opened by /dev/ptmx, containers have a devpts of their own",
    reference: "Talos; Documentation/filesystems/devpts.rst",
  },
  {
    source: "tmpfs",
    target: "/dev/shm",
    fstype: "tmpfs",
    flags: strict,
    options: "mode=1777,size=64M,nr_inodes=16k",
    why: "shm_open(3) of pods that share the host's IPC namespace",
    reference: "Talos; shm_overview(7); 64M is what containerd gives a pod of its own",
  },
  {
    source: "securityfs",
    target: "/sys/kernel/security",
    fstype: "securityfs",
    flags: strict,
    mayBeAbsent: true,
    why: "containerd and runc look there for AppArmor",
    reference: "Talos",
  },
  {
    source: "bpf",
    target: "/sys/fs/bpf",
    fstype: "bpf",
    flags: strict,
    options: "mode=0700",
    mayBeAbsent: true,
    why: "Cilium and Calico pin their programs there; only root, because who opens a pin owns the program",
    reference: "Talos for the flags, systemd for the mode",
  },
  {
    source: "tracefs",
    target: "/sys/kernel/tracing",
    fstype: "tracefs",
    flags: strict,
    options: "mode=0700",
    mayBeAbsent: true,
    why: "pods that trace (Tetragon, bpftrace); nobody has to mount debugfs for it",
    reference: "Talos; Documentation/trace/ftrace.rst",
  },
  {
    source: "pstore",
    target: "/sys/fs/pstore",
    fstype: "pstore",
    flags: strict,
    mayBeAbsent: true,
    why: "what the firmware kept of the log of a boot that died",
    reference: "Talos; Documentation/ABI/testing/pstore",
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
