/**
 * containerd.services.leases.v1.Leases (api/services/leases/v1/leases.proto): what is written under a lease is
 * not taken for garbage while no image refers to it yet.
 */
import { BinaryWriter, writeMap, writeString } from "./Proto.ts"

export const create = "/containerd.services.leases.v1.Leases/Create"
export const remove = "/containerd.services.leases.v1.Leases/Delete"

/**
 * CreateRequest: id = 1, labels = 3. A lease that nobody removes, because containerd or the machine died, expires at
 * that time: what was written under it is garbage then.
 */
export const encodeCreateRequest = (id: string, expires: Date): Uint8Array =>
  writeMap(writeString(new BinaryWriter(), 1, id), 3, {
    "containerd.io/gc.expire": expires.toISOString(),
  }).finish()

/** DeleteRequest: id = 1. */
export const encodeDeleteRequest = (id: string): Uint8Array => writeString(new BinaryWriter(), 1, id).finish()
