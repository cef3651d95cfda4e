/**
 * How the machine goes down, kept for the next boot: written where logs last
 * when somebody asks for it, and again when all processes have ended, which is
 * the last moment at which the data partition takes anything. The next boot
 * says on the console what it finds, and keeps it under a name of its own.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { BootReport, type BootRecord } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import { Shutdown } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { ShutdownLog } from "@kios/core/capabilities/ShutdownLog"

// On the data partition where there is one; pods that ship logs read below it.
const DIRECTORY = "/var/log/kios"
const FILE = `${DIRECTORY}/shutdown.json`
const KEPT = /^previous-shutdown-.*\.json$/u
const KEPT_FILES = 8
const MOST_BYTES = 1024 * 1024

/** A boot's report as it is kept: the format of `/run/kios/boot.json`, and how far the way down had come. */
export interface KeptRecord extends BootRecord {
  /** `begun`: somebody had asked. `released`: every process had ended. */
  readonly kept: "begun" | "released"
}

/**
 * What a kept record says, in words.
 *
 * @example
 * ```ts
 * import * as ShutdownLog from "@kios/stages-runtime/ShutdownLog"
 *
 * ShutdownLog.summary({
 *   version: 1,
 *   clock: "CLOCK_MONOTONIC",
 *   stages: [],
 *   milestones: [],
 *   shutdown: { requests: [{ action: "HALT", by: "SIGTERM", atMs: 5000 }], steps: [] },
 *   kept: "begun",
 * }) // "HALT asked by SIGTERM, which did not come to its end"
 * ```
 */
export const summary = (record: KeptRecord): string => {
  const { requests = [], steps = [] } = record.shutdown ?? {}
  const asked = requests.map(({ action, by }) => `${action} asked by ${by}`).join(", then ")
  const troubles = steps.flatMap(({ name, outcome, remarks }) => [
    ...(outcome === "late" || outcome === "failed" ? [`${name} ${outcome}`] : []),
    ...remarks,
  ])
  const ends = [...steps, ...record.stages.flatMap(({ release }) => release ?? [])].map(
    ({ endMs }) => endMs ?? 0,
  )
  const took = (Math.max(...ends, requests[0]?.atMs ?? 0) - (requests[0]?.atMs ?? 0)) / 1000
  return [
    `${asked}, which ${record.kept === "begun" ? "did not come to its end" : `took ${took.toFixed(1)} s`}`,
    ...troubles,
  ].join("; ")
}

/** What the last boot kept, under a name of its own from now on. */
const takePrevious = Effect.gen(function* () {
  const kernel = yield* Kernel
  const found = yield* kernel.stat(FILE)
  if (found === undefined) return undefined
  // Pods that ship logs can write there: a FIFO would stop init, a large file would fill its memory.
  const sound = found.kind === "file" && found.size <= MOST_BYTES
  const text = sound ? yield* kernel.readText(FILE) : ""
  const at = new Date(yield* Clock.currentTimeMillis).toISOString().replace(/\.\d+Z$/u, "Z")
  yield* kernel.rename(FILE, `${DIRECTORY}/previous-shutdown-${at.replaceAll(":", "-")}.json`)
  const names = (yield* kernel.readDirectory(DIRECTORY)).filter((name) => KEPT.test(name))
  for (const name of names.slice(0, -KEPT_FILES)) yield* kernel.unlink(`${DIRECTORY}/${name}`)
  // Whatever may lie on a disk: a damaged file is no reason not to boot.
  return yield* Effect.try(() => JSON.parse(text) as KeptRecord).pipe(
    Effect.map((record) => ({ record, text: summary(record) })),
    Effect.orElseSucceed(() => undefined),
  )
})

const keep = (kept: KeptRecord["kept"]) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const report = yield* BootReport
    const shutdown = yield* Shutdown
    if (!(yield* shutdown.requested)) return
    yield* kernel.makeDirectory(DIRECTORY)
    const record: KeptRecord = { ...(yield* report.current), kept }
    // Whatever a pod may have put there is not written to.
    yield* Effect.catchIf(
      kernel.unlink(`${FILE}.new`),
      (error) => error.errno === "ENOENT",
      () => Effect.void,
    )
    yield* kernel.writeFile(`${FILE}.new`, `${JSON.stringify(record, null, 1)}\n`, 0o640)
    yield* kernel.rename(`${FILE}.new`, FILE)
    yield* kernel.sync
  }).pipe(Effect.catch((error) => Effect.logWarning(`how it goes down is not kept: ${error.message}`)))

/**
 * The stage. It is released when every process has ended, and before the data partition.
 *
 * @example
 * ```ts
 * import * as ShutdownLog from "@kios/stages-runtime/ShutdownLog"
 *
 * const waitsFor = ShutdownLog.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = Stage.make({
  name: "shutdown-log",
  description: "tell how the previous boot went down, and keep how this one does",
  criticality: "optional",
  requires: [DataPartition, EphemeralFilesystems],
  provides: [ShutdownLog],
  layer: Layer.effect(
    ShutdownLog,
    Effect.gen(function* () {
      const report = yield* BootReport
      const shutdown = yield* Shutdown
      const context = yield* Effect.context<Kernel | BootReport | Shutdown>()
      const found = yield* takePrevious
      if (found !== undefined) {
        const said = `the previous boot went down: ${found.text}`
        const inOrder = found.record.kept === "released" && !found.text.includes(";")
        yield* inOrder ? Effect.logInfo(said) : Effect.logWarning(said)
        yield* report.milestone("previous-shutdown", { how: found.text })
      }
      yield* shutdown.before({
        name: "log",
        deadline: "5 seconds",
        run: Effect.provideContext(keep("begun"), context),
      })
      yield* Effect.addFinalizer(() => keep("released"))
      return { previous: found?.text }
    }),
  ),
})
