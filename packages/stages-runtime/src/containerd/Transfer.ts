/**
 * containerd.services.transfer.v1.Transfer (api/services/transfer/v1/transfer.proto) from an
 * ImageImportStream to an ImageStore (api/types/transfer/importexport.proto, imagestore.proto,
 * api/types/platform.proto).
 */
import { BinaryWriter, encodeAny, writeBytes, writeMap, writeString, writeTrue } from "./Proto.ts"

export const method = "/containerd.services.transfer.v1.Transfer/Transfer"

/** A platform in OCI terms: `{ os: "linux", architecture: "amd64" }`. */
export interface Platform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
}

/** Unpack the image's layers right away, into `snapshotter` (empty: containerd's default). */
export interface Unpack {
  readonly platform: Platform
  readonly snapshotter: string
}

/** Platform: os = 1, architecture = 2, variant = 3. */
const encodePlatform = (platform: Platform): Uint8Array => {
  const writer = new BinaryWriter()
  writeString(writer, 1, platform.os)
  writeString(writer, 2, platform.architecture)
  return writeString(writer, 3, platform.variant ?? "").finish()
}

/** UnpackConfiguration: platform = 1, snapshotter = 2. */
const encodeUnpack = (unpack: Unpack): Uint8Array => {
  const writer = writeBytes(new BinaryWriter(), 1, encodePlatform(unpack.platform))
  return writeString(writer, 2, unpack.snapshotter).finish()
}

/** ImageReference: name = 1, is_prefix = 2, allow_overwrite = 3. */
const encodePrefix = (prefix: string): Uint8Array => {
  const writer = writeString(new BinaryWriter(), 1, prefix)
  writeTrue(writer, 2)
  return writeTrue(writer, 3).finish()
}

/**
 * TransferRequest: source = 1, destination = 2, options = 3 (TransferOptions: progress_stream = 1).
 * ImageImportStream: stream = 1. ImageStore: labels = 2, extra_references = 6, unpacks = 10.
 *
 * The images take their names from the archive's annotations; one with only a tag ("3.10") is named
 * `namePrefix:tag`, which is what is_prefix with allow_overwrite means (core/transfer/image/imagestore.go).
 */
export const encodeImport = (request: {
  readonly stream: string
  readonly progressStream: string
  readonly namePrefix: string
  readonly labels: Readonly<Record<string, string>>
  readonly unpack: Unpack | undefined
}): Uint8Array => {
  const source = encodeAny({
    typeUrl: "containerd.types.transfer.ImageImportStream",
    value: writeString(new BinaryWriter(), 1, request.stream).finish(),
  })
  const store = writeMap(new BinaryWriter(), 2, request.labels)
  writeBytes(store, 6, encodePrefix(request.namePrefix))
  if (request.unpack !== undefined) writeBytes(store, 10, encodeUnpack(request.unpack))
  const destination = encodeAny({ typeUrl: "containerd.types.transfer.ImageStore", value: store.finish() })
  const writer = writeBytes(new BinaryWriter(), 1, source)
  writeBytes(writer, 2, destination)
  return writeBytes(writer, 3, writeString(new BinaryWriter(), 1, request.progressStream).finish()).finish()
}
