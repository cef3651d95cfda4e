/**
 * What of an in-memory machine outlives its init: a watchdog timer, and the
 * store in which the firmware keeps the kernel's log.
 */
import { ControlFile, Directory, type Inode, type KernelDirectory, refuse, RegularFile } from "./TestFiles.ts"
import { WatchdogDevice, type WatchdogSpec, type WatchdogState } from "./TestWatchdog.ts"

/** What the kernel kept of earlier boots: files are read and removed, and nobody makes one. */
class PstoreDirectory extends Directory {
  override makeDirectory(_name: string, _mode: number): Directory {
    return refuse("EPERM")
  }
  override create<I extends Inode>(_name: string, inode: I): I {
    return refuse(inode.kind === "file" ? "EACCES" : "EPERM")
  }
}

export interface Firmware {
  /** What the mount of pstore shows. */
  readonly pstore: Directory
  /** A timer appears, as /dev/watchdog0 if it is the first. */
  readonly addWatchdog: (spec: WatchdogSpec) => void
  /** A driver keeps the log from now on, and kept these files before. */
  readonly addStore: (driver: string, files: Readonly<Record<string, string>>) => void
  readonly watchdog: (now: number) => WatchdogState | undefined
}

/** @param dev the root of devtmpfs @param sys the root of sysfs */
export const make = (dev: Directory, sys: KernelDirectory): Firmware => {
  const pstore = new PstoreDirectory()
  let watchdog: WatchdogDevice | undefined
  // What printk makes of a null pointer.
  let backend = "(null)"
  sys.within("module/pstore/parameters").add("backend", new ControlFile(() => `${backend}\n`))
  sys.within("module/printk/parameters").add("always_kmsg_dump", new RegularFile("N\n"))
  return {
    pstore,
    addWatchdog: (spec) => {
      watchdog ??= dev.add("watchdog0", new WatchdogDevice(spec))
    },
    addStore: (driver, files) => {
      backend = driver
      for (const [name, text] of Object.entries(files)) pstore.add(name, new RegularFile(text, 0o444))
    },
    watchdog: (now) => watchdog?.state(now),
  }
}
