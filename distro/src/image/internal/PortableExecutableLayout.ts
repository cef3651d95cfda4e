/**
 * Where things are in a PE32+ file (Microsoft, "PE Format"): the DOS header
 * points to "PE\0\0", then the COFF header (20 bytes), the optional header,
 * and the section headers (40 bytes each).
 */

export const MACHINES = { x64: 0x8664, arm64: 0xaa64 } as const
export type Machine = keyof typeof MACHINES

export const SECTION_HEADER_BYTES = 40
/** The header of the file that we look at: stubs keep theirs in one page or two. */
export const MAX_HEADER_BYTES = 1 << 16

export const CNT_CODE = 0x20
export const CNT_INITIALIZED_DATA = 0x40
export const MEM_EXECUTE = 0x2000_0000
export const MEM_READ = 0x4000_0000

export interface Section {
  readonly name: string
  /** Bytes in memory: the content without the file's padding. */
  readonly virtualSize: number
  /** Address relative to the image's base. */
  readonly virtualAddress: number
  readonly rawSize: number
  readonly rawOffset: number
  readonly characteristics: number
}

export interface Layout {
  readonly machine: number
  readonly imageBase: bigint
  readonly sectionAlignment: number
  readonly fileAlignment: number
  readonly sizeOfImage: number
  readonly sizeOfHeaders: number
  readonly sizeOfInitializedData: number
  readonly checksum: number
  readonly subsystem: number
  /** Size of the Authenticode table: not 0 in a signed file. */
  readonly certificateBytes: number
  readonly sections: ReadonlyArray<Section>
  /** Offsets in the file of what a writer changes. */
  readonly at: {
    readonly numberOfSections: number
    readonly sizeOfInitializedData: number
    readonly sizeOfImage: number
    readonly checksum: number
    readonly sectionTable: number
  }
}

/** The layout, or what makes these bytes no PE32+ file. */
export const parse = (header: Buffer): Layout | string => {
  if (header.length < 64 || header.toString("latin1", 0, 2) !== "MZ") return "it does not begin with MZ"
  const pe = header.readUInt32LE(0x3c)
  if (pe + 24 + 112 > header.length) return "its PE header is not where the DOS header says"
  if (header.toString("latin1", pe, pe + 4) !== "PE\0\0") return "it has no PE signature"
  const count = header.readUInt16LE(pe + 6)
  const optionalBytes = header.readUInt16LE(pe + 20)
  const optional = pe + 24
  if (header.readUInt16LE(optional) !== 0x20b) return "it is not a PE32+ (64-bit) file"
  const sectionTable = optional + optionalBytes
  if (optionalBytes < 112 || sectionTable + count * SECTION_HEADER_BYTES > header.length) {
    return "its section table is cut short"
  }
  const directories = header.readUInt32LE(optional + 108)
  const hasCertificate = directories > 4 && optionalBytes >= 112 + 5 * 8
  const sections: Array<Section> = []
  for (let i = 0; i < count; i++) {
    const at = sectionTable + i * SECTION_HEADER_BYTES
    sections.push({
      name: header.toString("latin1", at, at + 8).replace(/\0+$/u, ""),
      virtualSize: header.readUInt32LE(at + 8),
      virtualAddress: header.readUInt32LE(at + 12),
      rawSize: header.readUInt32LE(at + 16),
      rawOffset: header.readUInt32LE(at + 20),
      characteristics: header.readUInt32LE(at + 36),
    })
  }
  return {
    machine: header.readUInt16LE(pe + 4),
    imageBase: header.readBigUInt64LE(optional + 24),
    sectionAlignment: header.readUInt32LE(optional + 32),
    fileAlignment: header.readUInt32LE(optional + 36),
    sizeOfImage: header.readUInt32LE(optional + 56),
    sizeOfHeaders: header.readUInt32LE(optional + 60),
    sizeOfInitializedData: header.readUInt32LE(optional + 8),
    checksum: header.readUInt32LE(optional + 64),
    subsystem: header.readUInt16LE(optional + 68),
    certificateBytes: hasCertificate ? header.readUInt32LE(optional + 112 + 4 * 8 + 4) : 0,
    sections,
    at: {
      numberOfSections: pe + 6,
      sizeOfInitializedData: optional + 8,
      sizeOfImage: optional + 56,
      checksum: optional + 64,
      sectionTable,
    },
  }
}

/** One entry of the section table. */
export const encodeSection = (section: Section): Buffer => {
  const out = Buffer.alloc(SECTION_HEADER_BYTES)
  out.write(section.name, 0, 8, "latin1")
  out.writeUInt32LE(section.virtualSize, 8)
  out.writeUInt32LE(section.virtualAddress, 12)
  out.writeUInt32LE(section.rawSize, 16)
  out.writeUInt32LE(section.rawOffset, 20)
  out.writeUInt32LE(section.characteristics, 36)
  return out
}

/**
 * The PE checksum: the 16-bit ones' complement sum of the file, with the field
 * itself as 0, plus the file's length. Fed with blocks of even length but for
 * the last.
 */
export class Checksum {
  #sum = 0
  #length = 0

  update(block: Buffer): void {
    const even = block.length & ~1
    let sum = 0
    if (block.byteOffset % 2 === 0) {
      const words = new Uint16Array(block.buffer, block.byteOffset, even / 2)
      for (const word of words) sum += word
    } else {
      for (let i = 0; i < even; i += 2) sum += block.readUInt16LE(i)
    }
    if (even !== block.length) sum += block[even]!
    this.#sum = (this.#sum + sum) % 0xffff
    this.#nonZero ||= sum !== 0
    this.#length += block.length
  }

  #nonZero = false

  /** `stored` is what the checksum field held while the blocks were summed. */
  value(stored = 0): number {
    let sum = (this.#sum - ((stored & 0xffff) + (stored >>> 16)) + 4 * 0xffff) % 0xffff
    // Folding carries never gives 0 unless every word is 0.
    if (sum === 0 && this.#nonZero) sum = 0xffff
    return (sum + this.#length) >>> 0
  }
}
