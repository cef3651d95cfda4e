/** A data partition as it lies on its disk, looked at while nobody writes to it. */
import { assert } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import type * as DiskImage from "../../src/image/DiskImage.ts"

const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }

/** Where it is. */
export interface OnDisk {
  readonly path: string
  readonly partition: DiskImage.Partition
}

/** Copies the partition into `directory` and fails unless it was unmounted; gives what reads its files. */
export const assertClean = (disk: OnDisk, directory: string): ((file: string) => string) => {
  const file = path.join(directory, "partition")
  const { size, start } = disk.partition
  const from = fs.openSync(disk.path, "r")
  const to = fs.openSync(file, "w")
  const chunk = Buffer.alloc(1 << 20)
  for (let at = 0; at < size; at += chunk.length) {
    const read = fs.readSync(from, chunk, 0, Math.min(chunk.length, size - at), start + at)
    // Most of it is holes, and stays so.
    if (chunk.subarray(0, read).some((byte) => byte !== 0)) fs.writeSync(to, chunk, 0, read, at)
  }
  fs.ftruncateSync(to, size)
  fs.closeSync(from)
  fs.closeSync(to)
  const run = (program: string, args: ReadonlyArray<string>) =>
    execFileSync(program, [...args, file], { env: environment, encoding: "utf8", stdio: "pipe" })
  // Exit code 0: nothing to mend, and not even a journal to replay.
  const checked = run("e2fsck", ["-fn"])
  assert.notInclude(checked, "Fix?")
  const header = run("dumpe2fs", ["-h"])
  assert.match(header, /^Filesystem state: +clean$/m)
  assert.notInclude(header, "needs_recovery")
  return (name) => run("debugfs", ["-R", `cat ${name}`])
}
