/**
 * A reader of GUID partition tables (UEFI specification, chapter 5), with
 * every checksum verified.
 */
import * as zlib from "node:zlib"

export const SECTOR = 512

export interface GptPartition {
  readonly number: number
  readonly type: string
  readonly uuid: string
  readonly name: string
  readonly start: number
  readonly size: number
}

export interface Gpt {
  readonly uuid: string
  readonly partitions: ReadonlyArray<GptPartition>
}

/** The first three fields of a GUID are little-endian on disk. */
export const decodeGuid = (bytes: Buffer): string => {
  const hex = (from: number, to: number, swap: boolean) => {
    const part = Buffer.from(bytes.subarray(from, to))
    return Buffer.from(swap ? part.toReversed() : part).toString("hex")
  }
  return [hex(0, 4, true), hex(4, 6, true), hex(6, 8, true), hex(8, 10, false), hex(10, 16, false)].join("-")
}

const bad = (detail: string) => ({ absent: false, detail })

/**
 * `at(offset, length)` reads the disk. The result is what is wrong with the
 * table, or the table. `lba` is 1 for the primary, the last for the backup.
 */
export const readGpt = async (
  at: (offset: number, length: number) => Promise<Buffer>,
  lba: number,
): Promise<Gpt | { readonly absent: boolean; readonly detail: string }> => {
  const header = await at(lba * SECTOR, SECTOR)
  if (header.length < SECTOR || header.toString("latin1", 0, 8) !== "EFI PART") {
    return { absent: true, detail: `no GPT header at sector ${lba}` }
  }
  const headerSize = header.readUInt32LE(12)
  if (headerSize < 92 || headerSize > SECTOR) return bad(`the GPT header's size is ${headerSize}`)
  const zeroed = Buffer.from(header.subarray(0, headerSize))
  zeroed.writeUInt32LE(0, 16)
  if (zlib.crc32(zeroed) !== header.readUInt32LE(16)) return bad("the checksum of the GPT header is wrong")
  if (Number(header.readBigUInt64LE(24)) !== lba) return bad("the GPT header is not where it says")
  const count = header.readUInt32LE(80)
  const entrySize = header.readUInt32LE(84)
  if (entrySize < 128 || entrySize > 4096 || count > 1024)
    return bad(`${count} entries of ${entrySize} bytes`)
  const table = await at(Number(header.readBigUInt64LE(72)) * SECTOR, count * entrySize)
  if (zlib.crc32(table) !== header.readUInt32LE(88))
    return bad("the checksum of the partition entries is wrong")
  const partitions: Array<GptPartition> = []
  for (let i = 0; i < count; i++) {
    const entry = table.subarray(i * entrySize, (i + 1) * entrySize)
    if (entry.subarray(0, 16).every((b) => b === 0)) continue
    const first = Number(entry.readBigUInt64LE(32))
    partitions.push({
      number: i + 1,
      type: decodeGuid(entry.subarray(0, 16)),
      uuid: decodeGuid(entry.subarray(16, 32)),
      name: entry.subarray(56, 128).toString("utf16le").replace(/\0.*$/su, ""),
      start: first * SECTOR,
      size: (Number(entry.readBigUInt64LE(40)) - first + 1) * SECTOR,
    })
  }
  return { uuid: decodeGuid(header.subarray(56, 72)), partitions }
}
