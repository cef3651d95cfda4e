import * as Context from "effect/Context"

/**
 * The kernel modules that the container runtime cannot start without (overlay, the disk's driver) are in.
 * The rest, {@link ./Modules.ts | Modules}, load while the runtime comes up.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { BootModules } from "@kios/core/capabilities/BootModules"
 *
 * const read = BootModules.use((service) => Effect.succeed(service.loaded))
 * ```
 */
export class BootModules extends Context.Service<
  BootModules,
  {
    /** Names of the modules that were loaded, in order. */
    readonly loaded: ReadonlyArray<string>
    /** Devices whose drivers were looked for, by their path in sysfs; none of them unless given. */
    readonly devices?: ReadonlySet<string>
  }
>()("kios/BootModules") {}
