/**
 * Mounts as data: every mount that kiOS makes is one printable row, which the
 * stages execute and the documentation prints.
 */
import * as Effect from "effect/Effect"
import { Kernel, type MountFlag } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import type { Tolerance } from "@kios/core/Stage"

/** One mount. */
export interface MountRow {
  readonly source: string
  readonly target: string
  readonly fstype: string
  readonly flags: ReadonlyArray<MountFlag>
  /** The filesystem's own options. */
  readonly options?: string
  /** What needs it, and why a flag that one would expect is missing. */
  readonly why: string
  /** A kernel may be built without it: its absence (ENODEV, or ENOENT of its mount point) is no failure. */
  readonly mayBeAbsent?: boolean
}

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
 *   { source: "tmpfs", target: "/tmp", fstype: "tmpfs", flags: ["MS_NOSUID"], options: "mode=1777", why: "scratch" },
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
      yield* kernel.mount(row)
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
