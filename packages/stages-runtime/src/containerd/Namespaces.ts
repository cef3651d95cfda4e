/** containerd.services.namespaces.v1.Namespaces (api/services/namespaces/v1/namespace.proto). */
import { BinaryWriter, writeBytes, writeString } from "./Proto.ts"

export const create = "/containerd.services.namespaces.v1.Namespaces/Create"

/** CreateNamespaceRequest: namespace = 1 (Namespace: name = 1). */
export const encodeCreateRequest = (name: string): Uint8Array =>
  writeBytes(new BinaryWriter(), 1, writeString(new BinaryWriter(), 1, name).finish()).finish()
