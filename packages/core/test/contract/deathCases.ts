// What outlives init: watchdog timers and the kernel's log in pstore.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import { group, type K, refused } from "./Case.ts"
import { fileOf } from "./moduleCases.ts"

const { cases, check, checkMachine } = group()
export { cases }

/** Of a module that brings a watchdog timer: the kernel's own. */
const softdog = (k: K) =>
  Effect.gen(function* () {
    const { needs, path } = yield* fileOf(k, "softdog")
    for (const file of [...needs, path])
      yield* Effect.catchIf(
        k.loadModule(file),
        (error) => error.errno === "EEXIST",
        () => Effect.void,
      )
  })
checkMachine("a watchdog runs while it is open, and one opens it at a time", function* (k) {
  yield* softdog(k)
  const watchdog = yield* k.openWatchdog("/dev/watchdog0")
  assert.equal(watchdog.identity, "Software Watchdog")
  assert.equal(watchdog.resetThisMachine, false)
  yield* watchdog.feed
  yield* refused(k.openWatchdog("/dev/watchdog0"), "open EBUSY")
  yield* watchdog.disarm
  const again = yield* k.openWatchdog("/dev/watchdog0")
  yield* again.feed
  yield* again.disarm
})
checkMachine("a watchdog's timeout is set, but not to none and not beyond what it counts to", function* (k) {
  yield* softdog(k)
  const watchdog = yield* k.openWatchdog("/dev/watchdog0")
  assert.equal(yield* watchdog.setTimeout(90), 90)
  assert.equal(yield* watchdog.setTimeout(65_535), 65_535)
  yield* refused(watchdog.setTimeout(65_536), "ioctl EINVAL")
  yield* refused(watchdog.setTimeout(0), "ioctl EINVAL")
  yield* watchdog.feed
  yield* watchdog.disarm
})
check("what is no watchdog is none", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "")
  yield* refused(k.openWatchdog(`${dir}/file`), "ioctl ENOTTY")
  yield* refused(k.openWatchdog("/dev/null"), "ioctl ENOTTY")
  yield* refused(k.openWatchdog(dir), "open EISDIR")
  yield* refused(k.openWatchdog(`${dir}/missing`), "open ENOENT")
  assert.equal(yield* k.readText(`${dir}/file`), "")
})
check("what is no input device is none", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "")
  const hear = (path: string) => Effect.scoped(k.watchInput(path, () => {}))
  yield* refused(hear(`${dir}/file`), "ioctl ENOTTY")
  yield* refused(hear("/dev/null"), "ioctl ENOTTY")
  yield* refused(hear(dir), "ioctl ENOTTY")
  yield* refused(hear(`${dir}/missing`), "open ENOENT")
})
checkMachine("pstore shows what was kept, and takes nothing", function* (k) {
  const target = "/sys/fs/pstore"
  yield* k.mount({
    source: "pstore",
    target,
    fstype: "pstore",
    flags: ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
  })
  assert.deepEqual(yield* k.readDirectory(target), [])
  assert.equal(yield* k.readText("/sys/module/pstore/parameters/backend"), "(null)\n")
  yield* refused(k.writeFile(`${target}/dmesg`, "x"), "open EACCES")
  yield* refused(k.makeDirectory(`${target}/more`), "mkdir EPERM")
  yield* k.umount(target)
})
checkMachine("the kernel can be told to keep its log at every way down", function* (k) {
  const path = "/sys/module/printk/parameters/always_kmsg_dump"
  assert.equal(yield* k.readText(path), "N\n")
  yield* k.writeControl(path, "Y")
  assert.equal(yield* k.readText(path), "Y\n")
  yield* k.writeControl(path, "N")
})
