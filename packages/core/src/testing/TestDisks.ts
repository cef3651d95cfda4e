/**
 * Block devices with bytes: an empty disk, or one with a GUID partition table
 * (UEFI Specification 2.10, chapter 5) and filesystems on its partitions.
 */
import { type Directory, type FileTree, plant, Directory as MemoryDirectory } from "./TestFiles.ts"

/** A filesystem on a partition or disk. */
export interface Volume {
  readonly type: string
  readonly root: Directory
  /** Mounts of it fail with this errno: a damaged filesystem (`EUCLEAN`), a bad superblock (`EINVAL`). */
  readonly errno?: string
}

/** A disk. */
export interface TestDisk {
  /** All of its bytes; what tests change here is what `readAt` gives. */
  readonly bytes: Uint8Array
  readonly sectorBytes: number
  /** Where partitions begin and end, by number: those that the kernel has. */
  readonly partitions: Map<number, { readonly start: number; readonly end: number }>
  /** As sysfs says it: a memory stick, say. */
  readonly removable?: boolean
  /** Filesystems by partition number; 0 is the whole disk. */
  readonly volumes: ReadonlyMap<number, Volume>
}

/** One partition of {@link gpt}. */
export interface PartitionSpec {
  /** GUID of its type. */
  readonly type: string
  readonly uuid?: string
  readonly label?: string
  /** Its place in the table, from 1 on; default: the next. */
  readonly number?: number
  /** Its size (default 16). */
  readonly sectors?: number
  readonly ext4?: Ext4Spec
}

/** An ext4 filesystem; its superblock is really in the bytes. */
export interface Ext4Spec {
  readonly files?: FileTree
  readonly label?: string
  readonly uuid?: string
  /** Mounts of it fail with this errno: a damaged filesystem (`EUCLEAN`), a bad superblock (`EINVAL`). */
  readonly errno?: string
}

/**
 * A disk of that many bytes with nothing on it.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 *
 * const machine = TestMachine.make({ disks: { vda: TestDisks.blank(1024 * 1024) } })
 * ```
 */
export const blank = (size: number, sectorBytes = 512): TestDisk => ({
  bytes: new Uint8Array(size),
  sectorBytes,
  partitions: new Map(),
  volumes: new Map(),
})

const ENTRY_BYTES = 128
const PARTITION_SECTORS = 16

const crc32 = (bytes: Uint8Array): number => process.getBuiltinModule("node:zlib").crc32(bytes)

/**
 * The bytes of a GUID: its first three fields are little-endian.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * TestDisks.guidBytes("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").toString("hex")
 * // "28732ac11ff8d211ba4b00a0c93ec93b"
 * ```
 */
export const guidBytes = (guid: string): Buffer => {
  const plain = Buffer.from(guid.replaceAll("-", ""), "hex")
  return Buffer.concat([
    plain.subarray(0, 4).toReversed(),
    plain.subarray(4, 6).toReversed(),
    plain.subarray(6, 8).toReversed(),
    plain.subarray(8),
  ])
}

const header = (
  lba: bigint,
  backup: bigint,
  entriesLba: bigint,
  entries: Uint8Array,
  tableSectors: bigint,
  last: bigint,
): Buffer => {
  const block = Buffer.alloc(92)
  block.write("EFI PART", 0, "latin1")
  block.writeUInt32LE(0x00010000, 8)
  block.writeUInt32LE(92, 12)
  block.writeBigUInt64LE(lba, 24)
  block.writeBigUInt64LE(backup, 32)
  block.writeBigUInt64LE(2n + tableSectors, 40)
  block.writeBigUInt64LE(last - tableSectors - 1n, 48)
  block.writeBigUInt64LE(entriesLba, 72)
  block.writeUInt32LE(entries.length / ENTRY_BYTES, 80)
  block.writeUInt32LE(ENTRY_BYTES, 84)
  block.writeUInt32LE(crc32(entries), 88)
  block.writeUInt32LE(crc32(block), 16)
  return block
}

/** Writes a superblock as mke2fs makes it, of as many blocks of 1 KiB as the bytes hold. Documentation/filesystems/ext4/super.rst. */
const makeExt4 = (bytes: Buffer, spec: Ext4Spec): Volume => {
  const { errno, files = {}, label = "", uuid = "00000000-0000-0000-0000-000000000000" } = spec
  const superblock = bytes.subarray(1024)
  superblock.writeUInt32LE(Math.floor(bytes.length / 1024), 0x4)
  superblock.writeUInt16LE(0xef53, 0x38)
  // Clean, dynamic inode sizes; a journal; file types, extents and 64 bits; sparse superblocks.
  superblock.writeUInt16LE(1, 0x3a)
  superblock.writeUInt32LE(1, 0x4c)
  superblock.writeUInt32LE(0x4, 0x5c)
  superblock.writeUInt32LE(0xc2, 0x60)
  superblock.writeUInt32LE(0x1, 0x64)
  Buffer.from(uuid.replaceAll("-", ""), "hex").copy(superblock, 0x68)
  superblock.write(label, 0x78, 16, "utf8")
  const root = new MemoryDirectory()
  plant(root, files)
  return { type: "ext4", root, ...(errno === undefined ? {} : { errno }) }
}

/**
 * A disk of that many bytes (default 16 KiB) that is a filesystem as a whole, without a partition table.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * const disk = TestDisks.ext4({ label: "state", files: { "/meta/etc/hostname": "node-7\n" } })
 * ```
 */
export const ext4 = (spec: Ext4Spec, size = 16_384): TestDisk => {
  const bytes = Buffer.alloc(size)
  return { ...blank(0), bytes, volumes: new Map([[0, makeExt4(bytes, spec)]]) }
}

/**
 * The same disk with more bytes behind what it had, as when a cloud's volume is enlarged.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * const disk = TestDisks.enlarged(TestDisks.blank(1024 * 1024), 4 * 1024 * 1024)
 * ```
 */
export const enlarged = (disk: TestDisk, size: number): TestDisk => {
  const bytes = Buffer.alloc(size)
  bytes.set(disk.bytes)
  return { ...disk, bytes }
}

/**
 * A disk with a valid primary and backup partition table.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * const disk = TestDisks.gpt({
 *   partitions: [
 *     { type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", label: "esp" },
 *     { type: "97aac693-d920-465a-94fe-eb59fc86dfaa", ext4: { files: { "/meta/etc/hostname": "node-7\n" } } },
 *   ],
 * })
 * ```
 */
export const gpt = (options: {
  readonly partitions: ReadonlyArray<PartitionSpec>
  /** 512 (default) or 4096. */
  readonly sectorBytes?: number
  /** Places in the table (default 128). */
  readonly entries?: number
}): TestDisk => {
  const sector = options.sectorBytes ?? 512
  const tableBytes = (options.entries ?? 128) * ENTRY_BYTES
  const tableSectors = Math.ceil(tableBytes / sector)
  const first = 2 + tableSectors
  const used = options.partitions.reduce((sum, one) => sum + (one.sectors ?? PARTITION_SECTORS), 0)
  // A table without partitions has room for one all the same.
  const sectors = first + Math.max(used, PARTITION_SECTORS) + tableSectors + 1
  const bytes = Buffer.alloc(sectors * sector)
  const entries = Buffer.alloc(tableBytes)
  const partitions = new Map<number, { start: number; end: number }>()
  const volumes = new Map<number, Volume>()
  let start = first
  options.partitions.forEach((partition, index) => {
    const number = partition.number ?? index + 1
    const end = start + (partition.sectors ?? PARTITION_SECTORS)
    const entry = entries.subarray((number - 1) * ENTRY_BYTES, number * ENTRY_BYTES)
    guidBytes(partition.type).copy(entry, 0)
    guidBytes(partition.uuid ?? `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`).copy(entry, 16)
    entry.writeBigUInt64LE(BigInt(start), 32)
    entry.writeBigUInt64LE(BigInt(end - 1), 40)
    entry.write(partition.label ?? "", 56, "utf16le")
    partitions.set(number, { start: start * sector, end: end * sector })
    if (partition.ext4 !== undefined)
      volumes.set(number, makeExt4(bytes.subarray(start * sector, end * sector), partition.ext4))
    start = end
  })
  const last = BigInt(sectors - 1)
  const backupEntries = last - BigInt(tableSectors)
  // The protective MBR: one partition of type 0xee over everything.
  bytes.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446)
  bytes.writeUInt32LE(1, 454)
  bytes.writeUInt32LE(sectors - 1, 458)
  bytes.writeUInt16LE(0xaa55, 510)
  entries.copy(bytes, 2 * sector)
  entries.copy(bytes, Number(backupEntries) * sector)
  header(1n, last, 2n, entries, BigInt(tableSectors), last).copy(bytes, sector)
  header(last, 1n, backupEntries, entries, BigInt(tableSectors), last).copy(bytes, Number(last) * sector)
  return { bytes, sectorBytes: sector, partitions, volumes }
}

/**
 * `vda` has `vda1`, `nvme0n1` has `nvme0n1p1`.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * TestDisks.deviceName("nvme0n1", 1) // "nvme0n1p1"
 * ```
 */
export const deviceName = (disk: string, partition: number): string =>
  partition === 0 ? disk : `${disk}${/\d$/u.test(disk) ? "p" : ""}${partition}`

/**
 * The bytes that a device node shows: the disk's, or its partition's part of them.
 *
 * @example
 * ```ts
 * import * as TestDisks from "@kios/core/testing/TestDisks"
 *
 * TestDisks.contentOf(TestDisks.blank(4096), 0).length // 4096
 * ```
 */
export const contentOf = (disk: TestDisk, partition: number): Uint8Array => {
  const range = disk.partitions.get(partition)
  return range === undefined ? disk.bytes : disk.bytes.subarray(range.start, range.end)
}
