/** The modules of the machine that dies. */
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Watchdog from "@kios/stages-runtime/Watchdog"

export const boot = KernelModules.bootModules

/** Those that are not in init's list are found by their devices. */
export const inImage = [
  ...boot,
  "virtio_blk",
  PersistentStore.module,
  ...Watchdog.hardwareModules,
  Watchdog.softwareModule,
]
