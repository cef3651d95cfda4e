/** containerd.services.containers.v1.Containers (api/services/containers/v1/containers.proto). */
import { BinaryWriter, readMapEntry, text, visitFields, writeString } from "./Proto.ts"

export const get = "/containerd.services.containers.v1.Containers/Get"

/** The part of a container's record that init uses. */
export interface Container {
  readonly id: string
  readonly labels: Readonly<Record<string, string>>
  readonly image: string
}

/** GetContainerRequest: id = 1. */
export const encodeGetRequest = (id: string): Uint8Array => writeString(new BinaryWriter(), 1, id).finish()

/** GetContainerResponse: container = 1. Container: id = 1, labels = 2, image = 3. */
export const decodeGetResponse = (message: Uint8Array): Container => {
  let id = ""
  let image = ""
  const labels: Record<string, string> = {}
  visitFields(message, (f) => {
    if (f.number !== 1) return
    visitFields(f.bytes, (c) => {
      if (c.number === 1) id = text(c)
      else if (c.number === 2) readMapEntry(c.bytes, labels)
      else if (c.number === 3) image = text(c)
    })
  })
  return { id, labels, image }
}
