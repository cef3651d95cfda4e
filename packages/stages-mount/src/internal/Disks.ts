/**
 * The machine's disks as sysfs has them, and their partition tables.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import * as Gpt from "../Gpt.ts"

/** A whole disk. */
export interface Disk {
  /** `vda` */
  readonly name: string
  /** `/dev/vda` */
  readonly device: string
  readonly sectorBytes: number
  readonly sectors: number
  /** A memory stick, a card. */
  readonly removable: boolean
}

/** A partition table that was read, with the bytes that it was read from. */
export interface Table {
  readonly header: Gpt.GptHeader
  /** The header's sector. */
  readonly block: Uint8Array
  readonly entries: Uint8Array
  /** Those that can be believed. */
  readonly partitions: ReadonlyArray<Gpt.GptPartition>
  /** What is wrong with the others. */
  readonly problems: ReadonlyArray<string>
  /** Why this is the backup and not the primary table; undefined when it is the primary. */
  readonly primaryProblem: string | undefined
}

// Memory, loop, optical and floppy devices, and what is made of other disks, hold no data partition unless they are named.
const isDisk = (name: string): boolean =>
  !/^(loop|ram|zram|sr|fd|dm-|md|nbd|mtdblock)|boot\d$|rpmb$/u.test(name)

/** Names of the disks. */
export const names: Effect.Effect<ReadonlyArray<string>, KernelError, Kernel> = Kernel.use((kernel) =>
  Effect.map(kernel.readDirectory("/sys/block"), (all) => all.filter(isDisk)),
)

const numberIn = Effect.fnUntraced(function* (path: string) {
  const kernel = yield* Kernel
  return Number.parseInt(yield* kernel.readText(path), 10)
})

/** A number that is a fact of every device; undefined when it cannot be read. */
export const sizeInSysfs = (path: string): Effect.Effect<number | undefined, never, Kernel> =>
  numberIn(path).pipe(
    // Always in units of 512 bytes, whatever the sector is.
    Effect.map((units) => units * 512),
    Effect.catch(() => Effect.succeed(undefined)),
  )

/** Reads what sysfs says of a disk. */
export const describe = Effect.fnUntraced(function* (
  name: string,
): Effect.fn.Return<Disk, KernelError, Kernel> {
  const sectorBytes = yield* numberIn(`/sys/block/${name}/queue/logical_block_size`)
  const bytes = (yield* numberIn(`/sys/block/${name}/size`)) * 512
  const removable = yield* Effect.catch(numberIn(`/sys/block/${name}/removable`), () => Effect.succeed(0))
  return {
    name,
    device: `/dev/${name}`,
    sectorBytes,
    sectors: sectorBytes > 0 ? Math.floor(bytes / sectorBytes) : 0,
    removable: removable === 1,
  }
})

/** `vda` has `vda1`, `nvme0n1` has `nvme0n1p1`. */
export const partitionName = (disk: string, number: number): string =>
  `${disk}${/\d$/u.test(disk) ? "p" : ""}${number}`

/** The disk and number of a partition's device, by sysfs; undefined when it is none (a whole disk, say). */
export const diskOf = Effect.fnUntraced(function* (device: string) {
  const kernel = yield* Kernel
  const name = device.slice("/dev/".length)
  const [, disk, digits] = /^(.*\d)p(\d+)$/u.exec(name) ?? /^(.*\D)(\d+)$/u.exec(name) ?? []
  if (disk === undefined || digits === undefined) return undefined
  const found = yield* kernel.stat(`/sys/block/${disk}/${name}`)
  return found === undefined ? undefined : { disk, name, number: Number(digits) }
})

/** A primary table that is not there, and a backup that may be what an older use of the disk has left. */
const staleReason = (first: Buffer): string | undefined => {
  if (first.readUInt16LE(510) === 0xaa55) {
    const types = [0, 1, 2, 3].map((slot) => first.readUInt8(446 + slot * 16 + 4))
    return types.includes(0xee)
      ? undefined
      : "its first sector is not that of a disk with a GUID partition table"
  }
  return first.subarray(0, 512).every((byte) => byte === 0)
    ? undefined
    : "its first sector holds something else"
}

/** Reads the table whose header is in one sector. */
const tableAt = Effect.fnUntraced(function* (disk: Disk, lba: bigint) {
  const kernel = yield* Kernel
  const read = (from: bigint, length: number) =>
    kernel.readAt(disk.device, Number(from) * disk.sectorBytes, length)
  const block = yield* read(lba, disk.sectorBytes)
  const header = Gpt.parseHeader(block, lba, BigInt(disk.sectors - 1))
  if (Result.isFailure(header)) return { alternate: undefined, table: Result.fail(header.failure) }
  const { backupLba, entriesLba, entryBytes, entryCount } = header.success
  const entries = yield* read(entriesLba, entryBytes * entryCount)
  const table = Result.map(Gpt.parseEntries(header.success, entries), (partitions) => ({
    header: header.success,
    block,
    entries,
    ...Gpt.believable(header.success, partitions),
  }))
  return { alternate: backupLba, table }
})

/** Whether the backup of a primary table is where its header says, and says the same. */
export const backupIsWhole = Effect.fnUntraced(function* (
  disk: Disk,
  { header }: Table,
): Effect.fn.Return<boolean, KernelError, Kernel> {
  const { backupLba } = header
  if (backupLba <= 1n || backupLba >= BigInt(disk.sectors)) return false
  const { table } = yield* tableAt(disk, backupLba)
  return Result.isSuccess(table) && table.success.header.entriesCrc === header.entriesCrc
})

/**
 * Reads a disk's table: the primary or, if that is damaged, the backup. Fails
 * with a sentence; `damaged` says that there is something which looks like one.
 */
export const readTable = Effect.fnUntraced(function* (
  disk: Disk,
): Effect.fn.Return<
  Result.Result<Table, { readonly reason: string; readonly damaged: boolean }>,
  KernelError,
  Kernel
> {
  const kernel = yield* Kernel
  const { sectorBytes, sectors } = disk
  const none = (reason: string, damaged = false) => Result.fail({ reason, damaged })
  if (sectors < 3 || sectorBytes < 512) return none("the disk is too small for a partition table")
  const last = BigInt(sectors - 1)
  const primary = yield* tableAt(disk, 1n)
  if (Result.isSuccess(primary.table))
    return Result.succeed({ ...primary.table.success, primaryProblem: undefined })
  const reason = primary.table.failure
  const places = new Set([...(primary.alternate === undefined ? [] : [primary.alternate]), last])
  let second = ""
  for (const lba of places) {
    if (lba <= 1n || lba > last) continue
    const backup = yield* tableAt(disk, lba)
    if (Result.isFailure(backup.table)) {
      second = backup.table.failure
      continue
    }
    const stale = staleReason(Buffer.from(yield* kernel.readAt(disk.device, 0, 512)))
    if (stale !== undefined) return none(`its backup partition table is not used, because ${stale}`, true)
    return Result.succeed({ ...backup.table.success, primaryProblem: reason })
  }
  const absent = reason === Gpt.NO_SIGNATURE && (second === Gpt.NO_SIGNATURE || second === "")
  return none(`primary partition table: ${reason}; backup: ${second}`, !absent)
})

/** Where a partition is, for the kernel. */
export const extentOf = (disk: Disk, { firstLba, lastLba, number }: Gpt.GptPartition) => ({
  number,
  start: Number(firstLba) * disk.sectorBytes,
  length: Number(lastLba - firstLba + 1n) * disk.sectorBytes,
})

/**
 * Sees to it that the kernel has a partition of a table that was read here: it
 * does not look at a backup table by itself. One that it has is left as it is.
 */
export const ensurePartition = Effect.fnUntraced(function* (
  disk: Disk,
  partition: Gpt.GptPartition,
): Effect.fn.Return<void, KernelError, Kernel> {
  const kernel = yield* Kernel
  const name = partitionName(disk.name, partition.number)
  if ((yield* kernel.stat(`/sys/block/${disk.name}/${name}`)) !== undefined) return
  yield* kernel.addPartition(disk.device, extentOf(disk, partition)).pipe(
    Effect.andThen(Effect.logInfo(`/dev/${name}: given to the kernel, which did not have it`)),
    // It has read the table meanwhile.
    Effect.catchIf(
      (error) => error.errno === "EBUSY",
      () => Effect.void,
    ),
  )
})
