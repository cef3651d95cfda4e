import * as Context from "effect/Context"

/**
 * The disk partition that outlives a reboot, if the machine has one.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { DataPartition } from "@kios/core/capabilities/DataPartition"
 *
 * const read = DataPartition.use((service) => Effect.succeed(service.device))
 * ```
 */
export class DataPartition extends Context.Service<
  DataPartition,
  {
    /** The block device; undefined when the node lives in RAM only. */
    readonly device: string | undefined
  }
>()("kios/DataPartition") {}
