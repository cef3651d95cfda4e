/**
 * D-Bus messages: a header that says what it is about, and a body.
 *
 * https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-messages
 */
import { malformed, Reader, Writer } from "./Wire.ts"

/** Types of message. */
export const METHOD_CALL = 1
const METHOD_RETURN = 2
const ERROR = 3
const SIGNAL = 4

/** The flag of a call whose answer nobody waits for. */
export const NO_REPLY_EXPECTED = 1

const LITTLE = 0x6c
const BIG = 0x42
const FIXED_BYTES = 16

/** What a client may send in one message: the kubelet's are of some hundred bytes. */
export const MAX_MESSAGE = 16 * 1024

// Header fields by their code, with their type.
const fieldTypes = {
  path: [1, "o"],
  interface: [2, "s"],
  member: [3, "s"],
  errorName: [4, "s"],
  replySerial: [5, "u"],
  destination: [6, "s"],
  sender: [7, "s"],
  signature: [8, "g"],
  unixFds: [9, "u"],
} as const

type FieldName = keyof typeof fieldTypes
type FieldValue<N extends FieldName> = (typeof fieldTypes)[N][1] extends "u" ? number : string

/** Header fields that are there. */
export type Fields = { readonly [N in FieldName]?: FieldValue<N> }

/** A message that was received. */
export interface Message {
  readonly type: number
  readonly flags: number
  readonly serial: number
  readonly fields: Fields
  /** The body's values; only strings are of use here. */
  readonly strings: (count: number) => ReadonlyArray<string>
}

const names = new Map(
  Object.entries(fieldTypes).map(([name, [code, type]]) => [code as number, { name, type }] as const),
)

/** How long the message is that begins here; undefined when that cannot be told yet. */
export const lengthOf = (bytes: Uint8Array): number | undefined => {
  if (bytes.length < FIXED_BYTES) return undefined
  const order = bytes[0]
  if (order !== LITTLE && order !== BIG) return malformed("no byte order")
  if (bytes[3] !== 1) return malformed("another version of the protocol")
  const reader = new Reader(bytes, order === LITTLE, 4)
  const body = reader.uint32()
  reader.uint32()
  const fields = reader.uint32()
  const length = FIXED_BYTES + Math.ceil(fields / 8) * 8 + body
  return length > MAX_MESSAGE ? malformed(`a message of ${length} bytes`) : length
}

/** Reads a whole message, of {@link lengthOf} bytes. */
export const decode = (bytes: Uint8Array): Message => {
  const littleEndian = bytes[0] === LITTLE
  const reader = new Reader(bytes, littleEndian, 4)
  const body = reader.uint32()
  const serial = reader.uint32()
  if (serial === 0) return malformed("serial number 0")
  const end = reader.uint32() + FIXED_BYTES
  const fields: Record<string, string | number> = {}
  while (reader.at < end) {
    reader.align(8)
    const code = reader.byte()
    const type = reader.signature()
    const value = reader.basic(type)
    const known = names.get(code)
    if (known === undefined) {
      if (code === 0) return malformed("header field 0")
      continue
    }
    if (known.type !== type) return malformed(`a ${known.name} of type ${JSON.stringify(type)}`)
    if (value !== undefined) fields[known.name] = value
  }
  if (reader.at !== end) return malformed("header fields that end elsewhere than they say")
  reader.align(8)
  if (reader.at + body !== bytes.length) return malformed("a body that ends elsewhere than it says")
  const start = reader.at
  return {
    type: bytes[1] ?? 0,
    flags: bytes[2] ?? 0,
    serial,
    fields: fields as Fields,
    strings: (count) => {
      if (fields["signature"] !== "s".repeat(count)) return malformed("other arguments than were asked for")
      const values = new Reader(bytes, littleEndian, start)
      const strings = Array.from({ length: count }, () => values.string())
      return values.at === bytes.length ? strings : malformed("more arguments than were asked for")
    },
  }
}

const encode = (
  type: number,
  serial: number,
  fields: Fields,
  body: { readonly signature: string; readonly bytes: Uint8Array } | undefined,
): Uint8Array => {
  const all: Fields = body === undefined ? fields : { ...fields, signature: body.signature }
  const list = new Writer()
  for (const [name, [code, type]] of Object.entries(fieldTypes)) {
    const value = all[name as FieldName]
    if (value === undefined) continue
    list.align(8).byte(code).signature(type)
    if (typeof value === "number") list.uint32(value)
    else if (type === "g") list.signature(value)
    else list.string(value)
  }
  return new Writer()
    .byte(LITTLE)
    .byte(type)
    .byte(NO_REPLY_EXPECTED)
    .byte(1)
    .uint32(body?.bytes.length ?? 0)
    .uint32(serial)
    .uint32(list.length)
    .raw(list.finish())
    .align(8)
    .raw(body?.bytes ?? new Uint8Array(0))
    .finish()
}

/** A value with its signature, as a body. */
export const body = {
  string: (text: string) => ({ signature: "s", bytes: new Writer().string(text).finish() }),
  boolean: (value: boolean) => ({ signature: "b", bytes: new Writer().uint32(value ? 1 : 0).finish() }),
  /** A variant with a 64-bit number in it. */
  uint64Variant: (value: bigint) => ({
    signature: "v",
    bytes: new Writer().signature("t").uint64(value).finish(),
  }),
  /** The first of the descriptors that come with the message. */
  descriptor: { signature: "h", bytes: new Writer().uint32(0).finish() },
}

type Body = (typeof body)["descriptor"]

/** The answer to a call. */
export const reply = (
  serial: number,
  replySerial: number,
  fields: Pick<Fields, "destination" | "sender" | "unixFds">,
  content?: Body,
): Uint8Array => encode(METHOD_RETURN, serial, { ...fields, replySerial }, content)

/** The refusal of a call. */
export const error = (
  serial: number,
  replySerial: number,
  fields: Pick<Fields, "destination" | "sender">,
  errorName: string,
  text: string,
): Uint8Array => encode(ERROR, serial, { ...fields, replySerial, errorName }, body.string(text))

/** A signal. */
export const signal = (
  serial: number,
  fields: Required<Pick<Fields, "path" | "interface" | "member" | "sender">>,
  content: Body,
): Uint8Array => encode(SIGNAL, serial, fields, content)
