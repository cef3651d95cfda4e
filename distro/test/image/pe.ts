/**
 * Small PE files for tests: an EFI stub as systemd's is laid out (image base
 * not 0, room in the header) and a kernel with the marks that matter.
 */

export interface PeOptions {
  readonly machine?: number
  readonly subsystem?: number
  readonly sections?: ReadonlyArray<readonly [name: string, bytes: Buffer]>
  readonly sectionAlignment?: number
  readonly headerBytes?: number
  readonly certificate?: boolean
}

export const makePe = (options: PeOptions = {}): Buffer => {
  const sections = options.sections ?? [
    [".text", Buffer.alloc(700, 0x90)],
    [".sbat", Buffer.from("sbat,1,SBAT Version\n")],
    [".sdmagic", Buffer.from("#### LoaderInfo: systemd-stub ####")],
  ]
  const headerBytes = options.headerBytes ?? 1536
  const alignment = options.sectionAlignment ?? 4096
  const header = Buffer.alloc(headerBytes)
  const [pe, optionalBytes] = [0x80, 240]
  header.write("MZ")
  header.writeUInt32LE(pe, 0x3c)
  header.write("PE\0\0", pe)
  header.writeUInt16LE(options.machine ?? 0x8664, pe + 4)
  header.writeUInt16LE(sections.length, pe + 6)
  header.writeUInt16LE(optionalBytes, pe + 20)
  const optional = pe + 24
  header.writeUInt16LE(0x20b, optional)
  header.writeBigUInt64LE(0x14df90000n, optional + 24)
  header.writeUInt32LE(alignment, optional + 32)
  header.writeUInt32LE(512, optional + 36)
  header.writeUInt32LE(headerBytes, optional + 60)
  header.writeUInt16LE(options.subsystem ?? 10, optional + 68)
  header.writeUInt32LE(16, optional + 108)
  if (options.certificate === true) header.writeUInt32LE(8, optional + 112 + 36)
  let offset = headerBytes
  let address = Math.max(alignment, 4096)
  const bodies: Array<Buffer> = []
  for (const [i, [name, bytes]] of sections.entries()) {
    const at = optional + optionalBytes + 40 * i
    const raw = Math.ceil(bytes.length / 512) * 512
    header.write(name, at)
    header.writeUInt32LE(bytes.length, at + 8)
    header.writeUInt32LE(address, at + 12)
    header.writeUInt32LE(raw, at + 16)
    header.writeUInt32LE(offset, at + 20)
    bodies.push(Buffer.concat([bytes, Buffer.alloc(raw - bytes.length)]))
    offset += raw
    address += Math.ceil(bytes.length / alignment) * alignment
  }
  header.writeUInt32LE(address, optional + 56)
  return Buffer.concat([header, ...bodies])
}

/** A PE with "HdrS" at 0x202, as a bzImage with an EFI stub has it. */
export const makeKernel = (size: number, machine = 0x8664): Buffer => {
  const file = makePe({ machine, headerBytes: 1024, sections: [[".text", Buffer.alloc(size, 0xcc)]] })
  if (machine === 0x8664) file.write("HdrS", 0x202)
  else file.write("ARM\x64", 0x38)
  return file
}

/** The PE checksum, word by word as the definition says. */
export const checksumOf = (file: Buffer): number => {
  const field = file.readUInt32LE(0x3c) + 24 + 64
  let sum = 0
  for (let i = 0; i < file.length; i += 2) {
    if (i >= field && i < field + 4) continue
    sum += i + 1 < file.length ? file.readUInt16LE(i) : file[i]!
    sum = (sum & 0xffff) + (sum >>> 16)
  }
  return sum + file.length
}
