/**
 * containerd.services.streaming.v1.Streaming (api/services/streaming/v1/streaming.proto) and the
 * messages that travel on it (api/types/transfer/streaming.proto, progress.proto).
 *
 * Protocol, from core/transfer/streaming/stream.go and plugins/services/streaming/service.go: the client
 * opens a call, sends StreamInit, waits for one Empty (the stream is registered now), then names the
 * stream by its id in another request. The receiver of binary data grants bytes by WindowUpdate and the
 * sender never sends more than was granted; the end of the sender's half is the end of the data.
 */
import { type Any, BinaryWriter, decodeAny, encodeAny, text, visitFields, writeString } from "./Proto.ts"

export const stream = "/containerd.services.streaming.v1.Streaming/Stream"

/** StreamInit: id = 1. */
export const encodeInit = (id: string): Uint8Array =>
  encodeAny({
    typeUrl: "containerd.services.streaming.v1.StreamInit",
    value: writeString(new BinaryWriter(), 1, id).finish(),
  })

/** A gRPC frame that holds one Data message, made once and filled again and again. */
export interface DataFrame {
  /** Where the payload goes, at most the frame's capacity. */
  readonly payload: Uint8Array
  /** The frame for the first `length` bytes of the payload: a view, valid until the payload is written again. */
  readonly frame: (length: number) => Uint8Array
}

// A varint of three bytes whatever the value: longer than need be, which protobuf allows (encoding
// specification, "Base 128 varints"), so that the lengths can be patched in place. Up to 2 MiB.
const patchVarint = (buffer: Uint8Array, at: number, value: number) => {
  buffer[at] = (value & 0x7f) | 0x80
  buffer[at + 1] = ((value >> 7) & 0x7f) | 0x80
  buffer[at + 2] = value >> 14
}

/**
 * Makes a frame for up to `capacity` bytes (below 2 MiB) of Data: data = 1 inside an Any (type_url = 1,
 * value = 2) behind gRPC's five bytes. In place, because an archive goes through it in 64 KiB pieces:
 * with a buffer for each layer of the message PID 1 grew by 60 MB of garbage during one import.
 */
export const makeDataFrame = (capacity: number): DataFrame => {
  const typeUrl = Buffer.from("containerd.types.transfer.Data")
  const lengthAt = 5 + 2 + typeUrl.length + 1
  const start = lengthAt + 3 + 1 + 3
  const buffer = new Uint8Array(start + capacity)
  buffer.set([0x0a, typeUrl.length], 5) // field 1, length-delimited: type_url
  buffer.set(typeUrl, 7)
  buffer[lengthAt - 1] = 0x12 // field 2, length-delimited: value
  buffer[lengthAt + 3] = 0x0a // in it field 1, length-delimited: data
  return {
    payload: buffer.subarray(start),
    frame: (length) => {
      new DataView(buffer.buffer).setUint32(1, start - 5 + length)
      patchVarint(buffer, lengthAt, 1 + 3 + length)
      patchVarint(buffer, lengthAt + 4, length)
      return buffer.subarray(0, start + length)
    },
  }
}

/** WindowUpdate: update = 1 (int32). Gives undefined for messages of another type. */
export const decodeWindowUpdate = (message: Uint8Array): number | undefined => {
  const any = decodeAny(message)
  if (any.typeUrl !== "containerd.types.transfer.WindowUpdate") return undefined
  let update = 0
  visitFields(any.value, (f) => {
    if (f.number === 1) update = Number(BigInt.asIntN(32, f.varint))
  })
  return update
}

/** One step of a transfer, as containerd reports it. */
export interface Progress {
  readonly event: string
  readonly name: string
  /** Digest of the object that the step is about, empty when it has none. */
  readonly digest: string
}

/** Progress: event = 1, name = 2, desc = 6 (Descriptor: digest = 2). Gives undefined for another type. */
export const decodeProgress = (message: Uint8Array): Progress | undefined => {
  const any: Any = decodeAny(message)
  if (any.typeUrl !== "containerd.types.transfer.Progress") return undefined
  let event = ""
  let name = ""
  let digest = ""
  visitFields(any.value, (f) => {
    if (f.number === 1) event = text(f)
    else if (f.number === 2) name = text(f)
    else if (f.number === 6)
      visitFields(f.bytes, (d) => {
        if (d.number === 2) digest = text(d)
      })
  })
  return { event, name, digest }
}
