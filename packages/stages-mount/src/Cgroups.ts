/**
 * cgroup v2, with a group for each of the host's own processes.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { mountAll, type MountRow, strict } from "./MountTable.ts"

const ROOT = "/sys/fs/cgroup"

/**
 * The mount; Documentation/admin-guide/cgroup-v2.rst.
 *
 * @example
 * ```ts
 * import * as Cgroups from "@kios/stages-mount/Cgroups"
 *
 * const targets = Cgroups.mounts.map((row) => row.target)
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = [
  {
    source: "cgroup2",
    target: ROOT,
    fstype: "cgroup2",
    flags: strict,
    options: "nsdelegate,memory_recursiveprot",
    why: "the kubelet refuses to start without it; memory.low and memory.min of a pod protect its containers",
    reference: "Talos; Documentation/admin-guide/cgroup-v2.rst, Mounting",
  },
]

// What the kubelet asks for; a kernel that has fewer gets what it has.
const wanted = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"]

/**
 * The stage. Init moves itself into its own group; the container runtime and
 * the kubelet are started in theirs.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Cgroups } from "@kios/core/capabilities/Cgroups"
 *
 * const where = Cgroups.use((cgroups) => Effect.succeed(cgroups.runtime)) // "/sys/fs/cgroup/kios/runtime"
 * ```
 */
export const stage = Stage.make({
  name: "cgroups",
  description: "cgroup v2 and the groups of the host's own processes",
  requires: [PseudoFilesystems],
  provides: [Cgroups],
  layer: Layer.effect(
    Cgroups,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      yield* mountAll(mounts)
      const available = (yield* kernel.readText(`${ROOT}/cgroup.controllers`)).trim().split(/\s+/u)
      const controllers = wanted.filter((name) => available.includes(name))
      const enable = controllers.map((name) => `+${name}`).join(" ")
      yield* kernel.writeControl(`${ROOT}/cgroup.subtree_control`, enable)
      const own = `${ROOT}/kios`
      const groups = { init: `${own}/init`, runtime: `${own}/runtime`, kubelet: `${own}/kubelet` }
      yield* kernel.makeDirectory(own)
      yield* kernel.writeControl(`${own}/cgroup.subtree_control`, enable)
      for (const group of Object.values(groups)) yield* kernel.makeDirectory(group)
      yield* kernel.writeControl(`${groups.init}/cgroup.procs`, "1")
      return { root: ROOT, controllers, ...groups }
    }),
  ),
})
