/**
 * As much of DER (X.690) as a certificate needs.
 */

const length = (bytes: number): Buffer => {
  if (bytes < 0x80) return Buffer.from([bytes])
  const digits: Array<number> = []
  for (let rest = bytes; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256)
  return Buffer.from([0x80 | digits.length, ...digits])
}

/** A tag, the length of what follows, and what follows. */
export const element = (tag: number, ...content: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(content)
  return Buffer.concat([Buffer.from([tag]), length(body.length), body])
}

export const sequence = (...content: ReadonlyArray<Uint8Array>) => element(0x30, ...content)
export const set = (...content: ReadonlyArray<Uint8Array>) => element(0x31, ...content)
export const octets = (content: Uint8Array) => element(0x04, content)
/** A bit string of whole bytes. */
export const bits = (content: Uint8Array) => element(0x03, Buffer.from([0]), content)
export const utf8 = (text: string) => element(0x0c, Buffer.from(text))
export const boolean = (value: boolean) => element(0x01, Buffer.from([value ? 0xff : 0]))
/** `[number]` around an element. */
export const explicit = (number: number, content: Uint8Array) => element(0xa0 | number, content)
/** `[number]` in the place of a primitive element's tag. */
export const implicit = (number: number, content: Uint8Array) => element(0x80 | number, content)

/** A non-negative integer from its big-endian bytes. */
export const integer = (bytes: Uint8Array): Buffer => {
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start++
  const trimmed = bytes.subarray(start)
  // The first bit is the sign.
  return element(0x02, (trimmed[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), trimmed]) : trimmed)
}

/** An object identifier in dotted form. */
export const oid = (dotted: string): Buffer => {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number)
  const bytes = [first * 40 + second]
  for (const part of rest) {
    const groups = [part & 0x7f]
    for (let high = part >> 7; high > 0; high >>= 7) groups.unshift((high & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return element(0x06, Buffer.from(bytes))
}

/** A point in time: UTCTime up to 2049, GeneralizedTime after (RFC 5280, 4.1.2.5). */
export const time = (date: Date): Buffer => {
  const digits = date.toISOString().replaceAll(/[-:T]|\.\d+/gu, "")
  return date.getUTCFullYear() < 2050
    ? element(0x17, Buffer.from(digits.slice(2)))
    : element(0x18, Buffer.from(digits))
}
