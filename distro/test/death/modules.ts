/** The modules of the machine that dies. */
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Watchdog from "@kios/stages-runtime/Watchdog"

export const modules = {
  boot: ["virtio_blk"],
  node: Watchdog.hardwareModules,
  own: [PersistentStore.module, Watchdog.softwareModule],
}
