/**
 * Whether disks may still appear. Loading the driver of a controller returns
 * when the probes that it began are over (kernel/module/main.c, do_init_module),
 * so that the disks of ATA and NVMe controllers are there when boot-modules is.
 * What comes later by itself is behind a bus that is explored step by step:
 * USB, memory cards, SCSI over a network or an expander, NVMe that is being
 * reset, Xen.
 */
import * as Effect from "effect/Effect"
import { Kernel } from "@kios/core/Kernel"

/** Directories of sysfs with hosts of disks. */
const buses = [
  "/sys/class/scsi_host",
  "/sys/class/nvme",
  "/sys/class/mmc_host",
  "/sys/bus/usb/devices",
  "/sys/bus/xen/devices",
] as const
/** What is found on the way to a disk. */
const steps = ["/sys/bus/scsi/devices", "/sys/bus/mmc/devices", "/sys/block"] as const

/** What the kernel has found so far. */
export interface Progress {
  /** Whether there is a bus whose disks come later. */
  readonly possible: boolean
  /** A device that is known to be on its way to having a disk; undefined: none. */
  readonly pending: string | undefined
  /** Different when anything has been found meanwhile. */
  readonly fingerprint: string
}

const namesIn = Effect.fnUntraced(function* (path: string) {
  const kernel = yield* Kernel
  // A kernel without the bus has no such directory.
  return yield* Effect.catch(kernel.readDirectory(path), () => Effect.succeed([] as ReadonlyArray<string>))
})

/** Looks at sysfs. */
export const progress = Effect.gen(function* () {
  const kernel = yield* Kernel
  const hosts = yield* Effect.forEach(buses, namesIn, { concurrency: 1 })
  const [scsi = [], nvme = [], ...others] = hosts
  let possible = others.some((names) => names.length > 0)
  let pending: string | undefined
  for (const name of nvme) {
    const path = `/sys/class/nvme/${name}/state`
    const state = (yield* Effect.catch(kernel.readText(path), () => Effect.succeed("live"))).trim()
    if (/^(live|dead|deleting)/u.test(state)) continue
    possible = true
    pending = `${name} is ${state}`
  }
  const targets = scsi.length === 0 ? [] : yield* namesIn("/sys/bus/scsi/devices")
  for (const name of scsi) {
    const link = yield* Effect.catch(kernel.readLink(`/sys/class/scsi_host/${name}`), () =>
      Effect.succeed(""),
    )
    if (/\/ata\d+\//u.test(link)) continue
    possible = true
    // usb-storage waits (delay_use) before it asks a stick for its disks.
    const asked = targets.some((target) => target.startsWith(`target${name.slice("host".length)}:`))
    if (!asked && link.includes("/usb")) pending = `${name} on USB has not told its disks`
  }
  if (!possible) return { possible, pending, fingerprint: "" } satisfies Progress
  const found = yield* Effect.forEach(steps, namesIn, { concurrency: 1 })
  return { possible, pending, fingerprint: JSON.stringify([hosts, found]) } satisfies Progress
})
