/** containerd.services.content.v1.Content (api/services/content/v1/content.proto). */
import { BinaryWriter, text, visitFields, writeBytes, writeMap, writeString } from "./Proto.ts"

export const info = "/containerd.services.content.v1.Content/Info"
export const read = "/containerd.services.content.v1.Content/Read"
export const write = "/containerd.services.content.v1.Content/Write"
export const update = "/containerd.services.content.v1.Content/Update"

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

/** A piece of a blob that is being written. */
export interface Piece {
  /** Names the upload. */
  readonly ref: string
  readonly digest: string
  /** Of the whole blob, bytes. */
  readonly total: number
  readonly offset: number
  /** Bytes of the blob in this piece. */
  readonly length: number
  /** Of the blob; sent with its last piece. */
  readonly labels: Readonly<Record<string, string>>
}

const WRITE = 1
const COMMIT = 2
const DATA = 6

/**
 * WriteContentRequest up to its data, which are to follow: action = 1, ref = 2, total = 3, expected = 4, offset = 5,
 * data = 6, labels = 7. The last piece commits the blob, which containerd refuses unless digest and size are those.
 */
export const encodeWriteHead = ({ digest, labels, length, offset, ref, total }: Piece): Uint8Array => {
  const last = offset + length >= total
  const writer = new BinaryWriter().tag(1, 0).int32(last ? COMMIT : WRITE)
  writeString(writer, 2, ref)
  writer.tag(3, 0).int64(total)
  writeString(writer, 4, digest)
  if (offset > 0) writer.tag(5, 0).int64(offset)
  if (last) writeMap(writer, 7, labels)
  return writer.tag(DATA, 2).uint32(length).finish()
}

/** UpdateRequest: info = 1 (Info: digest = 1, labels = 5), update_mask = 2 (FieldMask: paths = 1). Other labels stay. */
export const encodeUpdateRequest = (digest: string, labels: Readonly<Record<string, string>>): Uint8Array => {
  const info = writeMap(writeString(new BinaryWriter(), 1, digest), 5, labels)
  const mask = new BinaryWriter()
  for (const key of Object.keys(labels)) writeString(mask, 1, `labels.${key}`)
  return writeBytes(writeBytes(new BinaryWriter(), 1, info.finish()), 2, mask.finish()).finish()
}
