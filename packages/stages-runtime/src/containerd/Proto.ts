/**
 * The few protobuf shapes that containerd's messages share, on top of `@bufbuild/protobuf/wire`.
 * Decoders throw on malformed bytes; `Grpc` turns that into a {@link GrpcError}, nothing else calls them.
 */
import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire"

export { BinaryWriter }

const lengthDelimited = 2

/** A field of a message: `bytes` for length-delimited ones, `number` for varints. */
export interface Field {
  readonly number: number
  /** Length-delimited content (strings, bytes, messages), empty for other wire types. */
  readonly bytes: Uint8Array
  /** Varint content as an unsigned 64 bit number, 0 for other wire types. */
  readonly varint: bigint
}

const empty: Uint8Array = new Uint8Array(0)

/** Calls `visit` for each varint and length-delimited field; others (fixed, groups) are skipped, as unknown. */
export const visitFields = (message: Uint8Array, visit: (field: Field) => void): void => {
  const reader = new BinaryReader(message)
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag()
    if (wire === lengthDelimited) visit({ number, bytes: reader.bytes(), varint: 0n })
    else if (wire === 0) visit({ number, bytes: empty, varint: BigInt(reader.uint64()) })
    else reader.skip(wire, number)
  }
}

/** A string field. Invalid UTF-8 becomes U+FFFD: a label with odd bytes must not make a node unbootable. */
export const text = ({ bytes }: Field): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")

/** Writes a string field unless it is empty (proto3 leaves defaults out). */
export const writeString = (writer: BinaryWriter, number: number, value: string): BinaryWriter =>
  value === "" ? writer : writer.tag(number, lengthDelimited).string(value)

/** Writes a message or bytes field, also when it is empty (presence of a message counts). */
export const writeBytes = (writer: BinaryWriter, number: number, value: Uint8Array): BinaryWriter =>
  writer.tag(number, lengthDelimited).bytes(value)

/** Writes a bool field when it is true. */
export const writeTrue = (writer: BinaryWriter, number: number): BinaryWriter =>
  writer.tag(number, 0).bool(true)

/** One entry of a `map<string, string>`: key = 1, value = 2. */
export const readMapEntry = (bytes: Uint8Array, into: Record<string, string>): void => {
  let key = ""
  let value = ""
  visitFields(bytes, (f) => {
    if (f.number === 1) key = text(f)
    else if (f.number === 2) value = text(f)
  })
  // defineProperty: a label named "__proto__" must become a plain entry
  Object.defineProperty(into, key, { value, enumerable: true, configurable: true, writable: true })
}

/** Writes a `map<string, string>` field. */
export const writeMap = (
  writer: BinaryWriter,
  number: number,
  map: Readonly<Record<string, string>>,
): BinaryWriter => {
  for (const [key, value] of Object.entries(map)) {
    const entry = new BinaryWriter()
    entry.tag(1, lengthDelimited).string(key).tag(2, lengthDelimited).string(value)
    writeBytes(writer, number, entry.finish())
  }
  return writer
}

/** `google.protobuf.Any`: type_url = 1, value = 2. */
export interface Any {
  readonly typeUrl: string
  readonly value: Uint8Array
}

/**
 * Encodes an Any. containerd's typeurl uses the bare message name, without "type.googleapis.com/",
 * and compares it literally in its transfer registry.
 */
export const encodeAny = (any: Any): Uint8Array => {
  const writer = writeString(new BinaryWriter(), 1, any.typeUrl)
  return writeBytes(writer, 2, any.value).finish()
}

export const decodeAny = (message: Uint8Array): Any => {
  let typeUrl = ""
  let value = empty
  visitFields(message, (f) => {
    if (f.number === 1) typeUrl = text(f)
    else if (f.number === 2) value = f.bytes
  })
  // Accept both spellings: what follows the last slash is the message's name.
  return { typeUrl: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value }
}

/** `google.protobuf.Timestamp` (seconds = 1, nanos = 2) in nanoseconds since 1970. */
export const decodeTimestamp = (message: Uint8Array): bigint => {
  let seconds = 0n
  let nanos = 0n
  visitFields(message, (f) => {
    if (f.number === 1) seconds = BigInt.asIntN(64, f.varint)
    else if (f.number === 2) nanos = BigInt.asIntN(32, f.varint)
  })
  return seconds * 1_000_000_000n + nanos
}

/** The empty message. */
export const emptyMessage: Uint8Array = empty
