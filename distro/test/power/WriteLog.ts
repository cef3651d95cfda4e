/**
 * A disk's writes as QEMU's `blklogwrites` logged them, in the format of the
 * kernel's dm-log-writes.
 *
 * Source: the kernel's Documentation/admin-guide/device-mapper/log-writes.rst
 * and drivers/md/dm-log-writes.c. Everything is little-endian. The first sector
 * has magic, version, number of entries and size of a sector; then come the
 * entries, each a sector (where, how many sectors, flags, length of a mark's
 * text) and what was written, in whole sectors.
 */
import * as fs from "node:fs"

const MAGIC = 0x6a_7366_7773_6872n
const VERSION = 1n
const flag = { flush: 1n, fua: 2n, discard: 4n, mark: 8n } as const
const KNOWN = 15n
const HEADER_BYTES = 32

/** A write, or a flush of the disk's cache, in the order in which the disk got them. */
export type Entry = {
  /** Where in the log it begins, bytes. */
  readonly position: number
} & (
  | { readonly _tag: "Flush" }
  | {
      readonly _tag: "Write"
      /** Where on the disk, bytes. */
      readonly offset: number
      readonly length: number
      /** Where in the log what was written is, bytes. */
      readonly data: number
      /** Forced unit access: on the medium when it is done, whatever the cache holds. */
      readonly fua: boolean
    }
)

/** A log that is not as it should be. */
export class MalformedLog extends Error {}

/**
 * The entries of a log. One that is not there as a whole, because its machine
 * was ended while it was written, and what follows it, are left out: the
 * number in the first sector is only brought up to date now and then.
 */
export const read = (file: string): ReadonlyArray<Entry> => {
  const handle = fs.openSync(file, "r")
  try {
    const { size } = fs.fstatSync(handle)
    const header = Buffer.alloc(HEADER_BYTES)
    const at = (position: number) => fs.readSync(handle, header, 0, HEADER_BYTES, position) === HEADER_BYTES
    if (!at(0) || header.readBigUInt64LE(0) !== MAGIC || header.readBigUInt64LE(8) !== VERSION) {
      throw new MalformedLog(`${file}: no log of writes, or none that was ever flushed`)
    }
    const sector = header.readUInt32LE(24)
    const entries: Array<Entry> = []
    for (let position = sector; at(position);) {
      const [where, sectors, flags, marked] = [0, 8, 16, 24].map((field) => header.readBigUInt64LE(field))
      if (where === undefined || sectors === undefined || flags === undefined || marked === undefined) break
      // A hole: a later entry was written before this one, and then the machine was ended.
      if (flags === 0n && sectors === 0n) break
      if ((flags & ~KNOWN) !== 0n) throw new MalformedLog(`${file}: unknown flags ${flags} at ${position}`)
      // Neither appears: the machine's disk offers no discard, and nobody marks.
      if ((flags & (flag.discard | flag.mark)) !== 0n)
        throw new MalformedLog(`${file}: a discard or mark at ${position}`)
      const data = position + sector
      const length = Number(sectors) * sector
      if (data + length > size) break
      if ((flags & flag.flush) !== 0n) entries.push({ _tag: "Flush", position })
      if (length > 0) {
        const fua = (flags & flag.fua) !== 0n
        entries.push({ _tag: "Write", position, offset: Number(where) * sector, length, data, fua })
      }
      position = data + length
    }
    return entries
  } finally {
    fs.closeSync(handle)
  }
}
