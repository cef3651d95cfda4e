import * as Context from "effect/Context"

/**
 * Whoever needs this is stopped before what pods left behind is ended and unmounted, and whatever this
 * needs is released after: the place in the order of shutdown where pods end.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { PodSweep } from "@kios/core/capabilities/PodSweep"
 *
 * const read = PodSweep.use((service) => Effect.succeed(service.graceMs))
 * ```
 */
export class PodSweep extends Context.Service<
  PodSweep,
  {
    /** Milliseconds from SIGTERM to SIGKILL. */
    readonly graceMs: number
  }
>()("kios/PodSweep") {}
