import * as Context from "effect/Context"

/**
 * The cgroup v2 hierarchy, with a group for each of the host's own processes.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Cgroups } from "@kios/core/capabilities/Cgroups"
 *
 * const read = Cgroups.use((service) => Effect.succeed(service.root))
 * ```
 */
export class Cgroups extends Context.Service<
  Cgroups,
  {
    /** Mount point of the hierarchy. */
    readonly root: string
    /** Controllers that are enabled for the groups below the root. */
    readonly controllers: ReadonlyArray<string>
    /** Directory of init's own group. */
    readonly init: string
    /** Directory of the group that the container runtime is started in. */
    readonly runtime: string
    /** Directory of the group that the kubelet is started in. */
    readonly kubelet: string
    /** Bytes that the kernel keeps for each of the groups (`memory.min`), whatever pods ask for. */
    readonly memoryMin: { readonly init: number; readonly runtime: number; readonly kubelet: number }
  }
>()("kios/Cgroups") {}
