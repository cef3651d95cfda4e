import * as Context from "effect/Context"

/**
 * The root that the node keeps: a tmpfs that pivot_root(2) accepts, on which the image's
 * directories are mounted read-only.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
 *
 * const read = MountedRoot.use((service) => Effect.succeed(service.readOnly))
 * ```
 */
export class MountedRoot extends Context.Service<
  MountedRoot,
  {
    /** Directories of the image that are mounted read-only. */
    readonly readOnly: ReadonlyArray<string>
  }
>()("kios/MountedRoot") {}
