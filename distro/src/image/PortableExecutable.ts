/**
 * PE32+ files, the format of EFI programs: look at one, add sections to one.
 *
 * Source: Microsoft, "PE Format".
 *
 * @module
 */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { type ImageError, PortableExecutableError } from "./ImageError.ts"
import { chunks, type Content, contentChunks, contentSize, readAt } from "./internal/InputFile.ts"
import { attempt, io, withOutput } from "./internal/OutputFile.ts"
import {
  Checksum,
  CNT_CODE,
  CNT_INITIALIZED_DATA,
  encodeSection,
  type Layout,
  MACHINES,
  type Machine,
  MAX_HEADER_BYTES,
  MEM_EXECUTE,
  MEM_READ,
  parse,
  type Section,
  SECTION_HEADER_BYTES,
} from "./internal/PortableExecutableLayout.ts"

export type { Machine } from "./internal/PortableExecutableLayout.ts"

/**
 * A section: `size` is its content in bytes, `fileSize` with padding, at
 * `offset` in the file and at `virtualAddress` in memory, relative to the
 * image's base.
 */
export interface SectionInfo {
  readonly name: string
  readonly size: number
  readonly fileSize: number
  readonly offset: number
  readonly virtualAddress: number
}

/**
 * A PE file. `checksumValid`: the header's checksum is that of the file.
 */
export interface Info {
  readonly machine: Machine
  readonly bytes: number
  readonly imageBase: bigint
  readonly sizeOfImage: number
  readonly sectionAlignment: number
  readonly fileAlignment: number
  readonly subsystem: number
  readonly signed: boolean
  readonly checksum: number
  readonly checksumValid: boolean
  readonly sections: ReadonlyArray<SectionInfo>
}

/**
 * A section to add. `executable` marks it as code.
 */
export interface NewSection {
  readonly name: string
  readonly content: Content
  readonly executable?: boolean
}

const fail = (reason: PortableExecutableError["reason"], path: string, detail: string): never => {
  throw new PortableExecutableError({ reason, path, detail })
}

const alignUp = (n: number, to: number): number => Math.ceil(n / to) * to

const machineName = (machine: number): Machine | undefined =>
  (Object.keys(MACHINES) as Array<Machine>).find((name) => MACHINES[name] === machine)

const readLayout = async (file: string): Promise<{ readonly layout: Layout; readonly bytes: number }> => {
  const bytes =
    (await contentSize({ path: file })) ?? fail("NotPortableExecutable", file, "it is not a regular file")
  const parsed = parse(await readAt(file, 0, MAX_HEADER_BYTES))
  const layout =
    typeof parsed === "string" ? fail("NotPortableExecutable", file, `not an EFI program: ${parsed}`) : parsed
  const end = Math.max(0, ...layout.sections.map((s) => s.rawOffset + s.rawSize))
  if (end > bytes) {
    fail("NotPortableExecutable", file, `cut short: its sections end at byte ${end}, the file at ${bytes}`)
  }
  return { layout, bytes }
}

/**
 * Reads the headers of a PE file and verifies its checksum.
 *
 * Fails with {@link PortableExecutableError} `NotPortableExecutable` when it
 * is not one or is cut short, `WrongMachine` for a machine we do not know.
 */
export const inspect = (file: string): Effect.Effect<Info, ImageError> =>
  attempt("read", file, async (signal) => {
    const { layout, bytes } = await readLayout(file)
    const machine =
      machineName(layout.machine) ??
      fail("WrongMachine", file, `it is for machine 0x${layout.machine.toString(16)}; known: x64, arm64`)
    const checksum = new Checksum()
    for await (const chunk of chunks(file, {}, signal)) checksum.update(chunk)
    return {
      machine,
      bytes,
      imageBase: layout.imageBase,
      sizeOfImage: layout.sizeOfImage,
      sectionAlignment: layout.sectionAlignment,
      fileAlignment: layout.fileAlignment,
      subsystem: layout.subsystem,
      signed: layout.certificateBytes > 0,
      checksum: layout.checksum,
      checksumValid: checksum.value(layout.checksum) === layout.checksum,
      sections: layout.sections.map((s) => ({
        name: s.name,
        size: s.virtualSize,
        fileSize: s.rawSize,
        offset: s.rawOffset,
        virtualAddress: s.virtualAddress,
      })),
    }
  })

/**
 * Copies `file` to `output` with sections added behind its own; none of its
 * own bytes move. Sizes, section count and checksum are brought up to date.
 * Memory does not grow with the sections.
 *
 * New sections begin at multiples of at least 4096 in memory, whatever the
 * file says: a section of another page keeps page protection possible, and
 * stubs of systemd up to 252 say 512. Addresses are relative to the image's
 * base, which is not 0 in stubs from 257 on.
 *
 * Fails with {@link PortableExecutableError}: `NoHeaderRoom` when the section
 * table cannot grow, `DuplicateSection`, `InvalidSection` (name, not a regular
 * file, empty), `Signed` (adding breaks a signature), `TooLarge` (4 GiB).
 */
export const addSections = (
  file: string,
  sections: ReadonlyArray<NewSection>,
  output: string,
): Effect.Effect<{ readonly bytes: number; readonly sha256: string }, ImageError> =>
  Effect.gen(function* () {
    const { layout, bytes } = yield* attempt("read", file, () => readLayout(file))
    const added = yield* attempt("read", file, () => place(file, layout, bytes, sections))
    const checksum = new Checksum()
    return yield* withOutput(
      output,
      async (out, signal) => {
        const header = await header0(file, layout, added)
        await out.write(header)
        for await (const chunk of chunks(file, { offset: header.length }, signal)) await out.write(chunk)
        for (const [i, { content }] of sections.entries()) {
          const { virtualSize, rawOffset } = added[i]!
          await out.write(new Uint8Array(rawOffset - out.position))
          for await (const chunk of contentChunks(content, virtualSize, signal)) await out.write(chunk)
          await out.pad(layout.fileAlignment)
        }
        await out.flush()
        const field = Buffer.alloc(4)
        field.writeUInt32LE(checksum.value())
        await out.patch(field, layout.at.checksum)
        return { bytes: out.position, sha256: await out.sha256(signal) }
      },
      (block) => checksum.update(block),
    )
  })

/** The new sections with their places; all that can be wrong is found here. */
const place = async (
  file: string,
  layout: Layout,
  bytes: number,
  sections: ReadonlyArray<NewSection>,
): Promise<Array<Section>> => {
  if (layout.certificateBytes > 0) {
    fail(
      "Signed",
      file,
      "it is signed, and adding sections breaks the signature; use the unsigned file and sign after",
    )
  }
  const alignment = layout.fileAlignment
  if (alignment < 512 || (alignment & (alignment - 1)) !== 0) {
    fail("NotPortableExecutable", file, `its file alignment ${alignment} is not a power of 2 of at least 512`)
  }
  verifyRoom(file, layout, await readAt(file, 0, layout.sizeOfHeaders), sections.length)
  const names = new Set(layout.sections.map((s) => s.name))
  const memoryAlignment = Math.max(4096, layout.sectionAlignment)
  let rawOffset = alignUp(bytes, alignment)
  let virtualAddress = Math.max(
    ...layout.sections.map((s) => s.virtualAddress + Math.max(s.virtualSize, s.rawSize)),
  )
  const placed: Array<Section> = []
  for (const { name, content, executable } of sections) {
    if (!/^\.[\x21-\x7e]{1,7}$/u.test(name)) {
      fail("InvalidSection", file, `section name "${name}" is not a dot and 1 to 7 printable characters`)
    }
    if (names.has(name)) fail("DuplicateSection", file, `it already has a section ${name}; use a bare stub`)
    names.add(name)
    const from = "path" in content ? content.path : "its bytes"
    const size =
      (await contentSize(content)) ?? fail("InvalidSection", file, `${name}: ${from} is not a regular file`)
    if (size === 0) fail("InvalidSection", file, `${name}: ${from} is empty`)
    virtualAddress = alignUp(virtualAddress, memoryAlignment)
    const rawSize = alignUp(size, alignment)
    placed.push({
      name,
      virtualSize: size,
      virtualAddress,
      rawSize,
      rawOffset,
      characteristics: MEM_READ | (executable === true ? MEM_EXECUTE | CNT_CODE : CNT_INITIALIZED_DATA),
    })
    virtualAddress += size
    rawOffset += rawSize
    if (virtualAddress >= 2 ** 32 - memoryAlignment || rawOffset >= 2 ** 32) {
      fail("TooLarge", file, `with ${name} (${size} bytes) the image exceeds the 4 GiB of the format`)
    }
  }
  return placed
}

/** Room behind the section table, all zero, before the first section's bytes. */
const verifyRoom = (file: string, layout: Layout, header: Buffer, count: number): void => {
  const tableEnd = layout.at.sectionTable + layout.sections.length * SECTION_HEADER_BYTES
  const limit = Math.min(
    layout.sizeOfHeaders,
    ...layout.sections.filter((s) => s.rawSize > 0).map((s) => s.rawOffset),
  )
  const needed = count * SECTION_HEADER_BYTES
  const room = limit - tableEnd
  if (needed > room || header.subarray(tableEnd, tableEnd + needed).some((b) => b !== 0)) {
    fail(
      "NoHeaderRoom",
      file,
      `no room for ${count} more section headers: ${needed} bytes needed, ${Math.max(0, room)} there` +
        `${needed > room ? "" : " but not empty"}; use the stub of systemd 252 or later`,
    )
  }
}

/** The file's headers up to where its first section begins, with ours in them. */
const header0 = async (file: string, layout: Layout, added: ReadonlyArray<Section>): Promise<Buffer> => {
  const header = await readAt(file, 0, layout.sizeOfHeaders)
  const last = added.at(-1) ?? layout.sections.at(-1)
  header.writeUInt16LE(layout.sections.length + added.length, layout.at.numberOfSections)
  for (const [i, section] of added.entries()) {
    encodeSection(section).copy(
      header,
      layout.at.sectionTable + (layout.sections.length + i) * SECTION_HEADER_BYTES,
    )
  }
  const data = added.filter((s) => (s.characteristics & CNT_INITIALIZED_DATA) !== 0)
  header.writeUInt32LE(
    data.reduce((sum, s) => sum + s.rawSize, layout.sizeOfInitializedData) >>> 0,
    layout.at.sizeOfInitializedData,
  )
  if (last !== undefined && added.length > 0) {
    header.writeUInt32LE(
      alignUp(last.virtualAddress + last.virtualSize, Math.max(4096, layout.sectionAlignment)),
      layout.at.sizeOfImage,
    )
  }
  header.writeUInt32LE(0, layout.at.checksum)
  return header
}

/**
 * Copies the content of a section to a file (without the padding).
 *
 * Fails with {@link PortableExecutableError} `MissingSection` when there is
 * none of that name.
 */
export const extract = (file: string, name: string, output: string): Effect.Effect<SectionInfo, ImageError> =>
  Effect.gen(function* () {
    const section = yield* Effect.flatMap(inspect(file), (info) => sectionOf(file, info, name))
    yield* withOutput(output, async (out, signal) => {
      const length = Math.min(section.size, section.fileSize)
      for await (const chunk of chunks(file, { offset: section.offset, length }, signal))
        await out.write(chunk)
    })
    return section
  })

/**
 * The section of that name, or {@link PortableExecutableError}
 * `MissingSection`.
 */
export const sectionOf = (
  file: string,
  info: Info,
  name: string,
): Effect.Effect<SectionInfo, PortableExecutableError> => {
  const section = info.sections.find((s) => s.name === name)
  if (section !== undefined) return Effect.succeed(section)
  const detail = `it has no section ${name}; it has ${info.sections.map((s) => s.name).join(" ")}`
  return Effect.fail(new PortableExecutableError({ reason: "MissingSection", path: file, detail }))
}

/** The first bytes of a file, for checks of its kind. */
export const head = (file: string, length: number): Effect.Effect<Buffer, ImageError> =>
  attempt("read", file, async () => {
    const stat = await io("read", file, () => fs.stat(file))
    return stat.isFile()
      ? readAt(file, 0, length)
      : fail("NotPortableExecutable", file, "it is not a regular file")
  })
