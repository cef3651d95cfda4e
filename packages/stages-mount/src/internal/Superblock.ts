/**
 * What is on a device, by its first bytes: an ext4 superblock with all that
 * says whether it can be mounted, or the name of what else is there.
 *
 * Documentation/filesystems/ext4/super.rst; for the others their magic numbers
 * in libblkid(3).
 */
import * as Effect from "effect/Effect"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"

/** The fields of an ext4 superblock that matter before a mount. */
export interface Ext4 {
  /** Lower case. */
  readonly uuid: string
  readonly label: string
  /** Cleanly unmounted, or covered by its journal. */
  readonly valid: boolean
  /** The kernel has met errors in it that nobody has repaired. */
  readonly hasErrors: boolean
  readonly errors: { readonly count: number; readonly function: string; readonly seconds: number }
  readonly hasJournal: boolean
  /** The journal has what the filesystem lacks: the power was cut, or it is mounted. */
  readonly needsReplay: boolean
  readonly blockBytes: number
  readonly blocks: number
  readonly firstBlock: number
  readonly blocksPerGroup: number
  /** An upper bound of the blocks of a group that hold no files. */
  readonly groupOverhead: number
  /** Bit sets of features: who lacks one of the first kind must not mount it, of the second kind not for writing. */
  readonly incompatible: number
  readonly readOnlyCompatible: number
}

/** What a device holds. */
export type Content =
  | { readonly _tag: "Ext4"; readonly ext4: Ext4 }
  | { readonly _tag: "Other"; readonly name: string }

const VALID = 1
const ERRORS = 2
const JOURNAL = 0x4
const REPLAY = 0x4
const JOURNAL_DEVICE = 0x8
const BITS64 = 0x80
const READ_ONLY = 0x1000
const SUPERBLOCK_BYTES = 1024

/** Reads the 1024 bytes at offset 1024; undefined when they are no superblock of the family of ext. */
export const parseExt4 = (bytes: Uint8Array): Ext4 | undefined => {
  if (bytes.length < SUPERBLOCK_BYTES) return undefined
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, SUPERBLOCK_BYTES)
  if (view.readUInt16LE(0x38) !== 0xef53) return undefined
  const text = (at: number, length: number) =>
    view
      .toString("utf8", at, at + length)
      .split("\0")[0]
      ?.replaceAll(/[^\x20-\x7e\u00a0-\uffff]/gu, "?") ?? ""
  const dynamic = view.readUInt32LE(0x4c) > 0
  const features = (at: number) => (dynamic ? view.readUInt32LE(at) : 0)
  const state = view.readUInt16LE(0x3a)
  const incompatible = features(0x60)
  const wide = (incompatible & BITS64) !== 0
  // The kernel takes up to 64 KiB; more than that is damage, which is for the kernel to tell.
  const blockBytes = 1024 * 2 ** Math.min(view.readUInt32LE(0x18), 6)
  const blocks = view.readUInt32LE(0x4) + (wide ? view.readUInt32LE(0x150) * 2 ** 32 : 0)
  const blocksPerGroup = view.readUInt32LE(0x20)
  const groups = blocksPerGroup === 0 ? 0 : Math.ceil(blocks / blocksPerGroup)
  const inodeBytes = dynamic ? view.readUInt16LE(0x58) : 128
  const descriptorBytes = wide ? Math.max(32, view.readUInt16LE(0xfe)) : 32
  return {
    uuid: view.toString("hex", 0x68, 0x78).replace(/^(.{8})(.{4})(.{4})(.{4})/u, "$1-$2-$3-$4-"),
    label: text(0x78, 16),
    valid: (state & VALID) !== 0,
    hasErrors: (state & ERRORS) !== 0,
    errors: { count: view.readUInt32LE(0x194), function: text(0x1e0, 32), seconds: view.readUInt32LE(0x1cc) },
    hasJournal: (features(0x5c) & JOURNAL) !== 0,
    needsReplay: (incompatible & REPLAY) !== 0,
    blockBytes,
    blocks,
    firstBlock: view.readUInt32LE(0x14),
    blocksPerGroup,
    groupOverhead:
      3 +
      Math.ceil((view.readUInt32LE(0x28) * inodeBytes) / blockBytes) +
      Math.ceil((groups * descriptorBytes) / blockBytes) +
      view.readUInt16LE(0xce),
    incompatible,
    readOnlyCompatible: features(0x64),
  }
}

// Magic numbers: offset, bytes, name.
const magics: ReadonlyArray<readonly [offset: number, magic: string, name: string]> = [
  [0, "XFSB", "an XFS filesystem"],
  [0, "LUKS\xba\xbe", "an encrypted LUKS volume"],
  [0, "hsqs", "a squashfs filesystem"],
  [3, "NTFS    ", "an NTFS filesystem"],
  [3, "EXFAT   ", "an exFAT filesystem"],
  [54, "FAT1", "a FAT filesystem"],
  [82, "FAT32", "a FAT filesystem"],
  [512, "LABELONE", "an LVM physical volume"],
  [512, "EFI PART", "a partition table (name one of its partitions)"],
  [1024, "\x10\x20\xf5\xf2", "an F2FS filesystem"],
  [1024, "\xe2\xe1\xf5\xe0", "an EROFS filesystem"],
  [4086, "SWAPSPACE2", "swap space"],
  [4096, "\xfc\x4e\x2b\xa9", "a member of a Linux RAID"],
  [4096, "\xc6\x85\x73\xf6", "a bcachefs filesystem"],
  [65_600, "_BHRfS_M", "a Btrfs filesystem"],
]
const HEAD_BYTES = 4096 + 64
const BTRFS_AT = 65_536

/** What a device holds. Reads at most some KiB of it. */
export const identify = Effect.fnUntraced(function* (
  device: string,
): Effect.fn.Return<Content, KernelError, Kernel> {
  const kernel = yield* Kernel
  const head = Buffer.from(yield* kernel.readAt(device, 0, HEAD_BYTES))
  const ext4 = parseExt4(head.subarray(1024))
  if (ext4 !== undefined) return { _tag: "Ext4", ext4 }
  const tail = Buffer.from(yield* kernel.readAt(device, BTRFS_AT, 128))
  const found = magics.find(([offset, magic]) => {
    const [from, at] = offset >= BTRFS_AT ? [tail, offset - BTRFS_AT] : [head, offset]
    return from.toString("latin1", at, at + magic.length) === magic
  })
  const blank = head.every((byte) => byte === 0)
  return {
    _tag: "Other",
    name: found?.[2] ?? (blank ? "nothing (it begins with zeros)" : "nothing that kiOS knows"),
  }
})

const repair = (device: string) => `check it with \`e2fsck -f ${device}\` from another system`

/** Why a filesystem must not be mounted for writing; undefined: nothing is against it. */
export const objection = (device: string, ext4: Ext4): string | undefined => {
  const { errors } = ext4
  if ((ext4.incompatible & JOURNAL_DEVICE) !== 0) return "it is the journal of another ext4 filesystem"
  if (ext4.hasErrors) {
    const last =
      errors.count === 0
        ? ""
        : `: ${errors.count}, the last in ${errors.function} at ${new Date(errors.seconds * 1000).toISOString()}`
    return `the filesystem needs repair, the kernel has met errors in it${last}; ${repair(device)}`
  }
  if (!ext4.valid)
    return `the filesystem needs repair, it was neither unmounted nor checked to the end; ${repair(device)}`
  if ((ext4.readOnlyCompatible & READ_ONLY) !== 0)
    return "the filesystem is marked as read-only (tune2fs -O ^read-only makes it writable)"
  return undefined
}

// What Linux 6.12 knows (fs/ext4/ext4.h), without what it may be built without: encrypt 0x10000, casefold 0x20000.
const KNOWN_INCOMPATIBLE = 0xe7d6
const KNOWN_READ_ONLY = 0x1b77f

/** What the kernel means when it refuses to mount an ext4 filesystem, as far as its superblock tells. */
export const explain = (
  device: string,
  ext4: Ext4,
  deviceBytes: number | undefined,
  errno: string,
): string | undefined => {
  const hex = (bits: number) => `0x${(bits >>> 0).toString(16)}`
  const unknown = ext4.incompatible & ~KNOWN_INCOMPATIBLE
  const unknownReadOnly = ext4.readOnlyCompatible & ~KNOWN_READ_ONLY
  if (errno === "EINVAL" && deviceBytes !== undefined && ext4.blocks * ext4.blockBytes > deviceBytes)
    return `the filesystem has ${ext4.blocks * ext4.blockBytes} bytes and its device ${deviceBytes}: the device was made smaller`
  if (errno === "EINVAL" && (unknown !== 0 || unknownReadOnly !== 0))
    return `the filesystem has features that this kernel may lack: incompat ${hex(unknown)}, ro_compat ${hex(unknownReadOnly)}`
  if (["EUCLEAN", "EBADMSG", "EINVAL", "EIO"].includes(errno))
    return `the filesystem is damaged or its disk fails; ${repair(device)}`
  return undefined
}

/** As many blocks as a device of that size holds for a filesystem. */
export const blocksOn = (ext4: Ext4, deviceBytes: number): number => {
  const blocks = Math.floor(deviceBytes / ext4.blockBytes)
  if (ext4.blocksPerGroup === 0) return blocks
  // As mke2fs(8) and resize2fs(8) do: a last group that is hardly larger than what it needs for itself is left out.
  const rest = (blocks - ext4.firstBlock) % ext4.blocksPerGroup
  return rest > 0 && rest < ext4.groupOverhead + 50 ? blocks - rest : blocks
}
