/**
 * `kios image`: a disk that boots, as a file.
 */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { components } from "../components/catalog.ts"
import { ComponentStore } from "../components/ComponentStore.ts"
import { filePath } from "../components/Resolved.ts"
import * as DiskImage from "../image/DiskImage.ts"
import * as Uki from "../image/Uki.ts"
import { BadInput } from "./BadInput.ts"
import { buildReference, defaultEfi, json } from "./BuildCommand.ts"
import * as ImageOptions from "./ImageOptions.ts"
import { megabytes, Output, table } from "./Output.ts"
import { lintManifest, readable } from "./RunCommand.ts"
import { parsed } from "./RunOptions.ts"

const DEFAULT_SIZE_MIB = 2048

const MIB = 2 ** 20
// 1 MiB before the first partition, and 1 MiB for the backup table at the end.
const TABLES_MIB = 2
// Two versions and a third that is being written: what an update in place (A/B) needs.
const ESP_COPIES = 3
const ESP_LEAST_MIB = 512

/** MiB of an EFI system partition that will see updates of this EFI. */
const espSize = (efiBytes: number): number =>
  Math.max(ESP_LEAST_MIB, Math.ceil((ESP_COPIES * efiBytes) / MIB / 64) * 64 + 64)

const flags = {
  output: Flag.String("output").pipe(
    Flag.withAlias("o"),
    Flag.optional,
    Flag.withDescription("Path of the disk image (default dist/kios.img or dist/kios.qcow2)"),
  ),
  format: Flag.Literals("format", ["raw", "qcow2"]).pipe(
    Flag.optional,
    Flag.withDescription("raw: a sparse file, for dd; qcow2 (default: by the name of --output, else raw)"),
  ),
  size: Flag.String("size").pipe(
    parsed(ImageOptions.parseSize, "a size such as 512M, 2G or 1T"),
    Flag.optional,
    Flag.withDescription("Size of the disk (default 2G, or what the files need)"),
  ),
  espSize: Flag.String("esp-size").pipe(
    parsed(ImageOptions.parseSize, "a size such as 512M or 1G"),
    Flag.optional,
    Flag.withDescription("Size of the EFI system partition (default 512M, or three times the EFI)"),
  ),
  efi: Flag.String("efi").pipe(
    Flag.withDefault(defaultEfi),
    Flag.withDescription("The EFI to boot from it; the default one is built first when it is not there"),
  ),
  manifest: Flag.String("manifest").pipe(
    Flag.atLeast(0),
    Flag.withDescription("A static pod manifest for the node to run; may be given again"),
  ),
  file: Flag.String("file").pipe(
    parsed(ImageOptions.parsePlaced, "SOURCE:DESTINATION, such as hostname:meta/etc/hostname"),
    Flag.atLeast(0),
    Flag.withDescription(
      "A file for the data partition, as SOURCE:DESTINATION; meta/etc is the node's /etc; may be given again",
    ),
  ),
  directory: Flag.String("directory").pipe(
    parsed(ImageOptions.parseDirectory, "DIRECTORY or DIRECTORY:DESTINATION"),
    Flag.atLeast(0),
    Flag.withDescription(
      "What is in this directory, for the data partition's root or DIRECTORY:DESTINATION; may be given again",
    ),
  ),
  cmdline: Flag.String("cmdline").pipe(
    Flag.withDefault(""),
    Flag.withDescription(
      "Words to add to the kernel command line, such as datapart.grow; the EFI stays as it is",
    ),
  ),
  label: Flag.String("label").pipe(
    Flag.withDefault("kios"),
    Flag.withDescription(
      "Begins the partitions' names, and decides every UUID: another one for a second disk in one machine",
    ),
  ),
  json,
} as const

type Flags = { readonly [K in keyof typeof flags]: (typeof flags)[K] extends Flag.Flag<infer A> ? A : never }

/** https://reproducible-builds.org/specs/source-date-epoch/ */
const sourceDateEpoch = Effect.suspend(() => {
  const text = process.env["SOURCE_DATE_EPOCH"] ?? ""
  if (text === "") return Effect.succeed(undefined)
  const seconds = Number(text)
  return /^\d{1,10}$/u.test(text) && seconds < 2 ** 32
    ? Effect.succeed(Math.max(1, seconds))
    : Effect.fail(
        new BadInput({
          file: "SOURCE_DATE_EPOCH",
          reason: `"${text}" is no whole number of seconds since 1970, below 2^32`,
        }),
      )
})

/** MiB that a data partition with these files should have: half as much again, for what the node writes. */
const fitting = (files: ReadonlyArray<DiskImage.DataFile>): number => {
  const bytes = files.reduce(
    (sum, file) => sum + ("sourcePath" in file ? fs.statSync(file.sourcePath).size : 4096),
    0,
  )
  return Math.ceil((bytes * 1.5) / MIB) + 64
}

/** The file that carries `--cmdline` words beside the EFI; removed with the scope. */
const addonOf = Effect.fnUntraced(function* (cmdline: string) {
  if (!/^[\x20-\x7e]+$/u.test(cmdline)) {
    return yield* new BadInput({ file: "--cmdline", reason: "is not printable ASCII on one line" })
  }
  const stub = yield* (yield* ComponentStore).resolve((yield* components("x86_64"))["efi-stub"])
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-image-"))),
    (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true })),
  )
  const output = path.join(directory, "kios.addon.efi")
  yield* Uki.buildAddon({ output, stub: filePath(stub, "linuxx64.efi.stub"), cmdline })
  return output
})

const formatOf = (options: Flags): "raw" | "qcow2" =>
  Option.getOrElse(options.format, () =>
    Option.isSome(options.output) && options.output.value.endsWith(".qcow2") ? "qcow2" : "raw",
  )

const image = Effect.fnUntraced(function* (options: Flags) {
  const output = yield* Output
  const epoch = yield* sourceDateEpoch
  const efi = path.resolve(options.efi)
  const files: Array<DiskImage.DataFile> = []
  for (const placed of options.directory) files.push(...(yield* ImageOptions.filesOf(placed)))
  for (const placed of options.file) files.push(yield* ImageOptions.fileOf(placed))
  for (const manifest of options.manifest) {
    lintManifest(manifest, (yield* readable(manifest)).toString("utf8"), output)
    files.push(yield* ImageOptions.fileOf({ source: manifest, destination: `${ImageOptions.MANIFESTS}/` }))
  }
  for (const file of files) {
    if (!("directory" in file) && !ImageOptions.isUsed(file.path)) {
      output.line(`! ${file.path}: the node does not look there (meta/etc is its /etc)`)
    }
  }
  if (!fs.existsSync(efi)) {
    // Only the reference distro is built here.
    if (efi !== path.resolve(defaultEfi)) {
      return yield* new BadInput({ file: options.efi, reason: "does not exist" })
    }
    yield* buildReference(efi)
  }
  const espMiB = Option.getOrElse(options.espSize, () => espSize(fs.statSync(efi).size))
  const sizeMiB = Option.getOrElse(options.size, () =>
    Math.max(DEFAULT_SIZE_MIB, espMiB + fitting(files) + TABLES_MIB),
  )
  const dataMiB = sizeMiB - espMiB - TABLES_MIB
  if (dataMiB < 16) {
    return yield* new BadInput({
      file: "--size",
      reason: `${sizeMiB} MiB leave no room for a data partition beside an EFI system partition of ${espMiB} MiB; give at least ${espMiB + TABLES_MIB + 16}M`,
    })
  }
  const format = formatOf(options)
  const file = Option.getOrElse(options.output, () => `dist/kios.${format === "raw" ? "img" : "qcow2"}`)
  const cmdline = options.cmdline.trim()
  const addon = cmdline === "" ? undefined : yield* addonOf(cmdline)
  output.status(`writing ${file}`)
  const written = yield* DiskImage.write({
    output: file,
    format,
    label: options.label,
    ...(epoch === undefined ? {} : { sourceDateEpoch: epoch }),
    esp: { efi, sizeMiB: espMiB, ...(addon === undefined ? {} : { addon }) },
    data: { sizeMiB: dataMiB, files },
  }).pipe(
    // Every reason is about an option or a file of the caller's.
    Effect.catchTag("DiskImageError", ({ detail, reason }) => {
      const sizes = ` (the disk, --size, has ${sizeMiB} MiB; its EFI system partition, --esp-size, ${espMiB})`
      return Effect.fail(new BadInput({ file, reason: reason === "TooSmall" ? `${detail}${sizes}` : detail }))
    }),
    Effect.ensuring(Effect.sync(() => output.status(undefined))),
  )
  output.line(
    table(written.partitions.map(({ name, size, uuid }) => [`${name}  ${uuid}`, `${size / MIB} MiB`])),
  )
  output.line(
    `${file}  ${format}, a disk of ${written.bytes / MIB} MiB, ${megabytes(written.allocatedBytes)} here`,
  )
  output.object({ event: "image", output: path.resolve(file), format, ...written })
})

export const imageCommand = Command.make("image", flags, (options) =>
  Effect.scoped(image(options)).pipe(Effect.provide(Output.layer(options.json))),
).pipe(
  Command.withDescription(
    "Write a disk image that boots: the EFI, and a data partition with your files. Needs no root",
  ),
)
