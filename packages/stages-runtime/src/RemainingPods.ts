/**
 * What is left when the kubelet and the runtime have stopped: shims, the
 * containers under them and their mounts. They hold the data partition, so
 * they go before it is unmounted.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { Kernel, type KernelShape, type Signal } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { PodSweep } from "@kios/core/capabilities/PodSweep"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

// A container's first process that has no handler for SIGTERM ignores it, so
// that this is often waited for in full.
const GRACE = Duration.seconds(3)
// SIGKILL takes effect at once, except in uninterruptible sleep.
const KILL_DEADLINE = Duration.seconds(5)

/**
 * Process ids of user space other than init's own; kernel threads have no command line.
 *
 * @example
 * ```ts
 * import { Kernel } from "@kios/core/Kernel"
 * import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
 *
 * const pids = Kernel.use(RemainingPods.remaining)
 * ```
 */
export const remaining = Effect.fnUntraced(function* (kernel: KernelShape) {
  const pids: Array<number> = []
  for (const name of yield* kernel.readDirectory("/proc")) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid <= 1) continue
    const command = yield* Effect.orElseSucceed(kernel.readText(`/proc/${name}/cmdline`), () => "")
    if (command !== "") pids.push(pid)
  }
  return pids
})

const gone = (kernel: KernelShape, within: Duration.Duration) =>
  remaining(kernel).pipe(
    Effect.repeat({
      schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: within })),
      until: (pids) => pids.length === 0,
    }),
  )

/** SIGTERM to every process but init, the grace, SIGKILL. */
const endProcesses = Effect.gen(function* () {
  const kernel = yield* Kernel
  // kill(2): -1 is every process that one may signal, except init and oneself.
  const signalAll = (signal: Signal) => Effect.ignore(kernel.kill(-1, signal))
  if ((yield* remaining(kernel)).length === 0) return
  yield* signalAll("SIGTERM")
  if ((yield* gone(kernel, GRACE)).length === 0) return
  yield* signalAll("SIGKILL")
  const left = yield* gone(kernel, KILL_DEADLINE)
  if (left.length > 0) yield* Effect.logError(`processes ${left.join(", ")} did not end by SIGKILL`)
})

// Where the runtime and the kubelet mount for pods.
const directories = ["/run/containerd/", "/run/netns/", "/var/lib/containerd/", "/var/lib/kubelet/"]

/**
 * Mount points below {@link directories}, last mounted first; proc_pid_mountinfo(5).
 *
 * @example
 * ```ts
 * import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
 *
 * RemainingPods.podMounts("36 35 0:32 / /var/lib/kubelet/pods/1/volumes/a rw - tmpfs tmpfs rw")
 * // ["/var/lib/kubelet/pods/1/volumes/a"]
 * ```
 */
export const podMounts = (mountinfo: string): ReadonlyArray<string> =>
  mountinfo
    .split("\n")
    // Blanks and the like are octal escapes there.
    .map((line) =>
      (line.split(" ")[4] ?? "").replaceAll(/\\([0-7]{3})/gu, (_, code: string) =>
        String.fromCharCode(Number.parseInt(code, 8)),
      ),
    )
    .filter((target) => directories.some((directory) => target.startsWith(directory)))
    .toReversed()

const unmountPods = Effect.gen(function* () {
  const kernel = yield* Kernel
  for (const target of podMounts(yield* kernel.readText("/proc/self/mountinfo"))) {
    // A mount that is busy, or went with its parent, must not keep the rest.
    yield* Effect.catch(kernel.umount(target), () => Effect.ignore(kernel.umount(target, ["MNT_DETACH"])))
  }
})

// Never fails: shutdown goes on.
const sweep = Effect.andThen(endProcesses, unmountPods).pipe(
  Effect.catch((error) => Effect.logError(`ending what pods left: ${error.message}`)),
)

/**
 * The stage: does nothing at boot; at shutdown it ends what is left.
 *
 * @example
 * ```ts
 * import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
 *
 * console.log(RemainingPods.stage.description)
 * ```
 */
export const stage = Stage.make({
  name: "remaining-pods",
  description: "at shutdown, end and unmount what pods left",
  requires: [PseudoFilesystems, DataPartition],
  provides: [PodSweep],
  layer: Layer.effect(
    PodSweep,
    Effect.acquireRelease(Effect.succeed({ graceMs: Duration.toMillis(GRACE) }), () => sweep),
  ),
})
