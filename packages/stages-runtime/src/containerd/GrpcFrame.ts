/**
 * gRPC's Length-Prefixed-Message: one byte "compressed" flag, four bytes big-endian length, message.
 * Pure: bytes in, messages or a reason out, and never a throw.
 *
 * Source: "gRPC over HTTP2", section "Requests".
 */

const headerBytes = 5

/** Frames one message for sending, uncompressed. */
export const encodeFrame = (message: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(headerBytes + message.length)
  new DataView(frame.buffer).setUint32(1, message.length)
  frame.set(message, headerBytes)
  return frame
}

/**
 * Puts the frame of a message that is `head` and then `length` bytes into `buffer`, but for those bytes: `payload` is
 * where they belong, `frame` all of it. Undefined when the buffer is too small.
 */
export const frameAround = (
  buffer: Uint8Array,
  head: Uint8Array,
  length: number,
): { readonly frame: Uint8Array; readonly payload: Uint8Array } | undefined => {
  const at = headerBytes + head.length
  if (at + length > buffer.length) return undefined
  buffer[0] = 0
  new DataView(buffer.buffer, buffer.byteOffset).setUint32(1, head.length + length)
  buffer.set(head, headerBytes)
  return { frame: buffer.subarray(0, at + length), payload: buffer.subarray(at, at + length) }
}

/** What one chunk of bytes gave: zero or more whole messages, and why the rest can not be read. */
export interface Decoded {
  readonly messages: ReadonlyArray<Uint8Array>
  readonly error: string | undefined
}

/** An incremental decoder. After an error it stays in error and takes no more bytes. */
export interface FrameDecoder {
  readonly push: (chunk: Uint8Array) => Decoded
  /** Bytes of an unfinished message: not zero at the end of the stream means that it was cut. */
  readonly pending: () => number
}

/**
 * Makes a decoder that holds at most one unfinished message.
 *
 * @param maxMessageBytes a longer message is an error as soon as its header is read, before its bytes are kept
 */
export const makeFrameDecoder = (maxMessageBytes: number): FrameDecoder => {
  const header = new Uint8Array(headerBytes)
  let headerFill = 0
  let parts: Array<Uint8Array> = []
  let missing = 0
  let held = 0
  const state: { failed: string | undefined } = { failed: undefined }

  const finish = (): Uint8Array => {
    const message = parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts, held))
    parts = []
    held = 0
    headerFill = 0
    return message
  }
  const fail = (reason: string) => {
    state.failed = reason
    parts = []
    held = 0
    missing = 0
    return reason
  }

  const push = (chunk: Uint8Array): Decoded => {
    const messages: Array<Uint8Array> = []
    let at = 0
    while (state.failed === undefined && at < chunk.length) {
      if (headerFill < headerBytes) {
        const n = Math.min(headerBytes - headerFill, chunk.length - at)
        header.set(chunk.subarray(at, at + n), headerFill)
        headerFill += n
        at += n
        if (headerFill < headerBytes) break
        // No encoding is ever offered to the server, so a set flag is a protocol error, as is any other value.
        if (header[0] !== 0) {
          fail(`message with compression flag ${header[0]}, but no compression was negotiated`)
          break
        }
        missing = new DataView(header.buffer).getUint32(1)
        if (missing > maxMessageBytes) {
          fail(`message of ${missing} bytes, the limit is ${maxMessageBytes}`)
          break
        }
        if (missing === 0) {
          parts = [new Uint8Array(0)]
          messages.push(finish())
        }
        continue
      }
      const n = Math.min(missing, chunk.length - at)
      parts.push(chunk.subarray(at, at + n))
      held += n
      missing -= n
      at += n
      if (missing === 0) messages.push(finish())
    }
    return { messages, error: state.failed }
  }
  return { push, pending: () => headerFill + held }
}
