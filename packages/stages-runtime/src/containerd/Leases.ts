/**
 * containerd.services.leases.v1.Leases (api/services/leases/v1/leases.proto): what is written under a lease is
 * not taken for garbage while no image refers to it yet.
 */
import { BinaryWriter, writeString } from "./Proto.ts"

export const create = "/containerd.services.leases.v1.Leases/Create"
export const remove = "/containerd.services.leases.v1.Leases/Delete"

/** CreateRequest: id = 1. DeleteRequest: id = 1. */
export const encodeRequest = (id: string): Uint8Array => writeString(new BinaryWriter(), 1, id).finish()
