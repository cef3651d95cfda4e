/**
 * Imports an image archive. One whose places are known is written blob by blob (`ImageWrite.ts`); any other
 * goes through containerd's transfer service: one stream carries the file, a second one brings progress back
 * (which is the only way to learn what the archive's images are called).
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ArchiveIndex from "./ArchiveIndex.ts"
import * as ArchiveUpload from "./ArchiveUpload.ts"
import type { Grpc } from "./Grpc.ts"
import { GrpcError } from "./GrpcStatus.ts"
import { checkImage } from "./ImageCheck.ts"
import * as Images from "./Images.ts"
import * as ImageWrite from "./ImageWrite.ts"
import * as Namespaces from "./Namespaces.ts"
import * as Streaming from "./Streaming.ts"
import * as Transfer from "./Transfer.ts"

/** An archive to import. */
export interface ImportRequest {
  /** Path of an OCI layout or `docker save` archive: tar, also gzip or zstd compressed. */
  readonly archive: string
  /** Labels of the image records, such as `io.cri-containerd.pinned=pinned`. */
  readonly labels?: Readonly<Record<string, string>>
  /** Repository for images that the archive names by tag only; `localhost/<file name>` when absent. */
  readonly namePrefix?: string
  /** Unpack the layers now. When absent, the first container of the image does it. */
  readonly unpack?: Transfer.Unpack
  /**
   * Send nothing when containerd has all images that the archive names, with these digests and labels, and
   * they are whole. It takes an uncompressed archive with an index.json to tell; others are imported.
   */
  readonly unlessThere?: boolean
}

/** An image that an import saved. */
export interface ImportedImage {
  readonly name: string
  /** Digest of its manifest or index. */
  readonly digest: string
  /** It was there before, and nothing was sent. */
  readonly wasThere?: true
}

/**
 * The archive was not imported. containerd is as it was before, but for blobs that its next clean-up removes, and for
 * those of the archive's images that had been saved already.
 *
 * @example
 * ```ts
 * import { ContainerdClient } from "@kios/stages-runtime/containerd/ContainerdClient"
 * import * as Effect from "effect/Effect"
 *
 * const tolerant = ContainerdClient.use((containerd) => containerd.importImage({ archive: "/a.tar" })).pipe(
 *   Effect.catchTag("ImageImportError", (error) => Effect.logWarning(error.message)),
 * )
 * ```
 */
export class ImageImportError extends Data.TaggedError("ImageImportError")<{
  readonly archive: string
  readonly reason: string
  /** What containerd answered; absent when the fault was found on our side. */
  readonly grpc?: GrpcError
}> {
  override get message() {
    return `image archive ${this.archive} was not imported: ${this.reason}`
  }
}

let streams = 0
// Unique within a containerd: pid and counter tell calls apart, the clock tells this boot's pid 1 from the last one's.
const streamId = (kind: string): string =>
  `kios-${kind}-${process.pid}-${process.hrtime.bigint()}-${streams++}`

const prefixOf = (archive: string): string => {
  const file = archive.slice(archive.lastIndexOf("/") + 1).toLowerCase()
  const name = file
    .replace(/\.(?:tar|tgz|oci)(?:\.(?:gz|zst))?$/, "")
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "")
  return `localhost/${name === "" ? "image" : name}`
}

/**
 * Makes the namespace, if it is not there. In one that nothing was put into, containerd's garbage collection, which
 * runs right after containerd's start, takes a stream that was just registered for nobody's: it asks only the
 * namespaces that its database knows which streams are in use (plugins/streaming/manager.go, core/metadata/gc.go).
 * The transfer then fails with NOT_FOUND.
 */
const makeNamespace = (grpc: Grpc, namespace: string) =>
  grpc
    .unary(Namespaces.create, Namespaces.encodeCreateRequest(namespace), () => undefined, {
      timeout: "10 seconds",
    })
    .pipe(
      Effect.catchIf(
        ({ code }) => code === "ALREADY_EXISTS",
        () => Effect.void,
      ),
    )

/** The archive's images, if all of them are there and whole. */
const alreadyThere = (
  grpc: Grpc,
  namespace: string,
  archived: ReadonlyArray<ArchiveIndex.ArchivedImage>,
  prefix: string,
  labels: Readonly<Record<string, string>>,
) =>
  Effect.gen(function* () {
    if (archived.length === 0) return undefined
    // Those of these digests alone: a node has hundreds of others.
    const filters = archived.map(({ digest }) => `target.digest=="${digest}"`)
    const there = yield* grpc.unary(
      Images.list,
      Images.encodeListRequest(filters),
      Images.decodeListResponse,
      {
        namespace,
        timeout: "10 seconds",
      },
    )
    const records = ArchiveIndex.recordsOf(archived, prefix, labels, there)
    if (records === undefined) return undefined
    const whole = yield* Effect.forEach(records, ({ digest }) => checkImage(grpc, namespace, digest)).pipe(
      Effect.as(true),
      Effect.catchTag("ImageIncomplete", () => Effect.succeed(false)),
    )
    return whole
      ? records.map(({ digest, name }): ImportedImage => ({ name, digest, wasThere: true }))
      : undefined
  })

/**
 * Imports `request.archive` into `namespace` and gives what was saved.
 *
 * Memory does not depend on the archive's size. There is no deadline: containerd unpacks at the disk's
 * speed; wrap it in `Effect.timeout`, interruption cancels the transfer.
 *
 * Source: core/transfer/local/import.go, core/transfer/archive/importer.go of containerd 2.4.
 *
 * @example
 * ```ts
 * import { makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
 * import * as ImageImport from "@kios/stages-runtime/containerd/ImageImport"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.scoped(
 *   Effect.flatMap(makeGrpc("/run/containerd/containerd.sock"), (grpc) =>
 *     ImageImport.importImage(grpc, "k8s.io", { archive: "/images/pause.tar" }),
 *   ),
 * )
 * ```
 */
export const importImage = (
  grpc: Grpc,
  namespace: string,
  request: ImportRequest,
): Effect.Effect<ReadonlyArray<ImportedImage>, ImageImportError> =>
  Effect.gen(function* () {
    const file = yield* ArchiveUpload.openFile(request.archive)
    const namePrefix = request.namePrefix ?? prefixOf(request.archive)
    const layout = yield* ArchiveIndex.readLayout(file)
    if (request.unlessThere === true && layout !== undefined) {
      const there = yield* alreadyThere(grpc, namespace, layout.images, namePrefix, request.labels ?? {})
      if (there !== undefined) return there
    }
    if (layout !== undefined && request.unpack === undefined) {
      const written = yield* ImageWrite.write(grpc, {
        namespace,
        file,
        layout,
        labels: request.labels ?? {},
        lease: streamId("import"),
      })
      if (written !== undefined) return written
    }
    yield* makeNamespace(grpc, namespace)
    const openStream = (kind: string) =>
      Effect.gen(function* () {
        const id = streamId(kind)
        const call = yield* grpc.open(Streaming.stream, { namespace })
        yield* ArchiveUpload.register(call, id, grpc.address)
        return { id, call }
      })
    const [archive, progress] = yield* Effect.all([openStream("import"), openStream("progress")], {
      concurrency: 2,
    })

    let uploadError: GrpcError | undefined
    const upload = ArchiveUpload.upload(archive.call, file, grpc.address).pipe(
      Effect.catchTag("GrpcError", (e) => {
        // The transfer knows more about why. Cancelling the stream makes it end if it has not yet.
        uploadError = e
        return archive.call.cancel
      }),
      Effect.andThen(Effect.never),
    )
    const transfer = grpc
      .unary(
        Transfer.method,
        Transfer.encodeImport({
          stream: archive.id,
          progressStream: progress.id,
          namePrefix,
          labels: request.labels ?? {},
          unpack: request.unpack,
        }),
        () => undefined,
        { namespace },
      )
      .pipe(
        Effect.mapError((grpc) => {
          const sending = uploadError === undefined ? "" : ` (sending it: ${uploadError.message})`
          const reason = grpc.code === "UNKNOWN" ? grpc.reason : `${grpc.code}: ${grpc.reason}`
          return new ImageImportError({ archive: request.archive, reason: `${reason}${sending}`, grpc })
        }),
      )
    const saved: Array<ImportedImage> = []
    const follow = Effect.gen(function* () {
      while (true) {
        const next = yield* progress.call.receive
        if (Option.isNone(next)) return
        const step = yield* Effect.try({
          try: () => Streaming.decodeProgress(next.value),
          catch: (e) =>
            new GrpcError({
              method: Streaming.stream,
              address: grpc.address,
              code: "INTERNAL",
              reason: `malformed progress: ${e instanceof Error ? e.message : String(e)}`,
            }),
        })
        if (step?.event === "saved") saved.push({ name: step.name, digest: step.digest })
        // Sent before the transfer's own answer; the stream may stay open after it.
        if (step?.event === "Completed import") return
      }
    })
    // The archive's stream may never end by itself: what follows the end of the tar is not read by containerd.
    yield* Effect.raceFirst(Effect.all([transfer, follow], { concurrency: 2, discard: true }), upload)
    if (saved.length === 0) {
      return yield* new ImageImportError({
        archive: request.archive,
        reason:
          "no image in it has a name: index.json needs the annotation io.containerd.image.name or " +
          "org.opencontainers.image.ref.name on its manifests",
      })
    }
    yield* Effect.forEach(saved, ({ digest }) => checkImage(grpc, namespace, digest), { discard: true }).pipe(
      Effect.catchTag("ImageIncomplete", (e) =>
        // A name that points at half an image is worse than none: the kubelet would not look further.
        Effect.forEach(
          saved,
          ({ name }) =>
            Effect.ignore(
              grpc.unary(Images.remove, Images.encodeDeleteRequest(name), () => undefined, {
                namespace,
                timeout: "10 seconds",
              }),
            ),
          { discard: true },
        ).pipe(
          Effect.andThen(
            Effect.fail(
              new ImageImportError({ archive: request.archive, reason: `it is damaged: ${e.reason}` }),
            ),
          ),
        ),
      ),
    )
    return saved
  }).pipe(
    Effect.scoped,
    Effect.catchTag("ArchiveDamaged", ({ reason }) =>
      Effect.fail(new ImageImportError({ archive: request.archive, reason: `it is damaged: ${reason}` })),
    ),
    Effect.catchTag("FileUnreadable", (e) =>
      Effect.fail(new ImageImportError({ archive: request.archive, reason: e.reason })),
    ),
    Effect.catchTag("GrpcError", (grpc) =>
      Effect.fail(new ImageImportError({ archive: request.archive, reason: grpc.message, grpc })),
    ),
  )
