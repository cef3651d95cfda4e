/**
 * cgroup v2, with a group for each of the host's own processes.
 *
 *   /kios          what the node itself needs, protected from the pods
 *     init         PID 1
 *     runtime      containerd and its shims
 *     kubelet
 *   /kubepods      made by the kubelet: the pods
 *
 * The protection is `memory.min` (memory that is not taken back for pods) and
 * `cpu.weight` (a share against the pods, which the kubelet weighs by the
 * machine's processors). A group gets of `memory.min` what its parent has, so
 * `/kios` has the sum. Which process dies first when memory is short is
 * decided by oom_score_adj, where the processes are started.
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

/** What one of the host's own groups is protected with. */
export interface Protection {
  /** Bytes that are not taken back from it; `memory.low` is twice as much. */
  readonly memoryMin: number
  /** Its share when processors are short, in thousandths of one, as Kubernetes counts. */
  readonly millicores: number
}

/** The host's own groups. */
export interface Protections {
  readonly init: Protection
  readonly runtime: Protection
  readonly kubelet: Protection
}

const MiB = 1024 * 1024

/**
 * What the reference distro protects. Resident memory of a node with three
 * pods, without the programs' text, which is in the image: init 28 MiB,
 * containerd 28 MiB and 8 MiB for each shim, the kubelet 25 MiB. Room for
 * twice that, and for ten pods' shims. Talos: 96, 196 and 48, 96.
 *
 * @example
 * ```ts
 * import * as Cgroups from "@kios/stages-mount/Cgroups"
 *
 * const manyPods = { ...Cgroups.reference, runtime: { memoryMin: 512 * 1024 * 1024, millicores: 1500 } }
 * const stage = Cgroups.make(manyPods)
 * ```
 */
export const reference: Protections = {
  init: { memoryMin: 48 * MiB, millicores: 2000 },
  runtime: { memoryMin: 144 * MiB, millicores: 1500 },
  kubelet: { memoryMin: 64 * MiB, millicores: 1000 },
}

/**
 * `cpu.weight` (1 to 10000) for thousandths of a processor, by the formula with
 * which runc and the kubelet turn CPU shares into weights, so that the node's
 * share and the pods' are in one currency. Kubernetes enhancement 2254.
 *
 * @example
 * ```ts
 * import * as Cgroups from "@kios/stages-mount/Cgroups"
 *
 * Cgroups.cpuWeight(1000) // 39
 * ```
 */
export const cpuWeight = (millicores: number): number => {
  const shares = Math.min(262_144, Math.max(2, Math.floor((millicores * 1024) / 1000)))
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142)
}

// What the kubelet asks for; a kernel that has fewer gets what it has.
const wanted = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"]

/**
 * The stage, for protections of one's own. Init moves itself into its own
 * group; the container runtime and the kubelet are started in theirs. A
 * protection that the kernel refuses is told, and the node does without.
 *
 * @example
 * ```ts
 * import * as Cgroups from "@kios/stages-mount/Cgroups"
 *
 * const stage = Cgroups.make(Cgroups.reference)
 * ```
 */
export const make = (protections: Protections) =>
  Stage.make({
    name: "cgroups",
    description: "cgroup v2 and the groups of the host's own processes",
    requires: [PseudoFilesystems],
    provides: [Cgroups],
    tolerates: [
      {
        operation: "writeControl",
        path: /^\/sys\/fs\/cgroup\/kios\/(?:\w+\/)?(?:memory\.|cpu\.)/u,
        because: "the node runs, it is only less sheltered from its pods",
      },
    ],
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
        const protect = Effect.fnUntraced(function* (group: string, { memoryMin, millicores }: Protection) {
          const settings = [
            ["memory.min", memoryMin],
            ["memory.low", 2 * memoryMin],
            ["cpu.weight", cpuWeight(millicores)],
          ] as const
          for (const [file, value] of settings)
            if (controllers.includes(file.slice(0, file.indexOf("."))))
              yield* Effect.catch(kernel.writeControl(`${group}/${file}`, String(value)), (error) =>
                Effect.logWarning(`not protected: ${error.message}`),
              )
        })
        const { init, kubelet, runtime } = protections
        const sum = (key: keyof Protection) => init[key] + runtime[key] + kubelet[key]
        yield* protect(own, { memoryMin: sum("memoryMin"), millicores: sum("millicores") })
        yield* protect(groups.init, init)
        yield* protect(groups.runtime, runtime)
        yield* protect(groups.kubelet, kubelet)
        yield* kernel.writeControl(`${groups.init}/cgroup.procs`, "1")
        return {
          root: ROOT,
          controllers,
          ...groups,
          memoryMin: {
            init: init.memoryMin,
            runtime: runtime.memoryMin,
            kubelet: kubelet.memoryMin,
          },
        }
      }),
    ),
  })

/**
 * The stage as the reference distro has it.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Cgroups } from "@kios/core/capabilities/Cgroups"
 *
 * const where = Cgroups.use((cgroups) => Effect.succeed(cgroups.runtime)) // "/sys/fs/cgroup/kios/runtime"
 * ```
 */
export const stage = make(reference)
