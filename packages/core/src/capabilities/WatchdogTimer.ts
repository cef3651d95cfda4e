import * as Context from "effect/Context"

/**
 * A watchdog timer runs, and is fed for as long as init's event loop turns.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { WatchdogTimer } from "@kios/core/capabilities/WatchdogTimer"
 *
 * const who = WatchdogTimer.use(({ identity, timeout }) => Effect.succeed(`${identity}: ${timeout} s`))
 * ```
 */
export class WatchdogTimer extends Context.Service<
  WatchdogTimer,
  {
    /** What drives it; undefined when the command line says `kios.watchdog=off`. */
    readonly identity: string | undefined
    /** Seconds that init may hang. */
    readonly timeout: number
  }
>()("kios/WatchdogTimer") {}
