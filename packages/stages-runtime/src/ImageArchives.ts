/**
 * Gives back the memory of image archives that have been imported.
 *
 * They lie in the filesystem of the initramfs, which the root switch makes
 * read-only: the filesystem itself, because that is what keeps a pod's
 * hostPath volume from being remounted as writable. It becomes writable for
 * the time of the unlinks, through a mount of its own that nobody else looks
 * at: `/bin`, `/lib` and the others stay read-only mounts meanwhile. The
 * kubelet waits for it (`Images`), so that no pod is there to see it.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { Kernel, type MountFlag } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import type { Tolerance } from "@kios/core/Stage"

const WINDOW = "/run/kios/image-archives"
const flags: ReadonlyArray<MountFlag> = ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"]
const because = "what is not released costs memory, and nothing else"

/**
 * What a stage that calls {@link release} bears.
 *
 * @example
 * ```ts
 * import { tolerances } from "@kios/stages-runtime/ImageArchives"
 *
 * tolerances.map(({ operation }) => operation) // ["unlink", "unlink", "makeDirectory", "mount", "umount"]
 * ```
 */
export const tolerances: ReadonlyArray<Tolerance> = [
  {
    operation: "unlink",
    path: /^(?!\/run\/kios\/image-archives\/)/u,
    errno: ["EROFS"],
    because: "it is unlinked through the mount, then",
    silent: true,
  },
  { operation: "unlink", because },
  { operation: "makeDirectory", path: /^\/run\/kios\/image-archives$/u, because },
  { operation: "mount", path: /^\/run\/kios\/image-archives$/u, because },
  { operation: "umount", path: /^\/run\/kios\/image-archives$/u, because },
]

const attempt = (effect: Effect.Effect<void, KernelError>): Effect.Effect<boolean> =>
  effect.pipe(
    Effect.as(true),
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`image archives stay in memory: ${error.message}`), false),
    ),
  )

/**
 * Unlinks `names` in `directory` and gives how many are gone. What cannot be
 * unlinked stays, and is told. Fails with `KernelError` only when the
 * filesystem does not become read-only again within five seconds (EBUSY: a
 * file is open for writing, or unlinked and open).
 *
 * mount(2), MS_REMOUNT with and without MS_BIND.
 *
 * @example
 * ```ts
 * import { release } from "@kios/stages-runtime/ImageArchives"
 *
 * const program = release("/lib/kios/images", ["pause.tar"])
 * ```
 */
export const release = Effect.fnUntraced(function* (
  directory: string,
  names: ReadonlyArray<string>,
): Effect.fn.Return<number, KernelError, Kernel> {
  const kernel = yield* Kernel
  let gone = 0
  const unlinkIn = (place: string, name: string) =>
    Effect.tap(kernel.unlink(`${place}/${name}`), () => Effect.sync(() => gone++))
  // A root that was left writable needs no more than this.
  const left: Array<string> = []
  for (const name of names) {
    yield* attempt(
      Effect.catchIf(
        unlinkIn(directory, name),
        (error) => error.errno === "EROFS",
        () => Effect.sync(() => left.push(name)),
      ),
    )
  }
  if (left.length === 0) return gone
  const remount = (more: ReadonlyArray<MountFlag>) =>
    kernel.mount({ source: "none", target: WINDOW, fstype: "none", flags: ["MS_REMOUNT", ...more, ...flags] })
  const opened = Effect.acquireUseRelease(
    // Without MS_BIND: the filesystem, and this mount of it.
    attempt(remount([])),
    (isOpen) =>
      isOpen
        ? Effect.forEach(left, (name) => attempt(unlinkIn(WINDOW, name)), { discard: true })
        : Effect.void,
    (isOpen) =>
      isOpen
        ? remount(["MS_RDONLY"]).pipe(
            Effect.tapError((error) => Effect.logWarning(`trying again: ${error.message}`)),
            Effect.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: "5 seconds" }))),
          )
        : Effect.void,
  )
  yield* Effect.acquireUseRelease(
    attempt(
      Effect.andThen(
        kernel.makeDirectory(WINDOW, 0o700),
        kernel.mount({ source: directory, target: WINDOW, fstype: "none", flags: ["MS_BIND"] }),
      ),
    ),
    (isThere) => (isThere ? opened : Effect.void),
    (isThere) => (isThere ? attempt(kernel.umount(WINDOW, ["MNT_DETACH"])) : Effect.void),
  )
  return gone
})
