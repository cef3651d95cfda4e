/**
 * D-Bus' wire format, as much of it as logind's clients use: values at their
 * alignment, in either byte order.
 *
 * https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-marshaling
 */

/** Bytes that are not D-Bus: whoever sent them is not talked to any more. */
export class Malformed extends Error {
  override readonly name = "Malformed"
}

/** Ends the reading. */
export const malformed = (what: string): never => {
  throw new Malformed(what)
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** Alignment of the basic types, by their codes. */
const alignments: Readonly<Record<string, number>> = {
  y: 1,
  b: 4,
  n: 2,
  q: 2,
  i: 4,
  u: 4,
  x: 8,
  t: 8,
  d: 8,
  s: 4,
  o: 4,
  g: 1,
  h: 4,
}

/** Reads values from bytes, one after the other, and never beyond their end. */
export class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #littleEndian: boolean
  at: number

  constructor(bytes: Uint8Array, littleEndian: boolean, at = 0) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#littleEndian = littleEndian
    this.at = at
  }

  /** Skips padding, which is zero. */
  align(to: number): void {
    const end = Math.ceil(this.at / to) * to
    if (end > this.#bytes.length) return malformed("ends in its padding")
    while (this.at < end) if (this.#bytes[this.at++] !== 0) return malformed("padding that is not zero")
  }

  #take(length: number): number {
    const at = this.at
    // A length of up to 2^32: compared and not added to.
    if (length > this.#bytes.length - at) return malformed("ends in the middle of a value")
    this.at += length
    return at
  }

  byte(): number {
    return this.#view.getUint8(this.#take(1))
  }

  uint32(): number {
    this.align(4)
    return this.#view.getUint32(this.#take(4), this.#littleEndian)
  }

  /** `s` and `o`. */
  string(): string {
    return this.#text(this.uint32())
  }

  /** `g` */
  signature(): string {
    return this.#text(this.byte())
  }

  /** A value of a basic type; numbers that nobody asks for are skipped. */
  basic(type: string): string | number | undefined {
    if (type === "s" || type === "o") return this.string()
    if (type === "g") return this.signature()
    if (type === "u" || type === "h") return this.uint32()
    const size = alignments[type] ?? malformed(`a header field of type ${JSON.stringify(type)}`)
    this.align(size)
    this.#take(size)
    return undefined
  }

  #text(length: number): string {
    const at = this.#take(length)
    if (this.byte() !== 0) return malformed("a string without its end")
    const bytes = this.#bytes.subarray(at, at + length)
    if (bytes.includes(0)) return malformed("a string with a NUL in it")
    try {
      return utf8.decode(bytes)
    } catch {
      return malformed("a string that is not UTF-8")
    }
  }
}

/** Writes values one after the other, little-endian. */
export class Writer {
  readonly #bytes: Array<number> = []

  get length(): number {
    return this.#bytes.length
  }

  align(to: number): this {
    while (this.#bytes.length % to !== 0) this.#bytes.push(0)
    return this
  }

  byte(value: number): this {
    this.#bytes.push(value)
    return this
  }

  /** `u`, `b` and `h`. */
  uint32(value: number): this {
    this.align(4)
    for (const shift of [0, 8, 16, 24]) this.#bytes.push((value >>> shift) & 0xff)
    return this
  }

  /** `t` */
  uint64(value: bigint): this {
    this.align(8)
    return this.uint32(Number(value & 0xffff_ffffn)).uint32(Number(value >> 32n))
  }

  /** `s` and `o`. */
  string(text: string): this {
    const bytes = Buffer.from(text)
    return this.uint32(bytes.length).raw(bytes).byte(0)
  }

  /** `g` */
  signature(text: string): this {
    return this.byte(text.length).raw(Buffer.from(text)).byte(0)
  }

  raw(bytes: Uint8Array): this {
    this.#bytes.push(...bytes)
    return this
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes)
  }
}
