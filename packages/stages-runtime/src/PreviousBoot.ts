/**
 * Why the previous boot ended: shown on the console, kept where it lasts, and
 * then removed from the firmware's store, which is small and wears out.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as os from "node:os"
import { BootReport } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { type PersistedLog, PersistentStore } from "@kios/core/capabilities/PersistentStore"
import { PreviousBoot } from "@kios/core/capabilities/PreviousBoot"

// On the data partition where there is one; pods that ship logs read below it.
const DIRECTORY = "/var/log/kios"
const REPORT = "/run/kios/previous-boot.json"
const KEPT_LOGS = 8
const FILE = /^previous-boot-.*\.txt$/u

const signalName = (number: number): string =>
  Object.entries(os.constants.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`

/** wait(2)'s status of init, as the kernel's panic prints it. */
const deathOfInit = (status: number): string =>
  (status & 0x7f) === 0
    ? `init exited with code ${status >> 8}`
    : `init was killed by ${signalName(status & 0x7f)}`

/**
 * What a log says of its own end, in words. Only whole records of the kernel's
 * log count: init's lines of one boot may quote those of the boot before.
 *
 * @example
 * ```ts
 * import * as PreviousBoot from "@kios/stages-runtime/PreviousBoot"
 *
 * const text = "<0>[    5.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"
 * PreviousBoot.causeOf({ at: 0, reason: "Panic", text, files: [] }) // "init was killed by SIGSEGV"
 * ```
 */
export const causeOf = (log: PersistedLog): string => {
  const lines = log.text.split("\n").flatMap((line) => {
    const [, text] = /^<\d+>\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?(.*)$/u.exec(line) ?? []
    return text === undefined ? [] : [text]
  })
  const last = (pattern: RegExp): string | undefined => {
    for (const line of lines.toReversed()) {
      const found = pattern.exec(line)
      if (found !== null) return found[1]
    }
    return undefined
  }
  const panic = last(/^Kernel panic - not syncing: (.*)$/u)
  if (panic !== undefined) {
    const [, status] = /^Attempted to kill init! exitcode=0x([0-9a-f]+)/u.exec(panic) ?? []
    if (status === undefined) return `kernel panic: ${panic}`
    // What V8 says when it gives up, and the kernel of an address that is none; not what init quotes of an earlier boot.
    const detail =
      last(/^(?!kios: ).*?(FATAL ERROR: .*)$/u) ??
      last(/\[1\]: (segfault at .*?)(?: likely .*)?$/u) ??
      (last(/^(-+ Native stack trace -+)/u) === undefined ? undefined : "it aborted; its log has the stack")
    return `${deathOfInit(Number.parseInt(status, 16))}${detail === undefined ? "" : ` (${detail})`}`
  }
  const failed = last(/^kios: boot-failed (.*)$/u)
  if (failed !== undefined) return `boot failed: ${failed}`
  const wentOn = last(/^kios: error init: (went on after .*)$/u)
  if (wentOn !== undefined) return `init ${wentOn}`
  const goingDown = last(/^kios: (?:error|warn) shutdown: (.*)$/u)
  return goingDown === undefined ? log.reason.toLowerCase() : `not in order: ${goingDown}`
}

const pathOf = ({ at }: PersistedLog): string =>
  `${DIRECTORY}/previous-boot-${new Date(at)
    .toISOString()
    .replace(/\.\d+Z$/u, "Z")
    .replaceAll(":", "-")}.txt`

/** Writes the logs where they last, the newest {@link KEPT_LOGS} of them and of those that are there. */
const keep = Effect.fnUntraced(function* (logs: ReadonlyArray<PersistedLog>) {
  const kernel = yield* Kernel
  yield* kernel.makeDirectory(DIRECTORY)
  for (const log of logs.slice(-KEPT_LOGS)) yield* kernel.writeFile(pathOf(log), log.text, 0o640)
  const names = (yield* kernel.readDirectory(DIRECTORY)).filter((name) => FILE.test(name))
  for (const name of names.slice(0, -KEPT_LOGS)) yield* kernel.unlink(`${DIRECTORY}/${name}`)
  // Before the only other copy goes.
  yield* kernel.sync
})

/**
 * The stage.
 *
 * @example
 * ```ts
 * import * as PreviousBoot from "@kios/stages-runtime/PreviousBoot"
 *
 * const waitsFor = PreviousBoot.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = Stage.make({
  name: "previous-boot",
  description: "tell why the previous boot ended, and keep its log",
  criticality: "optional",
  requires: [PersistentStore, DataPartition, EphemeralFilesystems],
  provides: [PreviousBoot],
  layer: Layer.effect(
    PreviousBoot,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const report = yield* BootReport
      const { logs } = yield* PersistentStore
      if (logs.length === 0) return { ended: [] }
      const told = logs.map((log) => ({
        at: new Date(log.at).toISOString(),
        cause: causeOf(log),
        log: pathOf(log),
      }))
      for (const { cause } of told) yield* Effect.logWarning(`the previous boot ended: ${cause}`)
      const [latest] = told.slice(-1)
      if (latest !== undefined) yield* report.milestone("previous-boot", { ended: latest.cause })
      yield* kernel.writeFile(REPORT, `${JSON.stringify(told, null, 1)}\n`)
      yield* keep(logs)
      for (const file of logs.flatMap((log) => log.files)) yield* kernel.unlink(file)
      return { ended: told.map(({ cause }) => cause) }
    }),
  ),
})
