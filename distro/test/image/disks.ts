/**
 * Looks into disk images with the programs of the file systems themselves.
 */
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import type { Partition } from "../../src/image/DiskImage.ts"
import { makePe } from "./pe.ts"
import { noise } from "./support.ts"

export const tools = ["sfdisk", "mformat", "mmd", "mcopy", "mke2fs", "debugfs", "e2fsck"] as const

const env = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }

export const makeEfi = (dir: string, bytes = 100_000): string => {
  const file = path.join(dir, "kios.efi")
  fs.writeFileSync(file, makePe({ sections: [[".text", noise(bytes)]] }))
  return file
}

/** A partition as a file of its own, named so that no program interprets it. */
const partitionFile = (dir: string, disk: string, partition: Partition): string => {
  const file = path.join(dir, "partition")
  const fd = fs.openSync(disk, "r")
  const bytes = Buffer.alloc(partition.size)
  fs.readSync(fd, bytes, 0, bytes.length, partition.start)
  fs.closeSync(fd)
  fs.writeFileSync(file, bytes)
  return file
}

/** Throws when e2fsck finds anything to mend. */
export const fsck = (dir: string, disk: string, partition: Partition): void => {
  execFileSync("e2fsck", ["-fn", partitionFile(dir, disk, partition)], { env, stdio: "pipe" })
}

export const debugfs = (dir: string, disk: string, partition: Partition, command: string): string =>
  execFileSync("debugfs", ["-R", command, partitionFile(dir, disk, partition)], {
    env,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  })

export const espFile = (disk: string, partition: Partition, name: string): Buffer => {
  const file = partitionFile(path.join(path.dirname(disk), ".."), disk, partition)
  return execFileSync("mcopy", ["-i", file, `::${name}`, "-"], { env, maxBuffer: 1 << 28 })
}
