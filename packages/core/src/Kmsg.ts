/**
 * The console of a node that has no shell: records in the kernel's log buffer,
 * which go to the serial line and the screen as the kernel's own do, and which
 * outlive init in pstore.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import * as fs from "node:fs"

/** Severities of syslog(3), by their names there. */
export type Severity = "emerg" | "alert" | "crit" | "err" | "warning" | "notice" | "info" | "debug"

const severities: Readonly<Record<Severity, number>> = {
  emerg: 0,
  alert: 1,
  crit: 2,
  err: 3,
  warning: 4,
  notice: 5,
  info: 6,
  debug: 7,
}

const severityOf: Readonly<Record<LogLevel.LogLevel, Severity>> = {
  Fatal: "crit",
  Error: "err",
  Warn: "warning",
  Info: "info",
  Debug: "debug",
  Trace: "debug",
  All: "debug",
  None: "debug",
}

/**
 * What a line of the log begins with, by its severity: `error `, `warn ` or nothing.
 *
 * @example
 * ```ts
 * import * as Kmsg from "@kios/core/Kmsg"
 *
 * const line = `${Kmsg.labelOf("err")}disk: gone` // "error disk: gone"
 * ```
 */
export const labelOf = (severity: Severity): string =>
  severities[severity] <= severities.err ? "error " : severity === "warning" ? "warn " : ""

// LOG_DAEMON: records of facility 0 are the kernel's own.
const FACILITY = 3 << 3
// The kernel takes records up to about 1 KiB (PRINTKRB_RECORD_MAX); the rest is cut by us, visibly.
const MAX_RECORD = 960

/**
 * One record: `<priority>kios: text`, one line, bounded.
 *
 * @example
 * ```ts
 * import * as Kmsg from "@kios/core/Kmsg"
 *
 * Kmsg.formatRecord("notice", "milestone init") // "<29>kios: milestone init\n"
 * ```
 */
export const formatRecord = (severity: Severity, text: string): string => {
  const line = text.replaceAll(/\s*\n\s*/gu, " | ")
  const bytes = Buffer.from(line)
  // The kernel counts bytes; one cut in the middle of a character becomes a replacement character.
  const cut = bytes.length > MAX_RECORD ? `${bytes.toString("utf8", 0, MAX_RECORD)}...` : line
  return `<${FACILITY | severities[severity]}>kios: ${cut}\n`
}

/** The operations behind {@link Kmsg}. */
export interface KmsgShape {
  /** Writes one record at once; never fails: there is nobody to tell. */
  readonly write: (severity: Severity, text: string) => Effect.Effect<void>
  /** The same for code that is not an Effect (crash handlers, loggers). */
  readonly writeUnsafe: (severity: Severity, text: string) => void
  /** From now on, what Effect logs below `severity` is dropped (`info` to begin with). */
  readonly logFrom: (severity: Severity) => Effect.Effect<void>
  /** Whether what Effect logs with this severity is written. */
  readonly logs: (severity: Severity) => boolean
}

const make = (writeUnsafe: KmsgShape["writeUnsafe"]): KmsgShape => {
  let least: Severity = "info"
  return {
    writeUnsafe,
    write: (severity, text) => Effect.sync(() => writeUnsafe(severity, text)),
    logFrom: (severity) =>
      Effect.sync(() => {
        least = severity
      }),
    // The more severe, the smaller the number.
    logs: (severity) => severities[severity] <= severities[least],
  }
}

/**
 * The kernel log, as a service.
 *
 * @example
 * ```ts
 * import { Kmsg } from "@kios/core/Kmsg"
 *
 * const greet = Kmsg.use((kmsg) => kmsg.write("notice", "milestone init"))
 * ```
 */
export class Kmsg extends Context.Service<Kmsg, KmsgShape>()("kios/Kmsg") {
  /**
   * Writes to a character device as kmsg(4) describes it. Each write is one
   * record, so the file stays open for the life of the process.
   */
  static readonly layer = (path = "/dev/kmsg"): Layer.Layer<Kmsg> => Layer.sync(Kmsg, () => device(path))

  /** Keeps records in an array, for tests. */
  static readonly layerArray = (records: Array<string>): Layer.Layer<Kmsg> =>
    Layer.succeed(
      Kmsg,
      make((severity, text) => {
        records.push(`${severity} ${text}`)
      }),
    )
}

/**
 * {@link Kmsg.layer}'s service, for code that runs before any layer (PID 1's first lines).
 *
 * @example
 * ```ts
 * import * as Kmsg from "@kios/core/Kmsg"
 *
 * const kmsg = Kmsg.device("/dev/kmsg")
 * process.on("uncaughtExceptionMonitor", (error) => kmsg.writeUnsafe("crit", error.message))
 * ```
 */
export const device = (path: string): KmsgShape => {
  let fd: number | undefined
  return make((severity, text) => {
    try {
      fd ??= fs.openSync(path, "a")
      fs.writeSync(fd, formatRecord(severity, text))
    } catch {
      // No device (yet), or it refuses: the next record tries again.
      try {
        if (fd !== undefined) fs.closeSync(fd)
      } catch {
        // It was no longer open.
      }
      fd = undefined
    }
  })
}

/**
 * Sends what Effect logs to {@link Kmsg}, with its level and annotations.
 *
 * @example
 * ```ts
 * import * as Kmsg from "@kios/core/Kmsg"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const records: Array<string> = []
 * const kmsg = Layer.provide(Kmsg.loggerLayer, Kmsg.Kmsg.layerArray(records))
 * Effect.runSync(Effect.log("hello").pipe(Effect.provide(kmsg))) // records is ["info hello"]
 * ```
 */
export const loggerLayer: Layer.Layer<never, never, Kmsg> = Layer.unwrap(
  Kmsg.use((kmsg) =>
    Effect.succeed(
      Layer.mergeAll(
        // The level is Kmsg's, because it changes while fibers run.
        Layer.succeed(References.MinimumLogLevel, "Debug"),
        Logger.layer([
          Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
            const severity = severityOf[logLevel]
            if (!kmsg.logs(severity)) return
            const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
            const text = [
              // A stage and its process often have the same name.
              ...new Set(
                annotations
                  .filter(([key]) => key === "stage" || key === "process")
                  .map(([, value]) => `${String(value)}:`),
              ),
              ...[message].flat().map((part) => (typeof part === "string" ? part : Formatter.format(part))),
              ...annotations
                .filter(([key]) => key !== "stage" && key !== "process")
                .map(([key, value]) => `${key}=${Formatter.format(value)}`),
              ...(cause.reasons.length > 0 ? [Cause.pretty(cause)] : []),
            ].join(" ")
            kmsg.writeUnsafe(severity, labelOf(severity) + text)
          }),
        ]),
      ),
    ),
  ),
)
