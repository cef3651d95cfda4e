/**
 * The parts of the OCI image specification (v1.1) that we read and write.
 */
import { Schema } from "effect"

export const INDEX = "application/vnd.oci.image.index.v1+json"
export const MANIFEST = "application/vnd.oci.image.manifest.v1+json"
export const CONFIG = "application/vnd.oci.image.config.v1+json"
export const LAYER = "application/vnd.oci.image.layer.v1.tar"
export const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

const Digest = Schema.String.check(Schema.isPattern(/^sha256:[0-9a-f]{64}$/u))

export const Descriptor = Schema.Struct({
  mediaType: Schema.String,
  digest: Digest,
  size: Schema.Natural,
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  platform: Schema.optionalKey(Schema.Struct({ architecture: Schema.String, os: Schema.String })),
})
export type Descriptor = typeof Descriptor.Type

export const Index = Schema.Struct({
  schemaVersion: Schema.Literal(2),
  manifests: Schema.Array(Descriptor),
})

export const Manifest = Schema.Struct({
  schemaVersion: Schema.Literal(2),
  config: Descriptor,
  layers: Schema.Array(Descriptor),
})

export const Layout = Schema.Struct({ imageLayoutVersion: Schema.String })

export const Config = Schema.Struct({
  architecture: Schema.String,
  os: Schema.String,
  rootfs: Schema.Struct({ type: Schema.Literal("layers"), diff_ids: Schema.Array(Digest) }),
})
