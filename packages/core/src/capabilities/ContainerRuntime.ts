import * as Context from "effect/Context"
import type { Supervised } from "../Supervisor.ts"

/**
 * A container runtime that answers the Container Runtime Interface. Whoever provides it (our
 * containerd stage, a CRI-O stage of somebody else's), the kubelet stage fits unchanged.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
 *
 * const read = ContainerRuntime.use((service) => Effect.succeed(service.endpoint))
 * ```
 */
export class ContainerRuntime extends Context.Service<
  ContainerRuntime,
  {
    /** CRI endpoint as the kubelet wants it: `unix:///run/containerd/containerd.sock`. */
    readonly endpoint: string
    /** The runtime's process. */
    readonly process: Supervised
  }
>()("kios/ContainerRuntime") {}
