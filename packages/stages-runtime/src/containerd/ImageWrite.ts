/**
 * Writes the images of an archive into containerd's store: each blob by one call, then the image records.
 *
 * containerd's own import (`Transfer.ts`) takes any archive, as a stream of which it grants 64 KiB at a time, and
 * looks for names and manifests itself. For an archive whose places are known this asks for a twentieth of the
 * messages: boots wait for them (docs/performance.md). containerd checks each blob against its digest.
 *
 * Source: core/content/helpers.go, core/images/handlers.go (labels for the garbage collection) and
 * core/transfer/local/import.go of containerd 2.4.
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ArchivedBlob, ArchivedImage, Layout } from "./ArchiveIndex.ts"
import type { FileUnreadable, OpenFile } from "./ArchiveUpload.ts"
import * as Content from "./Content.ts"
import type { Grpc } from "./Grpc.ts"
import { frameAround } from "./GrpcFrame.ts"
import { GrpcError } from "./GrpcStatus.ts"
import * as Images from "./Images.ts"
import * as Leases from "./Leases.ts"

/** The archive does not hold what its manifests name; `reason` says which digest. */
export class ArchiveDamaged extends Data.TaggedError("ArchiveDamaged")<{ readonly reason: string }> {}

/** What is asked for. */
export interface WriteRequest {
  readonly namespace: string
  readonly file: OpenFile
  readonly layout: Layout
  /** Labels of the image records. */
  readonly labels: Readonly<Record<string, string>>
  /** Name of the lease, which no other import has. */
  readonly lease: string
}

// Of a blob in one message. An import has one buffer for them, because what is outside of V8's heap stays until a
// collection.
const PIECE = 256 * 1024
// What is before the bytes; most of it are the labels of a manifest.
const HEAD = 32 * 1024
// A label for each layer, of some 150 bytes. Images of Docker have 127 at most.
const MAX_LAYERS = 200
const LEASE_HOURS = 24
// The image specification asks registries to take manifests of 4 MiB.
const MAX_MANIFEST = 4 * 1024 * 1024
const TIMEOUT = "10 seconds"

/** A blob of the archive, and what of it is said when it is not there. */
interface Planned extends ArchivedBlob {
  readonly digest: string
  readonly what: string
  readonly labels: Readonly<Record<string, string>>
}

const digestOf = (value: unknown): string | undefined => {
  const digest = (value as { readonly digest?: unknown } | null | undefined)?.digest
  return typeof digest === "string" ? digest : undefined
}

/** Config and layers of a manifest; undefined when it is something else, such as an index. */
const parse = (text: string) => {
  try {
    const { config, layers } = JSON.parse(text) as { readonly config?: unknown; readonly layers?: unknown }
    const digests = [config, ...(Array.isArray(layers) ? layers : [undefined])].map(digestOf)
    const [first, ...rest] = digests.filter((digest) => digest !== undefined)
    return first === undefined || rest.length + 1 < digests.length
      ? undefined
      : { config: first, layers: rest }
  } catch {
    return undefined
  }
}

/** The blobs of an image, its manifest last; undefined when that is nothing that this can write. */
const plan = (
  { file, layout }: WriteRequest,
  image: ArchivedImage,
): Effect.Effect<ReadonlyArray<Planned> | undefined, FileUnreadable | ArchiveDamaged> =>
  Effect.gen(function* () {
    const blob = (digest: string, what: string, labels: Readonly<Record<string, string>> = {}) =>
      Effect.suspend(() => {
        const at = layout.blobs?.get(digest)
        return at === undefined
          ? Effect.fail(new ArchiveDamaged({ reason: `${what} ${digest} not found in it` }))
          : Effect.succeed<Planned>({ ...at, digest, what, labels })
      })
    const manifest = yield* blob(image.digest, "manifest")
    if (manifest.size > MAX_MANIFEST || image.name === undefined) return undefined
    // A complete name, as containerd takes it for one; a tag alone is its own business.
    if (!/[/:@]/u.test(image.name) || image.mediaType === "") return undefined
    const content = Buffer.alloc(manifest.size)
    if ((yield* file.read(content, manifest.at)) < manifest.size)
      return yield* new ArchiveDamaged({ reason: `manifest ${image.digest} is cut` })
    const named = parse(content.toString("utf8"))
    if (named === undefined || named.layers.length > MAX_LAYERS) return undefined
    const children = [
      yield* blob(named.config, "config"),
      ...(yield* Effect.forEach(named.layers, (digest) => blob(digest, "layer"))),
    ]
    // By these the garbage collection goes on from a manifest to what it names.
    const labels = Object.fromEntries([
      ["containerd.io/gc.ref.content.config", named.config],
      ...named.layers.map((digest, index) => [`containerd.io/gc.ref.content.l.${index}`, digest]),
    ]) as Readonly<Record<string, string>>
    return [...children, { ...manifest, labels }]
  })

/** Sends a blob; whether it was sent, or was there before the first of its bytes, or is there since. */
const sendBlob = (
  grpc: Grpc,
  { file, lease, namespace }: WriteRequest,
  blob: Planned,
  buffer: Uint8Array,
): Effect.Effect<"sent" | "there" | "meanwhile", FileUnreadable | ArchiveDamaged | GrpcError> => {
  const { digest, labels, size: total, what } = blob
  const failed = (reason: string) =>
    new GrpcError({ method: Content.write, address: grpc.address, code: "INTERNAL", reason })
  let offset = 0
  return Effect.gen(function* () {
    const call = yield* grpc.open(Content.write, { namespace, lease })
    do {
      const length = Math.min(PIECE, total - offset)
      const head = Content.encodeWriteHead({
        ref: `${lease}-${digest}`,
        digest,
        total,
        offset,
        length,
        labels,
      })
      const framed = frameAround(buffer, head, length)
      if (framed === undefined) return yield* failed(`the labels of ${digest} are too long`)
      const read = yield* file.read(framed.payload, blob.at + offset)
      if (read < length) return yield* new ArchiveDamaged({ reason: `${what} ${digest} is cut` })
      // A refusal closes the call: what it says comes with the answer.
      yield* Effect.ignore(call.sendFrame(framed.frame))
      if (Option.isNone(yield* call.receive))
        return yield* failed(`the upload of ${digest} was ended before it was whole`)
      offset += length
    } while (offset < total)
    yield* call.closeSend
    return "sent" as const
  }).pipe(
    Effect.scoped,
    Effect.catchIf(
      (error) => error._tag === "GrpcError" && error.code === "ALREADY_EXISTS",
      () => Effect.sync(() => (offset === 0 ? ("there" as const) : ("meanwhile" as const))),
    ),
    Effect.mapError((error) =>
      error._tag === "GrpcError" && /unexpected commit (?:digest|size)/u.test(error.reason)
        ? new ArchiveDamaged({ reason: `${what} ${digest} is not what its name says` })
        : error,
    ),
  )
}

/** Has containerd have a blob, under our lease and with its labels. */
const writeBlob = (grpc: Grpc, request: WriteRequest, blob: Planned, buffer: Uint8Array) =>
  Effect.gen(function* () {
    let done = yield* sendBlob(grpc, request, blob, buffer)
    // Another import was faster. It is under our lease only when the first piece is answered so.
    if (done === "meanwhile") done = yield* sendBlob(grpc, request, blob, buffer)
    // Labels come with a blob's last piece: one that was there may lack them, and its children would be garbage.
    if (done !== "sent" && Object.keys(blob.labels).length > 0)
      yield* grpc.unary(
        Content.update,
        Content.encodeUpdateRequest(blob.digest, blob.labels),
        () => undefined,
        {
          namespace: request.namespace,
          timeout: TIMEOUT,
        },
      )
  })

/**
 * Writes all named images of an archive. Undefined, with nothing written, when one of them is nothing that this can
 * write: it has only a tag, or is an index of images for several platforms.
 */
export const write = (
  grpc: Grpc,
  request: WriteRequest,
): Effect.Effect<
  ReadonlyArray<Pick<Images.Image, "name" | "digest">> | undefined,
  FileUnreadable | ArchiveDamaged | GrpcError
> =>
  Effect.gen(function* () {
    const { labels, layout, lease, namespace } = request
    const options = { namespace, timeout: TIMEOUT } as const
    const blobs = new Map<string, Planned>()
    const records: Array<Images.NewImage> = []
    if (layout.blobs === undefined) return undefined
    for (const image of layout.images) {
      const own = yield* plan(request, image)
      if (own === undefined || image.name === undefined) return undefined
      for (const blob of own) blobs.set(blob.digest, blob)
      const { annotations, digest, mediaType, name } = image
      const size = layout.blobs.get(digest)?.size ?? 0
      records.push({ name, labels, digest, mediaType, size, annotations })
    }
    if (records.length === 0) return undefined
    const call = (method: string, message: Uint8Array) =>
      grpc.unary(method, message, () => undefined, options)
    const expires = new Date((yield* Clock.currentTimeMillis) + LEASE_HOURS * 3_600_000)
    yield* Effect.acquireRelease(call(Leases.create, Leases.encodeCreateRequest(lease, expires)), () =>
      Effect.ignore(call(Leases.remove, Leases.encodeDeleteRequest(lease))),
    )
    const buffer = Buffer.allocUnsafeSlow(HEAD + PIECE)
    for (const blob of blobs.values()) yield* writeBlob(grpc, request, blob, buffer)
    for (const record of records) {
      const message = Images.encodeImageRequest(record)
      yield* Effect.catchIf(
        call(Images.create, message),
        ({ code }) => code === "ALREADY_EXISTS",
        () => call(Images.update, message),
      )
    }
    return records.map(({ digest, name }) => ({ name, digest }))
  }).pipe(Effect.scoped)
