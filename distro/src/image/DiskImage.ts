/**
 * A disk image: GPT, an EFI system partition with the UKI where firmware
 * looks for it, and a data partition. Made without root and without loop
 * devices; the file is sparse.
 *
 * Needs programs of the build machine: `sfdisk` (Debian package fdisk),
 * `mformat`, `mmd`, `mcopy` (mtools), `mke2fs`, `debugfs` (e2fsprogs), and
 * `qemu-img` (qemu-utils) for qcow2.
 *
 * Source: UEFI specification, chapters 5 (GPT) and 13.3 (FAT, the default
 * path of removable media).
 *
 * @module
 */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { DiskImageError, type ImageError } from "./ImageError.ts"
import { ensureInstalled, HostTools, type Tool } from "./HostTools.ts"
import { WIDE_CLUSTERS_MIB, writeEsp } from "./internal/Esp.ts"
import { type Ext4Entry, makeExt4 } from "./internal/Ext4.ts"
import { type Gpt, readGpt, SECTOR } from "./internal/Gpt.ts"
import { contentSize, digest, readAt } from "./internal/InputFile.ts"
import { attempt, io, partialName } from "./internal/OutputFile.ts"
import { normalisePath } from "./internal/Tree.ts"
import { derivedUuid } from "./internal/Uuid.ts"
import * as PortableExecutable from "./PortableExecutable.ts"
import { DATA_DIRECTORIES, DATA_TYPE, ESP_TYPE } from "./internal/Partitions.ts"

export { DATA_DIRECTORIES, DATA_TYPE, ESP_TYPE } from "./internal/Partitions.ts"

/**
 * What is on the data partition: a file with these bytes or with the content of
 * a file of the build machine, a directory, or a symbolic link. `mode` is 0644
 * for a file and 0755 for a directory unless given, and a link has none; the
 * owner is root; missing parent directories are made with mode 0755.
 */
export type DataFile = { readonly path: string; readonly mode?: number } & (
  | { readonly bytes: Uint8Array }
  | { readonly sourcePath: string }
  | { readonly directory: true }
  | { readonly symlink: string }
)

/**
 * The EFI system partition. `sizeMiB` is by default 264 or what the UKI needs
 * and 32 more: from 264 MiB on, clusters have 4 KiB, and firmware reads a big
 * file in far fewer steps.
 */
export interface EspOptions {
  readonly efi: string
  /** A file of `Uki.buildAddon`: more words for the kernel command line. */
  readonly addon?: string
  readonly sizeMiB?: number
  readonly uuid?: string
}

/**
 * The data partition (ext4). `sizeMiB` is 512 unless given, at least 16.
 */
export interface DataOptions {
  readonly files?: ReadonlyArray<DataFile>
  readonly sizeMiB?: number
  readonly uuid?: string
  readonly filesystemUuid?: string
}

/**
 * What to write. At least one of `esp` and `data`.
 *
 * UUIDs that are not given are derived from `label` (default "kios"), so that
 * the same options give the same bytes; give other ones when two such disks
 * meet in one machine. `format` is raw unless given: a sparse file, for `dd`;
 * qcow2 is what clouds and QEMU take. `sourceDateEpoch` (seconds since 1970, default 1) is
 * the time of everything in the file systems; FAT cannot go below 1980.
 */
export interface WriteOptions {
  readonly output: string
  readonly format?: "raw" | "qcow2"
  readonly label?: string
  readonly diskUuid?: string
  readonly sourceDateEpoch?: number
  readonly esp?: EspOptions
  readonly data?: DataOptions
}

/**
 * A partition: `start` and `size` in bytes.
 */
export interface Partition {
  readonly number: number
  readonly type: string
  readonly uuid: string
  readonly name: string
  readonly start: number
  readonly size: number
}

/**
 * A disk image: `bytes` is the size of the disk, `allocatedBytes` what the
 * file takes on the build machine: it is sparse, or qcow2.
 */
export interface Info {
  readonly bytes: number
  readonly allocatedBytes: number
  readonly uuid: string
  readonly partitions: ReadonlyArray<Partition>
}

const MIB = 2 ** 20
const EPOCH_1980 = 315_532_800

const invalid = (path: string, detail: string) =>
  new DiskImageError({ reason: "InvalidOption", path, detail })

interface Slot {
  readonly type: string
  readonly name: string
  readonly uuid: string
  readonly start: number
  readonly size: number
}

interface Layout {
  readonly uuid: string
  readonly total: number
  readonly time: number
  readonly esp:
    | (Slot & { readonly efi: string; readonly boot: string; readonly addon: string | undefined })
    | undefined
  readonly data: (Slot & { readonly files: ReadonlyArray<DataFile>; readonly fsUuid: string }) | undefined
}

const layoutOf = (options: WriteOptions): Effect.Effect<Layout, ImageError> =>
  Effect.gen(function* () {
    const { output } = options
    const label = options.label ?? "kios"
    if (!/^[a-z0-9][a-z0-9-]{0,9}$/u.test(label)) {
      return yield* invalid(output, `label "${label}" is not 1 to 10 of a-z, 0-9 and -`)
    }
    if (options.esp === undefined && options.data === undefined) {
      const detail = "neither an ESP nor a data partition was asked for"
      return yield* new DiskImageError({ reason: "NoPartitions", path: output, detail })
    }
    const time = options.sourceDateEpoch ?? 1
    if (!Number.isInteger(time) || time < 1 || time >= 2 ** 32) {
      return yield* invalid(
        output,
        `sourceDateEpoch ${time} is not a whole number of seconds from 1 to 2^32 - 1`,
      )
    }
    const uuid = (given: string | undefined, role: string): Effect.Effect<string, DiskImageError> => {
      if (given === undefined) return Effect.succeed(derivedUuid(`kios disk image\n${label}\n${role}`))
      return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/iu.test(given)
        ? Effect.succeed(given.toLowerCase())
        : Effect.fail(invalid(output, `${role}: "${given}" is not a UUID`))
    }
    const sizeOf = (
      role: string,
      sizeMiB: number,
      min: number,
      max: number,
    ): Effect.Effect<number, DiskImageError> =>
      Number.isInteger(sizeMiB) && sizeMiB >= min && sizeMiB <= max
        ? Effect.succeed(sizeMiB * MIB)
        : Effect.fail(
            invalid(output, `${role}: size ${sizeMiB} MiB is not a whole number from ${min} to ${max}`),
          )
    let end = MIB
    let esp: Layout["esp"]
    let data: Layout["data"]
    if (options.esp !== undefined) {
      const { efi } = options.esp
      const { bytes, machine } = yield* PortableExecutable.inspect(efi)
      const fitting = Math.max(WIDE_CLUSTERS_MIB, Math.ceil(bytes / MIB) + 32)
      // 36 MiB: fewer than 65525 clusters would make it FAT16 to firmware.
      const size = yield* sizeOf("ESP", options.esp.sizeMiB ?? fitting, 36, 65_536)
      if (bytes > size - 4 * MIB) {
        const detail = `${efi} (${bytes} bytes) does not fit into an ESP of ${size / MIB} MiB; it needs ${Math.ceil(bytes / MIB) + 4}`
        return yield* new DiskImageError({ reason: "TooSmall", path: output, detail })
      }
      const boot = { x64: "BOOTX64.EFI", arm64: "BOOTAA64.EFI" }[machine]
      esp = {
        type: ESP_TYPE,
        name: `${label}-esp`,
        uuid: yield* uuid(options.esp.uuid, "ESP"),
        start: end,
        size,
        efi,
        boot,
        addon: options.esp.addon,
      }
      end += size
    }
    if (options.data !== undefined) {
      const size = yield* sizeOf("data partition", options.data.sizeMiB ?? 512, 16, 16_777_216)
      data = {
        type: DATA_TYPE,
        name: `${label}-data`,
        uuid: yield* uuid(options.data.uuid, "data partition"),
        fsUuid: yield* uuid(options.data.filesystemUuid, "data file system"),
        start: end,
        size,
        files: options.data.files ?? [],
      }
      end += size
    }
    return { uuid: yield* uuid(options.diskUuid, "disk"), total: end + MIB, time, esp, data }
  })

/**
 * Writes a disk image. Same options and same programs, same bytes.
 *
 * Fails with {@link DiskImageError} `NoPartitions`, `InvalidOption`,
 * `TooSmall` (with the size that would do), `DuplicatePath`; with
 * `MissingTool`, before any work, when a program is not installed; with
 * `PortableExecutableError` when `esp.efi` is no EFI program; with
 * `ToolFailed` and `ImageFileError`.
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 *
 * const program = DiskImage.write({
 *   output: "kios.img",
 *   esp: { efi: "kios.efi" },
 *   data: { sizeMiB: 1024, files: [{ path: "meta/etc/hostname", bytes: Buffer.from("node-1\n") }] },
 * })
 * ```
 */
export const write = (options: WriteOptions): Effect.Effect<Info, ImageError> =>
  Effect.gen(function* () {
    const needed: Array<Tool> = ["sfdisk"]
    if (options.format === "qcow2") needed.push("qemu-img")
    if (options.esp !== undefined) needed.push("mformat", "mmd", "mcopy")
    if (options.data !== undefined) needed.push("mke2fs", "debugfs")
    const layout = yield* layoutOf(options)
    yield* ensureInstalled(needed)
    const output = path.resolve(options.output)
    return yield* Effect.acquireUseRelease(
      attempt("create a working directory for", output, async () => {
        const work = partialName(output)
        await io("create", work, () => fs.mkdir(work, { recursive: true }))
        return work
      }),
      (work) => assemble(work, output, layout, options.format ?? "raw"),
      (work) => Effect.promise(() => fs.rm(work, { recursive: true, force: true }).catch(() => {})),
    )
  })

// The programs get a name without `@@`, `?` or a comma, which they interpret.
const IMAGE = "disk.img"
const QCOW2 = "disk.qcow2"

const assemble = (
  work: string,
  output: string,
  layout: Layout,
  format: "raw" | "qcow2",
): Effect.Effect<Info, ImageError> =>
  Effect.gen(function* () {
    const tools = yield* HostTools
    const file = path.join(work, IMAGE)
    yield* attempt("create", file, async () => {
      await io("create", file, () => fs.writeFile(file, ""))
      await io("set the size of", file, () => fs.truncate(file, layout.total))
    })
    const slots = [layout.esp, layout.data].filter((slot) => slot !== undefined)
    const script = [
      "label: gpt",
      `label-id: ${layout.uuid}`,
      "unit: sectors",
      ...slots.map(
        (s) =>
          `start=${s.start / SECTOR}, size=${s.size / SECTOR}, type=${s.type}, uuid=${s.uuid}, name="${s.name}"`,
      ),
    ]
    yield* tools.run({
      tool: "sfdisk",
      cwd: work,
      args: ["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", IMAGE],
      stdin: `${script.join("\n")}\n`,
    })
    if (layout.esp !== undefined) {
      yield* writeEsp({ ...layout.esp, work, image: IMAGE, time: Math.max(layout.time, EPOCH_1980) })
    }
    if (layout.data !== undefined) {
      yield* makeExt4({
        work,
        image: IMAGE,
        output,
        offset: layout.data.start,
        size: layout.data.size,
        uuid: layout.data.fsUuid,
        label: layout.data.name,
        time: layout.time,
        entries: entriesOf(layout.data.files),
      })
    }
    const info = yield* inspect(file)
    if (format === "raw") {
      yield* attempt("rename the finished image to", output, () => fs.rename(file, output))
      return info
    }
    // One writer, in order: the same input gives the same bytes.
    yield* tools.run({
      tool: "qemu-img",
      cwd: work,
      args: ["convert", "-f", "raw", "-O", "qcow2", "-m", "1", IMAGE, QCOW2],
    })
    const qcow2 = path.join(work, QCOW2)
    return yield* attempt("rename the finished image to", output, async () => {
      const { blocks } = await fs.stat(qcow2)
      await fs.rename(qcow2, output)
      return { ...info, allocatedBytes: blocks * 512 }
    })
  })

const entryOf = (file: DataFile): Ext4Entry => {
  if ("directory" in file) return { _tag: "Directory", path: file.path, mode: file.mode ?? 0o755 }
  if ("symlink" in file) return { _tag: "Symlink", path: file.path, target: file.symlink }
  const content = "bytes" in file ? { bytes: file.bytes } : { path: file.sourcePath }
  return { _tag: "File", path: file.path, mode: file.mode ?? 0o644, content }
}

/** The directories of the contract, unless the list has them itself. */
const entriesOf = (files: ReadonlyArray<DataFile>): ReadonlyArray<Ext4Entry> => {
  const given = files.map(entryOf)
  const own = new Set(
    given.flatMap((entry) => (entry._tag === "Directory" ? [normalisePath(entry.path) ?? ""] : [])),
  )
  return [
    ...DATA_DIRECTORIES.filter((at) => !own.has(at)).map((at): Ext4Entry => ({
      _tag: "Directory",
      path: at,
      mode: 0o755,
    })),
    ...given,
  ]
}

/**
 * Reads a disk image's GPT, the primary and the backup, and verifies both.
 *
 * Fails with {@link DiskImageError} `NotGpt` (no table) or `CorruptGpt` (a
 * checksum, a partition that ends outside, a backup that differs).
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 * import { Effect } from "effect"
 *
 * const partitions = Effect.map(DiskImage.inspect("kios.img"), (info) => info.partitions)
 * ```
 */
export const inspect = (file: string): Effect.Effect<Info, ImageError> =>
  attempt("read", file, async () => {
    const fail = (reason: DiskImageError["reason"], detail: string): never => {
      throw new DiskImageError({ reason, path: file, detail })
    }
    const bytes = (await contentSize({ path: file })) ?? fail("NotGpt", "it is not a regular file")
    const stat = await io("read", file, () => fs.stat(file))
    const table = async (lba: number): Promise<Gpt> => {
      const found = await readGpt((offset, length) => readAt(file, offset, length), lba)
      if ("partitions" in found) return found
      return fail(found.absent && lba === 1 ? "NotGpt" : "CorruptGpt", found.detail)
    }
    const primary = await table(1)
    const backup = await table(Math.floor(bytes / SECTOR) - 1)
    if (JSON.stringify(primary) !== JSON.stringify(backup)) {
      fail("CorruptGpt", "the primary and the backup partition table differ")
    }
    for (const { name, size, start } of primary.partitions) {
      if (start < SECTOR || size <= 0 || start + size > bytes) {
        fail(
          "CorruptGpt",
          `partition ${name} (${start} to ${start + size}) is outside of the disk (${bytes} bytes)`,
        )
      }
    }
    return { bytes, allocatedBytes: stat.blocks * 512, uuid: primary.uuid, partitions: primary.partitions }
  })

/**
 * Size in bytes and SHA-256 (hexadecimal) of a file, such as a disk image.
 *
 * @example
 * ```ts
 * import * as DiskImage from "@kios/distro/image/DiskImage"
 * import { Effect } from "effect"
 *
 * const line = Effect.map(DiskImage.sha256("kios.img"), ({ sha256 }) => `${sha256}  kios.img`)
 * ```
 */
export const sha256 = (
  file: string,
): Effect.Effect<{ readonly bytes: number; readonly sha256: string }, ImageError> =>
  attempt("read", file, (signal) => digest(file, {}, signal))
