import * as Context from "effect/Context"
import type { Supervised } from "../Supervisor.ts"

/**
 * The kubelet runs and is healthy.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kubelet } from "@kios/core/capabilities/Kubelet"
 *
 * const read = Kubelet.use((service) => Effect.succeed(service.process))
 * ```
 */
export class Kubelet extends Context.Service<
  Kubelet,
  {
    /** The kubelet's process. */
    readonly process: Supervised
  }
>()("kios/Kubelet") {}
