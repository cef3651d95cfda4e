/** containerd.services.images.v1.Images (api/services/images/v1/images.proto). */
import { BinaryWriter, readMapEntry, text, visitFields, writeBytes, writeMap, writeString } from "./Proto.ts"

export const remove = "/containerd.services.images.v1.Images/Delete"
export const list = "/containerd.services.images.v1.Images/List"
export const create = "/containerd.services.images.v1.Images/Create"
export const update = "/containerd.services.images.v1.Images/Update"

/** An image record of containerd: a name that points at content. */
export interface Image {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** Digest of the manifest or index that the name points at, such as `sha256:...`. */
  readonly digest: string
}

/** ListImagesRequest: filters = 1 (containerd's filter language, any of them may match). */
export const encodeListRequest = (filters: ReadonlyArray<string>): Uint8Array => {
  const writer = new BinaryWriter()
  for (const filter of filters) writeString(writer, 1, filter)
  return writer.finish()
}

/** DeleteImageRequest: name = 1. */
export const encodeDeleteRequest = (name: string): Uint8Array =>
  writeString(new BinaryWriter(), 1, name).finish()

/** An image record with all that its target says. */
export interface NewImage extends Image {
  readonly mediaType: string
  /** Of the manifest or index, bytes. */
  readonly size: number
  readonly annotations: Readonly<Record<string, string>>
}

/**
 * CreateImageRequest and UpdateImageRequest: image = 1. Image: name = 1, labels = 2, target = 3. Descriptor:
 * media_type = 1, digest = 2, size = 3, annotations = 5.
 */
export const encodeImageRequest = (image: NewImage): Uint8Array => {
  const target = writeString(writeString(new BinaryWriter(), 1, image.mediaType), 2, image.digest)
  target.tag(3, 0).int64(image.size)
  writeMap(target, 5, image.annotations)
  const record = writeMap(writeString(new BinaryWriter(), 1, image.name), 2, image.labels)
  return writeBytes(new BinaryWriter(), 1, writeBytes(record, 3, target.finish()).finish()).finish()
}

/** Image: name = 1, labels = 2, target = 3 (Descriptor: digest = 2). */
const decodeImage = (message: Uint8Array): Image => {
  let name = ""
  let digest = ""
  const labels: Record<string, string> = {}
  visitFields(message, (f) => {
    if (f.number === 1) name = text(f)
    else if (f.number === 2) readMapEntry(f.bytes, labels)
    else if (f.number === 3)
      visitFields(f.bytes, (d) => {
        if (d.number === 2) digest = text(d)
      })
  })
  return { name, labels, digest }
}

/** ListImagesResponse: images = 1. */
export const decodeListResponse = (message: Uint8Array): ReadonlyArray<Image> => {
  const images: Array<Image> = []
  visitFields(message, (f) => {
    if (f.number === 1) images.push(decodeImage(f.bytes))
  })
  return images
}
