/**
 * The GUID partition table: what it says, and which of its partitions can be believed.
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
  /** Where it was read from. */
  readonly lba: bigint
  /** Bytes that its checksum is over. */
  readonly headerBytes: number
  /** The sectors that partitions may have, inclusive. */
  readonly firstUsable: bigint
  readonly lastUsable: bigint
  readonly entriesLba: bigint
  readonly entryCount: number
  readonly entryBytes: number
  readonly entriesCrc: number
  readonly backupLba: bigint
}

/** Bytes of a header that are looked at. */
export const HEADER_BYTES = 92
// UEFI wants at least 16 KiB of entries. 1 MiB is 8192 of them; Linux itself gives a disk 255 partitions.
const MAX_TABLE_BYTES = 2 ** 20

/** Why a sector is no header at all, as opposed to a damaged one. */
export const NO_SIGNATURE = "no GPT signature"

/** Sectors that the entries take. */
export const entrySectors = (header: GptHeader, sectorBytes: number): bigint =>
  BigInt(Math.ceil((header.entryCount * header.entryBytes) / sectorBytes))

/**
 * Reads the header in the block at LBA 1 (or at the last LBA: the backup).
 * Fails with a sentence.
 *
 * @param block the sector, of at least {@link HEADER_BYTES} bytes
 * @param lba where the block was read from
 * @param lastLba the disk's last sector
 */
export const parseHeader = (
  block: Uint8Array,
  lba: bigint,
  lastLba: bigint,
): Result.Result<GptHeader, string> => {
  if (block.length < HEADER_BYTES) return Result.fail("the disk is too small for a partition table")
  const view = Buffer.from(block.buffer, block.byteOffset, block.byteLength)
  if (view.toString("latin1", 0, 8) !== "EFI PART") return Result.fail(NO_SIGNATURE)
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
  // 128 times a power of two.
  if (entryBytes < 128 || entryBytes > MAX_TABLE_BYTES || (entryBytes & (entryBytes - 1)) !== 0)
    return Result.fail(`entry size ${entryBytes} is not 128 times a power of two`)
  if (entryCount * entryBytes > MAX_TABLE_BYTES)
    return Result.fail(`${entryCount} entries of ${entryBytes} bytes are more than ${MAX_TABLE_BYTES} bytes`)
  const header: GptHeader = {
    lba,
    headerBytes,
    backupLba: view.readBigUInt64LE(32),
    firstUsable: view.readBigUInt64LE(40),
    lastUsable: view.readBigUInt64LE(48),
    entriesLba: view.readBigUInt64LE(72),
    entryCount,
    entryBytes,
    entriesCrc: view.readUInt32LE(88),
  }
  // As Linux does (block/partitions/efi.c): such a table was made for another disk, or this one has shrunk.
  if (header.lastUsable > lastLba || header.firstUsable > header.lastUsable)
    return Result.fail(
      `it gives sectors ${header.firstUsable} to ${header.lastUsable} to partitions, and the disk has ${lastLba + 1n}`,
    )
  const entriesEnd = header.entriesLba + entrySectors(header, block.length)
  if (header.entriesLba < 2n || entriesEnd > lastLba + 1n || (header.entriesLba <= lba && lba < entriesEnd))
    return Result.fail(`the partition entries at LBA ${header.entriesLba} lie beyond the disk or on a header`)
  return Result.succeed(header)
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
    // Most are unused: a type of zeros.
    if (entry.readBigUInt64LE(0) === 0n && entry.readBigUInt64LE(8) === 0n) continue
    partitions.push({
      number: index + 1,
      type: guid(entry.subarray(0, 16)),
      uuid: guid(entry.subarray(16, 32)),
      firstLba: entry.readBigUInt64LE(32),
      lastLba: entry.readBigUInt64LE(40),
      label: entry.toString("utf16le", 56, 128).split("\0")[0] ?? "",
    })
  }
  return Result.succeed(partitions)
}

/**
 * Leaves out the partitions that cannot be believed, each with a sentence: one
 * that ends before it begins, that has sectors which the table does not give
 * to partitions, or that shares sectors with another (of which nobody can say
 * whose they are: both are left out).
 */
export const believable = (
  header: GptHeader,
  partitions: ReadonlyArray<GptPartition>,
): { readonly partitions: ReadonlyArray<GptPartition>; readonly problems: ReadonlyArray<string> } => {
  const problems: Array<string> = []
  const sane = partitions.filter(({ firstLba, lastLba, number }) => {
    const place = `partition ${number} (sectors ${firstLba} to ${lastLba})`
    if (lastLba < firstLba) problems.push(`${place} ends before it begins`)
    else if (firstLba < header.firstUsable || lastLba > header.lastUsable)
      problems.push(`${place} is not within sectors ${header.firstUsable} to ${header.lastUsable}`)
    else return true
    return false
  })
  const overlapping = new Set<GptPartition>()
  let furthest: GptPartition | undefined
  for (const partition of sane.toSorted((a, b) => Number(a.firstLba - b.firstLba))) {
    if (furthest !== undefined && partition.firstLba <= furthest.lastLba) {
      overlapping.add(furthest).add(partition)
      problems.push(`partitions ${furthest.number} and ${partition.number} overlap`)
    }
    if (furthest === undefined || partition.lastLba > furthest.lastLba) furthest = partition
  }
  return { partitions: sane.filter((partition) => !overlapping.has(partition)), problems }
}

// The first three fields of a GUID are little-endian, the rest is in order.
const guid = (bytes: Buffer): string => {
  const hex = (from: number, to: number) => bytes.toString("hex", from, to)
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to).toReversed()).toString("hex")
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`
}

/** The checksum of headers and entries. */
export const crc32 = (bytes: Uint8Array): number => process.getBuiltinModule("node:zlib").crc32(bytes)
