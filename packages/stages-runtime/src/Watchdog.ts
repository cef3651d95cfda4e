/**
 * The watchdog: a timer outside of init that resets the machine unless init's
 * event loop turns. Documentation/watchdog/watchdog-api.rst of the kernel.
 *
 * It is fed by a fiber, which only runs when the loop does; the fiber is not
 * part of any stage and feeds to the very end, because every wait of the way
 * down has a deadline on the same loop: a shutdown that hangs is a loop that
 * hangs. Drivers stop their timer when the kernel restarts or powers off.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { BootReport } from "@kios/core/BootReport"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel, type Watchdog } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { WatchdogTimer } from "@kios/core/capabilities/WatchdogTimer"
import { loadOne } from "./internal/oneModule.ts"

/**
 * The kernel's own timer, for machines whose hardware has none: it resets a machine whose init hangs, though not one
 * whose kernel does.
 *
 * @example
 * ```ts
 * import * as Watchdog from "@kios/stages-runtime/Watchdog"
 *
 * const inImage = ["i6300esb", "iTCO_wdt", Watchdog.softwareModule]
 * ```
 */
export const softwareModule = "softdog"

const DEVICE = "/dev/watchdog0"
// Pods run without init for a while; a disk that stalls, or a host that is busy, is no reason for a reset.
const DEFAULT_TIMEOUT = 120
// Ten missed meals, whatever the timeout.
const feedEvery = (timeout: number): number => Math.max(1, timeout / 10)

/** Feeds until the machine is no more. */
const feed = (watchdog: Watchdog, timeout: number) =>
  watchdog.feed.pipe(
    Effect.catch((error) => Effect.logWarning(`feeding the watchdog: ${error.message}`)),
    Effect.andThen(Effect.sleep(feedEvery(timeout) * 1000)),
    Effect.forever,
  )

/** Sets the timeout, or the nearest that the hardware has. */
const setTimeout = (watchdog: Watchdog, seconds: number) =>
  watchdog.setTimeout(seconds).pipe(
    Effect.catchIf(
      // Hardware that counts no further than that is common: iTCO stops at 39 or 614 s.
      (error) => error.errno === "EINVAL" && seconds > 30,
      (error) => Effect.andThen(Effect.logWarning(`${error.message}: 30 s instead`), watchdog.setTimeout(30)),
    ),
  )

/**
 * The stage. `kios.watchdog=` on the kernel command line is `off`, or the
 * seconds that init may hang (default 120).
 *
 * @example
 * ```ts
 * import * as Watchdog from "@kios/stages-runtime/Watchdog"
 *
 * const waitsFor = Watchdog.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = Stage.make({
  name: "watchdog",
  description: "reset the machine if init hangs",
  criticality: "optional",
  // The hardware's driver is one of the node's modules.
  requires: [PseudoFilesystems, Cmdline, Modules],
  provides: [WatchdogTimer],
  layer: Layer.effect(
    WatchdogTimer,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const report = yield* BootReport
      const { values } = yield* Cmdline
      const wanted = values.watchdog ?? DEFAULT_TIMEOUT
      if (wanted === "off") return { identity: undefined, timeout: 0 }
      // It can panic where hardware only resets, and a panic leaves its log to the next boot.
      if ((yield* kernel.stat(DEVICE)) === undefined)
        yield* loadOne(softwareModule, { parameters: "soft_panic=1", mustBeNew: true })
      const watchdog = yield* kernel.openWatchdog(DEVICE)
      // It runs from here on: what is not fed must be disarmed.
      const timeout = yield* Effect.tapError(setTimeout(watchdog, wanted), () =>
        Effect.ignore(watchdog.disarm),
      )
      yield* Effect.forkDetach(feed(watchdog, timeout))
      if (watchdog.resetThisMachine) {
        const ended = `init hung, and the watchdog (${watchdog.identity}) reset the machine`
        yield* Effect.logWarning(`the previous boot ended: ${ended}`)
        yield* report.milestone("previous-boot", { ended })
      }
      return { identity: watchdog.identity, timeout }
    }),
  ),
})
