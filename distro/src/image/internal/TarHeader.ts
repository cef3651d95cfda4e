/**
 * The ustar header (POSIX.1-1988) and the pax extended header (POSIX.1-2001):
 * blocks of 512 bytes; a name that does not fit the 100 + 155 bytes of ustar
 * goes into a pax record before its entry.
 */

export const BLOCK = 512

export type TypeFlag = "0" | "1" | "2" | "5" | "x" | "g" | "L" | "K"

export interface TarHeader {
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly type: string
  readonly target: string
}

const octal = (n: number, width: number): string => `${n.toString(8).padStart(width - 1, "0")}\0`

const fits = (s: string, max: number): boolean => Buffer.byteLength(s) <= max

/** Name and prefix of ustar, split at a slash; `undefined` when it cannot be. */
const split = (name: string): readonly [name: string, prefix: string] | undefined => {
  if (fits(name, 100)) return [name, ""]
  for (let slash = name.indexOf("/"); slash !== -1; slash = name.indexOf("/", slash + 1)) {
    const rest = name.slice(slash + 1)
    if (rest !== "" && fits(rest, 100))
      return fits(name.slice(0, slash), 155) ? [rest, name.slice(0, slash)] : undefined
  }
  return undefined
}

const MAX_ID = 0o7777777
const MAX_SIZE = 0o77777777777

const block = (header: TarHeader, name: string, prefix: string): Buffer => {
  const out = Buffer.alloc(BLOCK)
  out.write(name, 0, 100)
  out.write(octal(header.mode, 8), 100)
  out.write(octal(header.uid > MAX_ID ? 0 : header.uid, 8), 108)
  out.write(octal(header.gid > MAX_ID ? 0 : header.gid, 8), 116)
  out.write(octal(header.size > MAX_SIZE ? 0 : header.size, 12), 124)
  out.write(octal(header.mtime, 12), 136)
  out.write("        ", 148)
  out.write(header.type, 156)
  out.write(header.target, 157, 100)
  out.write("ustar\x0000", 257)
  out.write(octal(0, 8), 329)
  out.write(octal(0, 8), 337)
  out.write(prefix, 345, 155)
  let sum = 0
  for (const byte of out) sum += byte
  out.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  return out
}

/** "length key=value\n", where length counts itself. */
const paxRecord = (key: string, value: string): string => {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest + 1
  while (length !== rest + String(length).length) length = rest + String(length).length
  return `${length} ${key}=${value}\n`
}

export const padding = (size: number): number => (BLOCK - (size % BLOCK)) % BLOCK

const ascii = (s: string): boolean => /^[\x20-\x7e]*$/u.test(s)

/** All header blocks of one entry. */
export const encode = (header: TarHeader): Buffer => {
  const name = split(header.name)
  const records: Array<string> = []
  if (name === undefined || !ascii(header.name)) records.push(paxRecord("path", header.name))
  if (Buffer.byteLength(header.target) > 100 || !ascii(header.target))
    records.push(paxRecord("linkpath", header.target))
  if (header.uid > MAX_ID) records.push(paxRecord("uid", String(header.uid)))
  if (header.gid > MAX_ID) records.push(paxRecord("gid", String(header.gid)))
  if (header.size > MAX_SIZE) records.push(paxRecord("size", String(header.size)))
  const cut = Buffer.from(header.name).subarray(0, 99).toString("latin1")
  const own = block(header, ...(name ?? [cut, ""]))
  if (records.length === 0) return own
  const body = Buffer.from(records.join(""))
  const pax = { ...header, name: "", uid: 0, gid: 0, mode: 0o644, size: body.length, type: "x", target: "" }
  return Buffer.concat([block(pax, "pax_header", ""), body, Buffer.alloc(padding(body.length)), own])
}

const field = (bytes: Buffer, from: number, length: number): string => {
  const raw = bytes.subarray(from, from + length)
  const end = raw.indexOf(0)
  return raw.subarray(0, end === -1 ? length : end).toString("utf8")
}

const number = (bytes: Buffer, from: number, length: number): number => {
  if ((bytes[from]! & 0x80) !== 0) {
    // GNU: big-endian binary with the top bit set.
    let value = bytes[from]! & 0x7f
    for (let i = 1; i < length; i++) value = value * 256 + bytes[from + i]!
    return value
  }
  const text = field(bytes, from, length).trim()
  return text === "" ? 0 : /^[0-7]+$/u.test(text) ? Number.parseInt(text, 8) : Number.NaN
}

/** `undefined` when the block is no tar header: its checksum is wrong. */
export const decode = (bytes: Buffer): TarHeader | undefined => {
  let sum = 8 * 0x20
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += bytes[i]!
  if (number(bytes, 148, 8) !== sum) return undefined
  const prefix = field(bytes, 257, 5) === "ustar" ? field(bytes, 345, 155) : ""
  const name = field(bytes, 0, 100)
  const type = String.fromCharCode(bytes[156]!)
  return {
    name: prefix === "" || bytes[263] === 0x20 ? name : `${prefix}/${name}`,
    mode: number(bytes, 100, 8),
    uid: number(bytes, 108, 8),
    gid: number(bytes, 116, 8),
    size: number(bytes, 124, 12),
    mtime: number(bytes, 136, 12),
    type: type === "\0" ? "0" : type,
    target: field(bytes, 157, 100),
  }
}

/** The records of a pax header's body. */
export const decodePax = (body: Buffer): ReadonlyMap<string, string> => {
  const records = new Map<string, string>()
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at)
    const length = Number.parseInt(body.toString("latin1", at, space), 10)
    if (space === -1 || !(length > 0) || at + length > body.length) break
    const record = body.toString("utf8", space + 1, at + length - 1)
    const equals = record.indexOf("=")
    records.set(record.slice(0, equals), record.slice(equals + 1))
    at += length
  }
  return records
}
