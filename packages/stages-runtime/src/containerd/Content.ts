/** containerd.services.content.v1.Content (api/services/content/v1/content.proto). */
import { BinaryWriter, text, visitFields, writeString } from "./Proto.ts"

export const info = "/containerd.services.content.v1.Content/Info"
export const read = "/containerd.services.content.v1.Content/Read"

/** InfoRequest: digest = 1. ReadContentRequest: digest = 1; offset and size left out mean all of it. */
export const encodeDigestRequest = (digest: string): Uint8Array =>
  writeString(new BinaryWriter(), 1, digest).finish()

/** InfoResponse: info = 1 (Info: digest = 1, size = 2). */
export const decodeInfoResponse = (
  message: Uint8Array,
): { readonly digest: string; readonly size: bigint } => {
  let digest = ""
  let size = 0n
  visitFields(message, (f) => {
    if (f.number !== 1) return
    visitFields(f.bytes, (i) => {
      if (i.number === 1) digest = text(i)
      else if (i.number === 2) size = i.varint
    })
  })
  return { digest, size }
}

/** ReadContentResponse: data = 2. */
export const decodeReadResponse = (message: Uint8Array): Uint8Array => {
  let data: Uint8Array = new Uint8Array(0)
  visitFields(message, (f) => {
    if (f.number === 2) data = f.bytes
  })
  return data
}
