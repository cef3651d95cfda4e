/**
 * The block device operations of the in-memory door: partitions that the
 * kernel is told of, and a mounted ext4 that grows.
 */
import type { KernelShape, PartitionExtent } from "../Kernel.ts"
import { contentOf, type TestDisk } from "./TestDisks.ts"
import { type Operate, opening, quote } from "./TestFileOperations.ts"
import { type BlockDevice, refuse, SpecialFile } from "./TestFiles.ts"
import type { MountTable } from "./TestMounts.ts"

type BlockOperation = "addPartition" | "resizePartition" | "resizeFilesystem"

// Documentation/filesystems/ext4/super.rst
const SUPERBLOCK = 1024
const BLOCKS_LO = 0x4
const LOG_BLOCK_SIZE = 0x18
const STATE = 0x3a
const HAS_ERRORS = 2
const BLOCKS_HI = 0x150

/** Makes the operations. */
export const make = (
  operate: Operate,
  table: MountTable,
  added: (device: BlockDevice, number: number) => void,
): Pick<KernelShape, BlockOperation> => {
  /** What BLKPG (block/ioctl.c) checks of each of its requests. */
  const open = (path: string, { length, number, start }: PartitionExtent): BlockDevice => {
    const { inode } = opening(() => table.find(path))
    if (!(inode instanceof SpecialFile) || inode.device === undefined) return refuse("ENOTTY")
    const { device } = inode
    if (device.partition !== 0 || number <= 0 || start < 0 || length <= 0) return refuse("EINVAL")
    if (start % device.disk.sectorBytes !== 0 || length % device.disk.sectorBytes !== 0)
      return refuse("EINVAL")
    return device
  }
  const overlaps = (disk: TestDisk, { length, start }: PartitionExtent, but: number): boolean =>
    [...disk.partitions].some(
      ([number, range]) => number !== but && range.start < start + length && start < range.end,
    )
  const about = (path: string, request: string, { length, number, start }: PartitionExtent) => ({
    path,
    args: { request, number, start, length },
  })
  const line = (path: string, request: string, { length, number, start }: PartitionExtent) =>
    `ioctl(${quote(path)}, ${request}, ${number}, ${start}, ${length})`

  return {
    addPartition: (path, extent) =>
      operate(
        "addPartition",
        "ioctl",
        line(path, "BLKPG_ADD_PARTITION", extent),
        about(path, "BLKPG_ADD_PARTITION", extent),
        () => {
          const device = open(path, extent)
          const { bytes, partitions } = device.disk
          if (extent.start + extent.length > bytes.length) return refuse("EINVAL")
          if (partitions.has(extent.number) || overlaps(device.disk, extent, 0)) return refuse("EBUSY")
          partitions.set(extent.number, { start: extent.start, end: extent.start + extent.length })
          added(device, extent.number)
        },
      ),
    resizePartition: (path, extent) =>
      operate(
        "resizePartition",
        "ioctl",
        line(path, "BLKPG_RESIZE_PARTITION", extent),
        about(path, "BLKPG_RESIZE_PARTITION", extent),
        () => {
          const { disk } = open(path, extent)
          const found = disk.partitions.get(extent.number) ?? refuse("ENXIO")
          if (found.start !== extent.start) return refuse("EINVAL")
          if (overlaps(disk, extent, extent.number)) return refuse("EBUSY")
          disk.partitions.set(extent.number, { start: extent.start, end: extent.start + extent.length })
        },
      ),
    resizeFilesystem: (target, blocks) =>
      operate(
        "resizeFilesystem",
        "ioctl",
        `ioctl(${quote(target)}, EXT4_IOC_RESIZE_FS, ${blocks})`,
        { path: target, args: { request: "EXT4_IOC_RESIZE_FS", blocks } },
        () => {
          const location = opening(() => table.find(target))
          const { device, type } = location.mount.filesystem
          if (type !== "ext4" || device === undefined) return refuse("ENOTTY")
          const bytes = contentOf(device.disk, device.partition)
          const superblock = Buffer.from(bytes.buffer, bytes.byteOffset + SUPERBLOCK, 1024)
          if ((superblock.readUInt16LE(STATE) & HAS_ERRORS) !== 0) return refuse("EPERM")
          table.assertWritable(location)
          const now = superblock.readUInt32LE(BLOCKS_LO) + superblock.readUInt32LE(BLOCKS_HI) * 2 ** 32
          if (blocks * (1024 << superblock.readUInt32LE(LOG_BLOCK_SIZE)) > bytes.length)
            return refuse("ENOSPC")
          if (blocks < now) return refuse("EINVAL")
          superblock.writeUInt32LE(blocks % 2 ** 32, BLOCKS_LO)
          superblock.writeUInt32LE(Math.floor(blocks / 2 ** 32), BLOCKS_HI)
        },
      ),
  }
}
