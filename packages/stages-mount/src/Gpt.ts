/**
 * The GUID partition table: enough of it to find a partition by its type.
 *
 * UEFI Specification 2.10, chapter 5. Pure functions over bytes: whatever the
 * disk holds, the answer is a table or a reason, and nothing outside the bytes
 * given is looked at.
 */
import * as Result from "effect/Result"

/** One partition. */
export interface GptPartition {
  /** Its place in the table from 1 on, which is also its number in the device's name. */
  readonly number: number
  /** Lower-case GUID of what it is for. */
  readonly type: string
  /** Lower-case GUID of its own (PARTUUID). */
  readonly uuid: string
  /** PARTLABEL. */
  readonly label: string
  readonly firstLba: bigint
  /** Inclusive. */
  readonly lastLba: bigint
}

/** What a header says. */
export interface GptHeader {
  readonly entriesLba: bigint
  readonly entryCount: number
  readonly entryBytes: number
  readonly entriesCrc: number
  readonly backupLba: bigint
}

/** Bytes of a header that are looked at. */
export const HEADER_BYTES = 92
// UEFI wants at least 16 KiB of entries; more than this many is no table of anybody's.
const MAX_ENTRIES = 4096
const MAX_ENTRY_BYTES = 4096

/**
 * Reads the header in the block at LBA 1 (or at the last LBA: the backup).
 * Fails with a sentence.
 *
 * @param block at least {@link HEADER_BYTES} bytes, from the start of the LBA
 * @param lba where the block was read from
 */
export const parseHeader = (block: Uint8Array, lba: bigint): Result.Result<GptHeader, string> => {
  if (block.length < HEADER_BYTES) return Result.fail("the disk is too small for a partition table")
  const view = Buffer.from(block.buffer, block.byteOffset, block.byteLength)
  if (view.toString("latin1", 0, 8) !== "EFI PART") return Result.fail("no GPT signature")
  const headerBytes = view.readUInt32LE(12)
  if (headerBytes < HEADER_BYTES || headerBytes > block.length)
    return Result.fail(`header size ${headerBytes} is out of range`)
  const zeroed = Buffer.from(view.subarray(0, headerBytes))
  zeroed.writeUInt32LE(0, 16)
  if (crc32(zeroed) !== view.readUInt32LE(16)) return Result.fail("the header's checksum does not match")
  if (view.readBigUInt64LE(24) !== lba)
    return Result.fail(`the header says that it is for LBA ${view.readBigUInt64LE(24)}`)
  const entryCount = view.readUInt32LE(80)
  const entryBytes = view.readUInt32LE(84)
  if (entryCount > MAX_ENTRIES) return Result.fail(`${entryCount} entries are more than ${MAX_ENTRIES}`)
  if (entryBytes < 128 || entryBytes > MAX_ENTRY_BYTES || entryBytes % 8 !== 0)
    return Result.fail(`entry size ${entryBytes} is out of range`)
  return Result.succeed({
    backupLba: view.readBigUInt64LE(32),
    entriesLba: view.readBigUInt64LE(72),
    entryCount,
    entryBytes,
    entriesCrc: view.readUInt32LE(88),
  })
}

/**
 * Reads the entries that a header points at; unused ones are left out.
 * Fails with a sentence.
 */
export const parseEntries = (
  header: GptHeader,
  bytes: Uint8Array,
): Result.Result<ReadonlyArray<GptPartition>, string> => {
  const length = header.entryCount * header.entryBytes
  if (bytes.length < length) return Result.fail("the partition entries are cut off")
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, length)
  if (crc32(view) !== header.entriesCrc) return Result.fail("the partition entries' checksum does not match")
  const partitions: Array<GptPartition> = []
  for (let index = 0; index < header.entryCount; index++) {
    const entry = view.subarray(index * header.entryBytes, (index + 1) * header.entryBytes)
    const type = guid(entry.subarray(0, 16))
    if (type === UNUSED) continue
    partitions.push({
      number: index + 1,
      type,
      uuid: guid(entry.subarray(16, 32)),
      firstLba: entry.readBigUInt64LE(32),
      lastLba: entry.readBigUInt64LE(40),
      label: entry.toString("utf16le", 56, 128).split("\0")[0] ?? "",
    })
  }
  return Result.succeed(partitions)
}

const UNUSED = "00000000-0000-0000-0000-000000000000"

// The first three fields of a GUID are little-endian, the rest is in order.
const guid = (bytes: Buffer): string => {
  const hex = (from: number, to: number) => bytes.toString("hex", from, to)
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to).toReversed()).toString("hex")
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`
}

const crc32 = (bytes: Uint8Array): number => process.getBuiltinModule("node:zlib").crc32(bytes)
