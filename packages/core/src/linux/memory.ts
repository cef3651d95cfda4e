/** Memory that this process holds without using it. */
import type { Libc } from "./libc.ts"

type Collect = (options: {
  readonly type: "major"
  readonly execution: "sync"
  readonly flavor: "last-resort"
}) => void

/**
 * Gives it back. V8 collects when its heap has grown by half or more, which
 * an init that is idle takes hours for, and keeps the pages; a collection of
 * the last resort also lets go of code that was needed only to boot.
 */
export const release = (c: Libc): (() => void) => {
  let collect: Collect | undefined
  return () => {
    if (collect === undefined) {
      // V8 gives `gc` to contexts that are made after the option was set, and to nobody else.
      process.getBuiltinModule("node:v8").setFlagsFromString("--expose-gc")
      collect = process.getBuiltinModule("node:vm").runInNewContext("gc") as Collect
      process.getBuiltinModule("node:v8").setFlagsFromString("--no-expose-gc")
    }
    collect({ type: "major", execution: "sync", flavor: "last-resort" })
    c.call("malloc_trim", 0)
  }
}
