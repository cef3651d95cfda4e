/**
 * What would end PID 1, and what becomes of it. The kernel panics when PID 1
 * ends, so init goes on where its program can still be trusted to, and where it
 * can not, dies so that the next boot can tell of it:
 *
 *   an exception that nobody catches      told; init goes on
 *   a promise rejected and not handled    told; init goes on
 *   a defect in a fiber                   told; init goes on (the boot's own fiber: the boot fails)
 *   an event loop with nothing to wait for  told; a new timer holds it, init goes on
 *   an exit(), heap exhaustion, a crash   the kernel panics, and `panic=` decides
 *
 * What init went on after is in the kernel's log, which is kept for the next
 * boot when the node goes down. What it did not survive is kept by the panic:
 * that is why standard error, where Node and V8 say why they give up, is the
 * kernel's log too.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Exit from "effect/Exit"
import type { FiberRuntimeMetricsService } from "effect/Metric"
import * as fs from "node:fs"
import type { KmsgShape } from "./Kmsg.ts"

/** What init went on after. */
export interface Faults {
  /** Tells of one: an exception, or whatever was thrown. */
  readonly tell: (what: string, error: unknown) => void
  /** How many there were. */
  readonly count: () => number
  /** How many there were and what the first ones were, in words; undefined when there were none. */
  readonly summary: () => string | undefined
}

// A fault that comes back with every tick must not drown the log that is to be kept.
const TOLD_A_MINUTE = 20
const MINUTE_MS = 60_000
// What fits into one record of the kernel's log.
const SUMMED_UP = 5
const SUMMARY_CHARACTERS = 120

/**
 * Counts faults and tells them at severity `crit`, no more than 20 a minute; of
 * the others it tells how many there were.
 *
 * @example
 * ```ts
 * import * as Death from "@kios/core/Death"
 * import * as Kmsg from "@kios/core/Kmsg"
 *
 * const faults = Death.faults(Kmsg.device("/dev/null"))
 * faults.tell("uncaught exception", new Error("no such pod"))
 * faults.count() // 1
 * ```
 */
export const faults = (kmsg: Pick<KmsgShape, "writeUnsafe">, now: () => number = Date.now): Faults => {
  let count = 0
  const first: Array<string> = []
  let since = Number.NEGATIVE_INFINITY
  let told = 0
  let untold = 0
  return {
    count: () => count,
    summary: () => {
      if (count === 0) return undefined
      const rest = count > first.length ? ` and ${count - first.length} more` : ""
      return `${count} fault${count === 1 ? "" : "s"}: ${first.join("; ")}${rest}`
    },
    tell: (what, error) => {
      count++
      const message = error instanceof Error ? error.message : String(error)
      if (first.length < SUMMED_UP) first.push(`${what}: ${message}`.slice(0, SUMMARY_CHARACTERS))
      if (now() - since >= MINUTE_MS) {
        since = now()
        told = 0
      }
      if (++told > TOLD_A_MINUTE) {
        untold++
        return
      }
      const more = untold === 0 ? "" : `${untold} more were not told; `
      untold = 0
      const why = error instanceof Error ? (error.stack ?? message) : message
      kmsg.writeUnsafe("crit", `error init: ${what}, going on: ${more}${why}`)
    },
  }
}

/**
 * Standard error becomes the kernel's log, so that what Node and V8 write when
 * they give up is there when the kernel panics. Nothing is lost on the console,
 * which shows the log.
 *
 * @example
 * ```ts
 * import * as Death from "@kios/core/Death"
 *
 * const begin = () => Death.logStandardError("/dev/kmsg")
 * ```
 */
export const logStandardError = (device: string): void => {
  try {
    // The lowest number that is free is the one that open(2) gives.
    fs.closeSync(2)
    fs.openSync(device, "a")
  } catch {
    // There is no such device: nothing else is listening either.
  }
}

const longestInterval = 2 ** 31 - 1

/**
 * Keeps this process from ending by an exception, a rejection or an empty event
 * loop, and tells when it ends all the same.
 *
 * @example
 * ```ts
 * import * as Death from "@kios/core/Death"
 * import * as Kmsg from "@kios/core/Kmsg"
 *
 * const init = () => Death.refuse(Death.faults(Kmsg.device("/dev/kmsg")), Kmsg.device("/dev/kmsg"))
 * ```
 */
export const refuse = (survived: Faults, kmsg: Pick<KmsgShape, "writeUnsafe">): void => {
  const hold = () => setInterval(() => {}, longestInterval)
  process.on("uncaughtException", (error) => survived.tell("uncaught exception", error))
  process.on("unhandledRejection", (reason) => survived.tell("unhandled rejection", reason))
  process.on("beforeExit", () => {
    survived.tell("empty event loop", "init had nothing left to wait for")
    hold()
  })
  process.on("exit", (code) =>
    kmsg.writeUnsafe("crit", `error init: exits with code ${code}: the kernel panics, and panic= decides`),
  )
  hold()
}

/** The runtime tells it of the end of every fiber. By its key: the module would bring all of Effect's metrics into init. */
const FiberEnds = Context.Reference<FiberRuntimeMetricsService | undefined>(
  "effect/Metric/FiberRuntimeMetrics",
  { defaultValue: () => undefined },
)

/**
 * Tells of every fiber that ends by a defect, whether or not somebody looks at
 * how it ended: a defect is a bug, and a fiber that nobody waits for would die of
 * it in silence. One that passes from fiber to fiber is told once.
 *
 * @example
 * ```ts
 * import * as Death from "@kios/core/Death"
 * import * as Kmsg from "@kios/core/Kmsg"
 * import * as Effect from "effect/Effect"
 *
 * const faults = Death.faults(Kmsg.device("/dev/null"))
 * const program = Effect.provideContext(Effect.forkChild(Effect.die("a bug")), Death.watchFibers(faults))
 * ```
 */
export const watchFibers = (survived: Faults): Context.Context<never> => {
  const seen = new WeakSet<object>()
  return Context.make(FiberEnds, {
    recordFiberStart: () => {},
    recordFiberEnd: (_context, exit: Exit.Exit<unknown, unknown>) => {
      if (exit._tag === "Success") return
      for (const reason of exit.cause.reasons) {
        if (!Cause.isDieReason(reason)) continue
        const { defect } = reason
        if (typeof defect === "object" && defect !== null) {
          if (seen.has(defect)) continue
          seen.add(defect)
        }
        survived.tell("defect in a fiber", defect)
      }
    },
  }) as Context.Context<never>
}
