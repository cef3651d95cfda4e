import * as Context from "effect/Context"

/**
 * The machine has an identity in /etc/machine-id; see machine-id(5).
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { MachineId } from "@kios/core/capabilities/MachineId"
 *
 * const read = MachineId.use((service) => Effect.succeed(service.id))
 * ```
 */
export class MachineId extends Context.Service<
  MachineId,
  {
    /** 32 lower-case hexadecimal digits. */
    readonly id: string
  }
>()("kios/MachineId") {}
