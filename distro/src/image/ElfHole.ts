/**
 * Takes read-only data that a program never reads out of its ELF executable.
 * The file becomes smaller by it, and so does what the kernel unpacks into RAM;
 * every address stays what it was, and reading there gives zeros.
 *
 * The segment that holds the data is split in two. The first one's memory
 * reaches over the hole (`p_memsz` beyond `p_filesz` is zeros that take no
 * memory until they are read), the second one begins behind it. elf(5),
 * `fs/binfmt_elf.c`.
 */
import type { Effect } from "effect"
import * as fs from "node:fs"
import { ElfError, fileOperation, type ImageError } from "./ImageError.ts"

const PAGE = 4096
const EHDR = { phoff: 32, shoff: 40, phentsize: 54, phnum: 56, shnum: 60, shstrndx: 62 } as const
const PHDR_BYTES = 56
const SHDR_BYTES = 64
const SYM_BYTES = 24
const PT_NULL = 0
const PT_LOAD = 1
const PT_PHDR = 6
const SHT_DYNSYM = 11

interface ProgramHeader {
  readonly type: number
  readonly flags: number
  readonly offset: number
  readonly address: number
  readonly fileSize: number
  readonly memorySize: number
  readonly align: number
}

/** What was taken out, in bytes. */
export interface Hole {
  readonly symbol: string
  readonly bytes: number
}

/**
 * Takes the data of one exported symbol out of an executable, in place: whole
 * pages, so that up to two pages of it stay. The section headers go as well;
 * nothing that runs reads them.
 *
 * Fails with `ElfError` for what is no x86_64 executable with section headers
 * (`NotAnExecutable`), has no such symbol (`NoSymbol`), or has it in no segment
 * that is split easily (`NoSegment`); with `ImageFileError` when the file cannot
 * be read or written. The file is as it was then.
 *
 * @param symbol matches the symbol's whole name; of several the first counts.
 *
 * @example
 * ```ts
 * import * as ElfHole from "@kios/distro/image/ElfHole"
 *
 * // The locales' data of a Node.js that has no use for them: 33 MB.
 * const program = ElfHole.cut("/tmp/node", /^icudt\d+_dat$/u)
 * ```
 */
export const cut = (file: string, symbol: RegExp): Effect.Effect<Hole, ImageError> =>
  fileOperation("take data out of", file, () => {
    const elf = fs.readFileSync(file)
    const refuse = (reason: ElfError["reason"], detail: string): never => {
      throw new ElfError({ reason, path: file, detail })
    }
    const isExecutable = elf.length > 64 && elf.readUInt32BE(0) === 0x7f454c46 && elf[4] === 2 && elf[5] === 1
    if (!isExecutable) refuse("NotAnExecutable", "it is no 64-bit little-endian ELF file")
    const found = findSymbol(elf, symbol) ?? refuse("NoSymbol", `it exports nothing that is called ${symbol}`)
    const start = Math.ceil(found.address / PAGE) * PAGE
    const end = Math.floor((found.address + found.size) / PAGE) * PAGE
    const headers = programHeaders(elf)
    const around = headers.find(
      ({ address, fileSize, type }) => type === PT_LOAD && address < start && end < address + fileSize,
    )
    if (around === undefined || end <= start)
      return refuse("NoSegment", `${found.name} is not within a loaded segment with something on either side`)
    const bytes = end - start
    const from = around.offset + (start - around.address)
    const behind = (offset: number) => (offset >= from + bytes ? offset - bytes : offset)
    const split = headers.flatMap((header): ReadonlyArray<ProgramHeader> => {
      if (header.type === PT_NULL) return []
      if (header !== around) return [{ ...header, offset: behind(header.offset) }]
      const before = start - header.address
      return [
        { ...header, fileSize: before, memorySize: before + bytes },
        {
          ...header,
          offset: from,
          address: end,
          fileSize: header.fileSize - before - bytes,
          memorySize: header.memorySize - before - bytes,
        },
      ]
    })
    const table = Number(elf.readBigUInt64LE(EHDR.phoff))
    const room = headers.find(({ type }) => type === PT_PHDR)?.fileSize ?? headers.length * PHDR_BYTES
    if (split.length * PHDR_BYTES > room)
      refuse("NoSegment", "there is no room for one more program header where they are")
    if (table >= from) refuse("NoSegment", `its program headers are behind ${found.name}`)

    elf.fill(0, table, table + Math.max(split.length, headers.length) * PHDR_BYTES)
    split.forEach((header, index) => writeHeader(elf, table + index * PHDR_BYTES, header))
    elf.writeUInt16LE(split.length, EHDR.phnum)
    elf.writeBigUInt64LE(0n, EHDR.shoff)
    elf.writeUInt16LE(0, EHDR.shnum)
    elf.writeUInt16LE(0, EHDR.shstrndx)
    const partial = `${file}.${process.pid}.cut`
    try {
      const out = fs.openSync(partial, "w")
      try {
        // Unlike writeSync these write all of it, or fail.
        fs.writeFileSync(out, elf.subarray(0, from))
        fs.writeFileSync(out, elf.subarray(from + bytes))
        fs.fchmodSync(out, fs.statSync(file).mode)
      } finally {
        fs.closeSync(out)
      }
      fs.renameSync(partial, file)
    } finally {
      fs.rmSync(partial, { force: true })
    }
    return { symbol: found.name, bytes }
  })

const programHeaders = (elf: Buffer): ReadonlyArray<ProgramHeader> => {
  const table = Number(elf.readBigUInt64LE(EHDR.phoff))
  const number = (at: number) => Number(elf.readBigUInt64LE(at))
  return Array.from({ length: elf.readUInt16LE(EHDR.phnum) }, (_, index) => {
    const at = table + index * PHDR_BYTES
    return {
      type: elf.readUInt32LE(at),
      flags: elf.readUInt32LE(at + 4),
      offset: number(at + 8),
      address: number(at + 16),
      fileSize: number(at + 32),
      memorySize: number(at + 40),
      align: number(at + 48),
    }
  })
}

const writeHeader = (elf: Buffer, at: number, header: ProgramHeader): void => {
  elf.writeUInt32LE(header.type, at)
  elf.writeUInt32LE(header.flags, at + 4)
  const numbers = [
    header.offset,
    header.address,
    // The physical address, which nobody has a use for.
    header.address,
    header.fileSize,
    header.memorySize,
    header.align,
  ]
  numbers.forEach((value, index) => elf.writeBigUInt64LE(BigInt(value), at + 8 + index * 8))
}

/** In the table of exported symbols, by the section headers. */
const findSymbol = (
  elf: Buffer,
  wanted: RegExp,
): { readonly name: string; readonly address: number; readonly size: number } | undefined => {
  const number = (at: number) => Number(elf.readBigUInt64LE(at))
  const sections = number(EHDR.shoff)
  const section = (index: number) => {
    const at = sections + index * SHDR_BYTES
    return {
      type: elf.readUInt32LE(at + 4),
      offset: number(at + 24),
      size: number(at + 32),
      link: elf.readUInt32LE(at + 40),
    }
  }
  const count = elf.readUInt16LE(EHDR.shnum)
  if (count === 0 || sections + count * SHDR_BYTES > elf.length) return undefined
  const symbols = Array.from({ length: count }, (_, index) => section(index)).find(
    ({ type }) => type === SHT_DYNSYM,
  )
  if (symbols === undefined) return undefined
  const names = section(symbols.link).offset
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += SYM_BYTES) {
    const size = number(at + 16)
    // What is worth being taken out has some pages; comparing names takes longer than looking.
    if (size < 2 * PAGE) continue
    const begin = names + elf.readUInt32LE(at)
    const name = elf.toString("latin1", begin, elf.indexOf(0, begin))
    if (wanted.test(name)) return { name, address: number(at + 8), size }
  }
  return undefined
}
