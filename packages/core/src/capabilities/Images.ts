import * as Context from "effect/Context"

/**
 * Container images that need no registry are in the runtime.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Images } from "@kios/core/capabilities/Images"
 *
 * const read = Images.use((service) => Effect.succeed(service.names))
 * ```
 */
export class Images extends Context.Service<
  Images,
  {
    /** References that can be used with imagePullPolicy Never. */
    readonly names: ReadonlyArray<string>
  }
>()("kios/Images") {}
