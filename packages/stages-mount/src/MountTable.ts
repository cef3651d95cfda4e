/**
 * Mounts as data: every mount that kiOS makes is one printable row, which the
 * stages execute, the documentation prints, and the test in the virtual
 * machine compares with the kernel's own table.
 */
import * as Effect from "effect/Effect"
import { Kernel, type MountFlag } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import type { Tolerance } from "@kios/core/Stage"

/**
 * One mount, as it is on the node that is up. All of them are shared
 * (`MS_SHARED`): the root is, and later mounts inherit it.
 *
 * A row whose flags have `MS_BIND` binds the directory `source`. The kernel
 * takes the flags of a first bind from its source, so that such a row is two
 * calls: the bind, and a remount with the other flags; mount(2).
 */
export interface MountRow {
  /** Device, directory (`MS_BIND`), or the name that the kernel's table shows. */
  readonly source: string
  readonly target: string
  /** `none` for a bind. */
  readonly fstype: string
  readonly flags: ReadonlyArray<MountFlag>
  /** The filesystem's own options. */
  readonly options?: string
  /** What needs it, and why a flag that one would expect is missing. */
  readonly why: string
  /** Where the choice comes from: a peer, a document of the kernel, a manual page. */
  readonly reference: string
  /** A kernel may be built without it: its absence (ENODEV, or ENOENT of its mount point) is no failure. */
  readonly mayBeAbsent?: boolean
  /** The mount is made only on a node with a data partition, or only on one without; else on both. */
  readonly when?: "data-partition" | "no-data-partition"
}

/**
 * The flags of most mounts: no set-user-ID programs, no devices, no programs.
 *
 * @example
 * ```ts
 * import * as MountTable from "@kios/stages-mount/MountTable"
 *
 * const quiet = [...MountTable.strict, "MS_NOATIME"]
 * ```
 */
export const strict: ReadonlyArray<MountFlag> = ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"]

/**
 * Makes one mount; its mount point must be there. `below` is put before the
 * target, for a root that is still being built. When the second call of a bind
 * fails, the bind is taken back. `inRam` says so of a bind's source
 * (`MountCall.inRam` of `@kios/core/Kernel`).
 *
 * @example
 * ```ts
 * import * as MountTable from "@kios/stages-mount/MountTable"
 *
 * const program = MountTable.mountOne({
 *   source: "/run/kios/data/meta/log",
 *   target: "/var/log",
 *   fstype: "none",
 *   flags: ["MS_BIND", "MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
 *   why: "logs outlive a reboot",
 *   reference: "mount(2)",
 * })
 * ```
 */
export const mountOne = Effect.fnUntraced(function* (
  row: MountRow,
  below = "",
  inRam = false,
): Effect.fn.Return<void, KernelError, Kernel> {
  const kernel = yield* Kernel
  const { flags, fstype, options, source } = row
  const target = below === "" ? row.target : `${below}${row.target === "/" ? "" : row.target}`
  if (!flags.includes("MS_BIND")) {
    yield* kernel.mount({ source, target, fstype, flags, ...(options === undefined ? {} : { options }) })
    return
  }
  yield* kernel.mount({ source, target, fstype: "none", flags: ["MS_BIND"], inRam })
  yield* Effect.onError(
    kernel.mount({ source: "none", target, fstype: "none", flags: ["MS_REMOUNT", ...flags], inRam }),
    () => Effect.ignore(kernel.umount(target, ["MNT_DETACH"])),
  )
})

/**
 * Makes the mount point and the mount of each row, in order, and returns the
 * targets that are mounted now. Fails with the first mount that fails, unless
 * its row says that it may be absent.
 *
 * @example
 * ```ts
 * import * as MountTable from "@kios/stages-mount/MountTable"
 *
 * const mounted = MountTable.mountAll([
 *   {
 *     source: "tmpfs",
 *     target: "/scratch",
 *     fstype: "tmpfs",
 *     flags: MountTable.strict,
 *     options: "mode=0700,size=64M",
 *     why: "scratch files",
 *     reference: "tmpfs(5)",
 *   },
 * ])
 * ```
 */
export const mountAll = Effect.fnUntraced(function* (
  rows: ReadonlyArray<MountRow>,
): Effect.fn.Return<ReadonlyArray<string>, KernelError, Kernel> {
  const kernel = yield* Kernel
  const mounted: Array<string> = []
  for (const row of rows) {
    const one = Effect.gen(function* () {
      if ((yield* kernel.stat(row.target)) === undefined) yield* kernel.makeDirectory(row.target)
      yield* mountOne(row)
      mounted.push(row.target)
    })
    yield* row.mayBeAbsent === true
      ? Effect.catch(one, (error) =>
          absent.has(error.errno)
            ? Effect.logDebug(`this kernel has no ${row.fstype}: ${row.target} is not mounted`)
            : Effect.fail(error),
        )
      : one
  }
  return mounted
})

// The filesystem is unknown, or its mount point in sysfs is not there because
// the feature is not built in (sysfs refuses mkdir with EPERM or ENOENT).
const absent = new Set(["ENODEV", "ENOENT", "EPERM"])

/**
 * What a stage that mounts these rows bears, for its `tolerates`: the absence
 * of those that may be absent.
 *
 * @example
 * ```ts
 * import { tolerances } from "@kios/stages-mount/MountTable"
 * import { mounts } from "@kios/stages-mount/PseudoFilesystems"
 *
 * tolerances(mounts)[0]?.path?.test("/sys/fs/bpf") // true
 * ```
 */
export const tolerances = (rows: ReadonlyArray<MountRow>): ReadonlyArray<Tolerance> =>
  rows
    .filter((row) => row.mayBeAbsent)
    .flatMap(({ target }) =>
      (["makeDirectory", "mount"] as const).map((operation) => ({
        operation,
        path: new RegExp(`^${target.replaceAll(".", "\\.")}$`, "u"),
        errno: [...absent],
        because: "this kernel is built without it",
        silent: true,
      })),
    )
