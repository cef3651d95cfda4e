/**
 * The devices of this machine, by what sysfs says of them.
 */
import * as Effect from "effect/Effect"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"

/** A device that a module may drive. */
export interface Device {
  /** Its directory in sysfs: `/sys/bus/pci/devices/0000:00:1f.2`. */
  readonly path: string
  /** What drivers know it by. */
  readonly modalias: string
}

// What is on these is no device with a modalias, and on a large machine there are thousands.
const without = new Set([
  "clockevents",
  "clocksource",
  "container",
  "cpu",
  "edac",
  "event_source",
  "machinecheck",
  "memory",
  "memory_tiering",
  "node",
  "pci_express",
  "workqueue",
])

/**
 * The devices that are there and not in `seen`, which is then what is there.
 *
 * Reads `/sys/bus/BUS/devices` and, because input devices are on no bus,
 * `/sys/class/input`. A directory that is missing has no devices.
 *
 * @param seen paths of devices that were there before
 *
 * @example
 * ```ts
 * import * as Devices from "@kios/stages-runtime/Devices"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as Effect from "effect/Effect"
 *
 * const machine = TestMachine.make({ devices: { "pci/0000:00:03.0": "pci:v00001AF4d00001000" } })
 * const found = Devices.scan(new Set()).pipe(Effect.provide(machine.layer))
 * ```
 */
export const scan = Effect.fnUntraced(function* (
  seen: Set<string>,
): Effect.fn.Return<ReadonlyArray<Device>, never, Kernel> {
  const kernel = yield* Kernel
  const list = (directory: string) =>
    Effect.catch(kernel.readDirectory(directory), (error: KernelError) =>
      Effect.as(
        error.errno === "ENOENT" ? Effect.void : Effect.logWarning(`devices: ${error.message}`),
        [] as ReadonlyArray<string>,
      ),
    )
  const directories = (yield* list("/sys/bus"))
    .filter((bus) => !without.has(bus))
    .map((bus) => `/sys/bus/${bus}/devices`)
  const found: Array<Device> = []
  const present = new Set<string>()
  for (const directory of [...directories, "/sys/class/input"]) {
    for (const name of yield* list(directory)) {
      const path = `${directory}/${name}`
      present.add(path)
      if (seen.has(path)) continue
      seen.add(path)
      // Many devices have none, and one may be gone by now.
      const modalias = yield* Effect.catch(kernel.readText(`${path}/modalias`), () => Effect.succeed(""))
      if (modalias !== "") found.push({ path, modalias: modalias.trim() })
    }
  }
  // Another one may be plugged in where it was.
  for (const path of seen) if (!present.has(path)) seen.delete(path)
  return found
})
