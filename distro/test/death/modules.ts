/** The modules of the machine that dies: what it loads by name, and the drivers of its devices. */
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Watchdog from "@kios/stages-runtime/Watchdog"

export const boot = KernelModules.bootModules

export const inImage = [...boot, "virtio_blk", "i6300esb", PersistentStore.module, Watchdog.softwareModule]
