/**
 * The writes that grow a partition to the end of its disk, in an order in
 * which a power cut between any two of them leaves a valid table: the copy
 * that is read last is written first, and the one that it was read from stays
 * whole until then.
 *
 * UEFI Specification 2.10, chapters 5.2 (protective MBR) and 5.3.
 */
import * as Result from "effect/Result"
import * as Gpt from "../Gpt.ts"
import type { Disk, Table } from "./Disks.ts"

/** One write, which has to be on the disk before the next. */
export interface Write {
  readonly what: string
  /** Bytes from the start of the disk. */
  readonly position: number
  readonly bytes: Uint8Array
}

/** What to do. No writes: the table is as it should be. */
export interface Plan {
  readonly writes: ReadonlyArray<Write>
  /** The partition as it is then. */
  readonly partition: Gpt.GptPartition
}

// As partitioning programs align: no disk has larger blocks inside.
const ALIGNMENT = 2 ** 20

const copyOf = (bytes: Uint8Array) => Buffer.from(bytes)

/** A header's sector for another place. */
const headerAt = (
  table: Table,
  entries: Uint8Array,
  places: {
    readonly lba: bigint
    readonly other: bigint
    readonly entriesLba: bigint
    readonly lastUsable: bigint
  },
): Buffer => {
  const block = copyOf(table.block)
  block.writeBigUInt64LE(places.lba, 24)
  block.writeBigUInt64LE(places.other, 32)
  block.writeBigUInt64LE(places.lastUsable, 48)
  block.writeBigUInt64LE(places.entriesLba, 72)
  block.writeUInt32LE(Gpt.crc32(entries), 88)
  block.writeUInt32LE(0, 16)
  block.writeUInt32LE(Gpt.crc32(block.subarray(0, table.header.headerBytes)), 16)
  return block
}

/**
 * The first sector with a protective MBR that covers the disk: undefined when
 * it does already, or when it is not ours to change (a hybrid one, or none).
 */
const protectiveMbr = (first: Uint8Array, sectors: number): Buffer | undefined => {
  const block = copyOf(first)
  const blank = block.subarray(0, 512).every((byte) => byte === 0)
  const protective =
    block.readUInt16LE(510) === 0xaa55 &&
    block[450] === 0xee &&
    block.subarray(462, 510).every((byte) => byte === 0)
  if (!blank && !protective) return undefined
  if (blank) {
    block.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446)
    block.writeUInt32LE(1, 454)
    block.writeUInt16LE(0xaa55, 510)
  }
  block.writeUInt32LE(Math.min(sectors - 1, 0xffffffff), 458)
  return block.equals(Buffer.from(first)) ? undefined : block
}

/**
 * Plans it. Fails with a sentence when the partition cannot be grown.
 *
 * @param about the disk's first sector, whether the backup is where the table says and says the same, and the
 *   partition's place in the table
 */
export const plan = (
  disk: Disk,
  table: Table,
  about: { readonly first: Uint8Array; readonly backupIsWhole: boolean; readonly number: number },
): Result.Result<Plan, string> => {
  const { header } = table
  const { backupIsWhole, first, number } = about
  const partition = table.partitions.find((one) => one.number === number)
  if (partition === undefined) return Result.fail(`its partition table has no usable partition ${number}`)
  if (table.problems.length > 0)
    return Result.fail(`its partition table needs repair first: ${table.problems.slice(0, 4).join("; ")}`)
  const behind = table.partitions.find((one) => one.firstLba > partition.lastLba)
  if (behind !== undefined)
    return Result.fail(`partition ${behind.number} comes after it: only the last one of a disk can grow`)

  const lastLba = BigInt(disk.sectors - 1)
  const tableSectors = Gpt.entrySectors(header, disk.sectorBytes)
  const backupEntries = lastLba - tableSectors
  const lastUsable = backupEntries - 1n
  const aligned = BigInt(ALIGNMENT / disk.sectorBytes)
  const target = ((lastUsable + 1n) / aligned) * aligned - 1n
  const grows = target > partition.lastLba
  // A primary table that is damaged is written anew from the backup; so is a backup from the primary.
  const repairs = table.primaryProblem !== undefined
  if (!grows && !repairs && backupIsWhole) return Result.succeed({ writes: [], partition })
  if (partition.lastLba > lastUsable)
    return Result.fail("there is no room for the backup partition table at the disk's end")

  const grown = { ...partition, lastLba: grows ? target : partition.lastLba }
  const entries = copyOf(table.entries)
  entries.writeBigUInt64LE(grown.lastLba, (number - 1) * header.entryBytes + 40)
  const primaryEntries = repairs ? 2n : header.entriesLba
  if (primaryEntries + tableSectors > header.firstUsable)
    return Result.fail("there is no room for the primary partition table")

  const write = (what: string, lba: bigint, bytes: Uint8Array): Write => ({
    what,
    position: Number(lba) * disk.sectorBytes,
    bytes,
  })
  const backup = [
    write("backup partition entries", backupEntries, entries),
    write(
      "backup partition header",
      lastLba,
      headerAt(table, entries, { lba: lastLba, other: 1n, entriesLba: backupEntries, lastUsable }),
    ),
  ]
  const primary = [
    write("partition entries", primaryEntries, entries),
    write(
      "partition header",
      1n,
      headerAt(table, entries, { lba: 1n, other: lastLba, entriesLba: primaryEntries, lastUsable }),
    ),
  ]
  const mbr = protectiveMbr(first, disk.sectors)
  return Result.succeed({
    partition: grown,
    writes: [
      // Nobody goes by its size, so that it may be right before the rest is.
      ...(mbr === undefined ? [] : [write("protective MBR", 0n, mbr)]),
      ...(repairs ? [...primary, ...backup] : [...backup, ...primary]),
    ],
  })
}
