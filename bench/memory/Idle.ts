/**
 * The memory of a node that does nothing: what is left for pods, and what PID 1
 * takes of it. Read by a pod that sees the host's processes, in both images.
 */
import { Output } from "@kios/distro/cli/Output"
import * as Probe from "@kios/distro/vm/Probe"
import * as VmRun from "@kios/distro/vm/VmRun"
import { imageNames } from "@kios/distro/recipe"
import { Duration, Effect } from "effect"
import { median } from "../boot/Comparison.ts"
import { BootFailed, type Machine, options } from "../boot/Sample.ts"
import * as Images from "../Images.ts"
import { type Part, table } from "../Part.ts"

/** The pod that reads. */
const pod: Images.Pod = {
  name: "kios-probe",
  manifest: Probe.probeManifest({ image: imageNames.busybox }),
}

/** KiB. */
export type Reading = Readonly<Record<(typeof keys)[number], number>>

const keys = ["MemTotal", "MemAvailable", "AnonPages", "VmRSS", "RssAnon", "RssFile", "RssShmem"] as const

// Init gives memory back when nothing has happened for half a minute.
const SETTLE = "2 minutes"
const READINGS = 30
const script =
  `for n in $(seq ${READINGS}); do grep -E '^(MemTotal|MemAvailable|AnonPages):' /proc/meminfo; ` +
  `grep -E '^(VmRSS|RssAnon|RssFile|RssShmem):' /proc/1/status; sleep 1; done`

/** The medians of what the script printed. */
export const parse = (text: string): Reading => {
  const values = (key: string) =>
    [...text.matchAll(new RegExp(`^${key}:\\s+(\\d+) kB$`, "gmu"))].map(([, value]) => Number(value))
  return Object.fromEntries(keys.map((key) => [key, median(values(key))])) as unknown as Reading
}

/** Boots an image, waits, and reads; once more after `idle` when that is longer than nothing. */
const read = Effect.fnUntraced(function* (
  name: Images.Name,
  efi: string,
  machine: Machine,
  idle: Duration.Duration,
) {
  const output = yield* Output
  const booted = yield* VmRun.boot({
    ...options(efi, machine),
    ports: [Probe.defaultProbePort],
  })
  output.status(`memory: ${name} boots`)
  const verdict = yield* booted.until(
    { milestones: [], pods: ["default/kios-probe", machine.pod] },
    { timeout: Duration.seconds(machine.timeoutSeconds) },
  )
  if (!verdict.reached)
    return yield* new BootFailed({
      efi,
      reason: verdict.reason ?? "the pods do not run",
      tail: verdict.tail.slice(-15),
    })
  const probe = yield* Probe.make({ path: booted.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready({ timeout: "3 minutes" })
  const now = Effect.map(probe.exec(script, { timeout: `${READINGS * 10} seconds` }), ({ stdout }) =>
    parse(stdout),
  )
  output.status(`memory: ${name} is left alone`)
  // That time passes is what is measured here.
  yield* Effect.sleep(SETTLE)
  const first = yield* now
  const later = Duration.toMillis(idle) === 0 ? undefined : yield* Effect.delay(now, idle)
  return { first, later }
}, Effect.scoped)

const MiB = (kib: number) => (kib / 1024).toFixed(1)

/** Both images, one after the other. */
export const measure = Effect.fnUntraced(function* (
  directory: string,
  machine: Machine,
  idle: Duration.Duration,
) {
  const output = yield* Output
  const images = yield* Images.both(directory, "probe", [pod])
  const kios = yield* read("kios", images.kios.efi, machine, idle)
  const floor = yield* read("floor", images.floor.efi, machine, Duration.zero)
  output.status(undefined)
  const columns = [kios.first, floor.first, ...(kios.later === undefined ? [] : [kios.later])]
  const what: Readonly<Record<(typeof keys)[number], string>> = {
    MemTotal: "MemTotal",
    MemAvailable: "MemAvailable",
    AnonPages: "AnonPages, all processes",
    VmRSS: "PID 1: VmRSS",
    RssAnon: "PID 1: RssAnon",
    RssFile: "PID 1: RssFile (pages of /init, which are in RAM once)",
    RssShmem: "PID 1: RssShmem",
  }
  const lines = table([
    [
      "MiB, node idle",
      "kios",
      "floor",
      ...(kios.later === undefined ? [] : [`kios after ${Math.round(Duration.toMinutes(idle))} min`]),
    ],
    ...keys.map((key) => [what[key], ...columns.map((reading) => MiB(reading[key]))]),
  ])
  return { lines, data: { machine, kios, floor } } satisfies Part
})
