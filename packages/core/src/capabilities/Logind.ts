import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

/**
 * Somebody speaks for logind on the system bus, so that a kubelet can delay the
 * shutdown until it has ended its pods: listening before the kubelet starts,
 * which does not try again.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Logind } from "@kios/core/capabilities/Logind"
 *
 * const who = Logind.use(({ inhibitors }) => Effect.map(inhibitors, (all) => all.map(({ who }) => who)))
 * ```
 */
export class Logind extends Context.Service<
  Logind,
  {
    /** The socket of the bus. */
    readonly socket: string
    /** Who delays the shutdown now, and what for. */
    readonly inhibitors: Effect.Effect<
      ReadonlyArray<{ readonly pid: number; readonly who: string; readonly why: string }>
    >
  }
>()("kios/Logind") {}
