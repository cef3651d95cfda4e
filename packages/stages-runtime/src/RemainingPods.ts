/**
 * What is left when the kubelet and the runtime have stopped: shims, the
 * containers under them and their mounts. They hold the data partition, so
 * they go before it is unmounted.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import * as Teardown from "@kios/core/Teardown"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { PodSweep } from "@kios/core/capabilities/PodSweep"
import { ShutdownLog } from "@kios/core/capabilities/ShutdownLog"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

// Enough for a database to write its log. A container's first process that has
// no handler for SIGTERM ignores it, so that this is often waited for in full.
const GRACE = Duration.seconds(10)

// Where the runtime and the kubelet mount for pods.
const directories = ["/run/containerd/", "/run/netns/", "/var/lib/containerd/", "/var/lib/kubelet/"]

/**
 * Mount points of pods in a mountinfo text, last mounted first.
 *
 * @example
 * ```ts
 * import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
 *
 * RemainingPods.podMounts("36 35 0:32 / /run/netns/a rw shared:1 - nsfs nsfs rw") // ["/run/netns/a"]
 * ```
 */
export const podMounts = (mountinfo: string): ReadonlyArray<string> =>
  Teardown.parseMountinfo(mountinfo)
    .map(({ target }) => target)
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
const sweep = Effect.andThen(Teardown.endProcesses(GRACE), unmountPods).pipe(
  Effect.catch((error) => Effect.logError(`unmounting what pods left: ${error.message}`)),
)

/**
 * The stage: does nothing at boot; at shutdown it ends what pods left.
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
  // Released after it: what is kept of the way down has to know who was killed.
  wants: [ShutdownLog],
  provides: [PodSweep],
  layer: Layer.effect(
    PodSweep,
    Effect.acquireRelease(Effect.succeed({ graceMs: Duration.toMillis(GRACE) }), () => sweep),
  ),
})
