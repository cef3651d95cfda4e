import * as Context from "effect/Context"

/**
 * The writable directories that live in RAM: /run, /tmp, /var.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
 *
 * const read = EphemeralFilesystems.use((service) => Effect.succeed(service.mounted))
 * ```
 */
export class EphemeralFilesystems extends Context.Service<
  EphemeralFilesystems,
  {
    /** Mount points that are there now. */
    readonly mounted: ReadonlyArray<string>
  }
>()("kios/EphemeralFilesystems") {}
