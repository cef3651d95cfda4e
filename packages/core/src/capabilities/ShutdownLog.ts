/**
 * Capability: how the machine goes down is kept for the next boot.
 */
import * as Context from "effect/Context"

/**
 * See the file's comment.
 *
 * @example
 * ```ts
 * import { ShutdownLog } from "@kios/core/capabilities/ShutdownLog"
 *
 * const fake = ShutdownLog.of({ previous: undefined })
 * ```
 */
export class ShutdownLog extends Context.Service<
  ShutdownLog,
  {
    /** How the boot before this one went down, in words; undefined when it left nothing. */
    readonly previous: string | undefined
  }
>()("kios/ShutdownLog") {}
