// Builds OCI image archives (image-spec 1.1, "image layout" in a tar) for tests, without outside tools.
import { createHash } from "node:crypto"
import * as fs from "node:fs"

export const tarHeader = (name: string, size: number): Buffer => {
  const h = Buffer.alloc(512)
  h.write(name, 0)
  h.write("0000644\0", 100)
  h.write("0000000\0", 108)
  h.write("0000000\0", 116)
  h.write(`${size.toString(8).padStart(11, "0")}\0`, 124)
  h.write("00000000000\0", 136)
  h.write("        0", 148) // a checksum of spaces while it is computed, then the type: regular file
  h.write("ustar\u000000", 257)
  let sum = 0
  for (const b of h) sum += b
  h.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  return h
}
const pad = (size: number) => Buffer.alloc((512 - (size % 512)) % 512)
export const tarOf = (files: ReadonlyArray<readonly [string, Buffer]>): Buffer =>
  Buffer.concat([
    ...files.flatMap(([n, b]) => [tarHeader(n, b.length), b, pad(b.length)]),
    Buffer.alloc(1024),
  ])
export const sha256 = (b: Buffer) => createHash("sha256").update(b).digest("hex")

const json = (v: unknown) => Buffer.from(JSON.stringify(v))

export interface ArchiveOptions {
  /** Annotation `io.containerd.image.name`. */
  readonly name?: string
  /** Annotation `org.opencontainers.image.ref.name`. */
  readonly ref?: string
  /** Bytes of the file in the single layer. */
  readonly layerBytes?: number
  /** Leaves the layer out, as a damaged archive does. */
  readonly withoutLayer?: boolean
  /** The manifest names its layer twice. */
  readonly twice?: boolean
  /** The name is of an index, as that of an image for several platforms. */
  readonly nested?: boolean
  /** What the index says of the manifest's size, instead of the truth. */
  readonly claims?: unknown
  /** A header of pax before everything, as some tools write. */
  readonly pax?: boolean
}

/** A header that says something about the next file: here, what time it is from. */
const paxHeader = (): Buffer => {
  const text = Buffer.from("20 mtime=1700000000\n")
  const header = tarHeader("PaxHeaders/oci-layout", text.length)
  header.write("x", 156)
  header.write("        ", 148)
  let sum = 0
  for (const b of header) sum += b
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  return Buffer.concat([header, text, pad(text.length)])
}

/** Writes an archive to `path`; gives the digest of its manifest. */
export const writeOciArchive = (path: string, options: ArchiveOptions): string => {
  const content = Buffer.alloc(options.layerBytes ?? 1000, "kios")
  const layer = tarOf([["etc/kios", content]])
  const blob = (mediaType: string, b: Buffer) => ({
    mediaType,
    digest: `sha256:${sha256(b)}`,
    size: b.length,
  })
  const config = json({
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["/etc/kios"] },
    rootfs: {
      type: "layers",
      diff_ids: Array.from({ length: options.twice === true ? 2 : 1 }, () => `sha256:${sha256(layer)}`),
    },
  })
  const manifest = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: blob("application/vnd.oci.image.config.v1+json", config),
    layers: Array.from({ length: options.twice === true ? 2 : 1 }, () =>
      blob("application/vnd.oci.image.layer.v1.tar", layer),
    ),
  })
  const annotations: Record<string, string> = {}
  if (options.name !== undefined) annotations["io.containerd.image.name"] = options.name
  if (options.ref !== undefined) annotations["org.opencontainers.image.ref.name"] = options.ref
  const image = blob("application/vnd.oci.image.manifest.v1+json", manifest)
  const inner = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [{ ...image, platform: { os: "linux", architecture: "amd64" } }],
  })
  const named = options.nested === true ? blob("application/vnd.oci.image.index.v1+json", inner) : image
  const claimed = options.claims === undefined ? named : { ...named, size: options.claims }
  const index = json({ schemaVersion: 2, manifests: [{ ...claimed, annotations }] })
  const at = (b: Buffer) => `blobs/sha256/${sha256(b)}`
  const files: Array<readonly [string, Buffer]> = [
    ["oci-layout", json({ imageLayoutVersion: "1.0.0" })],
    ["index.json", index],
    [at(manifest), manifest],
    [at(config), config],
  ]
  if (options.withoutLayer !== true) files.push([at(layer), layer])
  if (options.nested === true) files.push([at(inner), inner])
  const tar = tarOf(files)
  fs.writeFileSync(path, options.pax === true ? Buffer.concat([paxHeader(), tar]) : tar)
  return named.digest
}
