/**
 * The newc ("070701") cpio format, as in the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst: a 110 byte
 * header of 8-digit hexadecimal fields, the NUL-terminated name, padding to 4
 * bytes, the data, padding to 4 bytes; the entry `TRAILER!!!` ends an archive.
 * Further archives may follow after zeros up to a multiple of 4.
 */

export const HEADER_BYTES = 110
export const TRAILER = "TRAILER!!!"
/** The type bits of a mode, inode(7). */
export const types = { Directory: 0o040000, File: 0o100000, Symlink: 0o120000, CharDevice: 0o020000 } as const
export const S_IFMT = 0o170000

export interface NewcHeader {
  readonly ino: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly nlink: number
  readonly mtime: number
  readonly filesize: number
  readonly rdevmajor: number
  readonly rdevminor: number
}

export const align4 = (n: number): number => Math.ceil(n / 4) * 4

/** Header, name and padding of one entry. */
export const encodeHeader = (header: NewcHeader, name: string): Buffer => {
  const bytes = Buffer.from(name)
  const fields = [
    header.ino,
    header.mode,
    header.uid,
    header.gid,
    header.nlink,
    header.mtime,
    header.filesize,
    0,
    0,
    header.rdevmajor,
    header.rdevminor,
    bytes.length + 1,
    0,
  ]
  const out = Buffer.alloc(align4(HEADER_BYTES + bytes.length + 1))
  out.write(`070701${fields.map((n) => n.toString(16).padStart(8, "0")).join("")}`, "latin1")
  bytes.copy(out, HEADER_BYTES)
  return out
}

/** `undefined` when these 110 bytes are not a newc header. */
export const decodeHeader = (bytes: Buffer): (NewcHeader & { readonly namesize: number }) | undefined => {
  const text = bytes.toString("latin1")
  // 070702 is the same with a checksum of the data in the last field.
  if (!/^07070[12][0-9A-Fa-f]{104}$/u.test(text)) return undefined
  const field = (i: number): number => Number.parseInt(text.slice(6 + 8 * i, 14 + 8 * i), 16)
  return {
    ino: field(0),
    mode: field(1),
    uid: field(2),
    gid: field(3),
    nlink: field(4),
    mtime: field(5),
    filesize: field(6),
    rdevmajor: field(9),
    rdevminor: field(10),
    namesize: field(11),
  }
}
