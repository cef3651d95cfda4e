/**
 * Checks that all content of an image is in containerd's store.
 *
 * containerd names what it imports by the digest of the bytes that came, and does not look whether a
 * manifest's config and layers are among them (unless it unpacks). So a layer with one flipped bit imports
 * without an error and only fails when the kubelet starts the pod. This check finds it at import time; it
 * reads manifests only, never layers.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Content from "./Content.ts"
import type { Grpc } from "./Grpc.ts"
import type { GrpcError } from "./GrpcStatus.ts"

/** The image is not whole; `reason` names the digest that is missing or wrong. */
export class ImageIncomplete extends Data.TaggedError("ImageIncomplete")<{ readonly reason: string }> {}

// The image specification asks registries to take manifests of 4 MiB.
const maxManifestBytes = 4 * 1024 * 1024
// Index, platform's manifest, and one level for an index in an index.
const maxDepth = 3
const callTimeout = "10 seconds"

const digestsOf = (value: unknown): ReadonlyArray<string> =>
  (Array.isArray(value) ? value : [value]).flatMap((d) => {
    const digest =
      typeof d === "object" && d !== null ? (d as { readonly digest?: unknown }).digest : undefined
    return typeof digest === "string" ? [digest] : []
  })

/**
 * Succeeds when the image with the manifest or index `digest` is whole: a manifest needs its config and all
 * layers, an index at least one of its manifests (archives commonly carry one platform of many), and each
 * manifest that is there must be whole.
 */
export const checkImage = (
  grpc: Grpc,
  namespace: string,
  digest: string,
): Effect.Effect<void, ImageIncomplete | GrpcError> => {
  const options = { namespace, timeout: callTimeout } as const

  const exists = (digest: string) =>
    grpc.unary(Content.info, Content.encodeDigestRequest(digest), Content.decodeInfoResponse, options).pipe(
      Effect.as(true),
      Effect.catchIf(
        (e) => e.code === "NOT_FOUND",
        () => Effect.succeed(false),
      ),
    )
  const need = (digest: string, what: string) =>
    Effect.flatMap(exists(digest), (there) =>
      there ? Effect.void : Effect.fail(new ImageIncomplete({ reason: `${what} ${digest} not found in it` })),
    )
  const readJson = (digest: string) =>
    Effect.gen(function* () {
      const request = Content.encodeDigestRequest(digest)
      const { size } = yield* grpc.unary(Content.info, request, Content.decodeInfoResponse, options)
      if (size > maxManifestBytes)
        return yield* new ImageIncomplete({ reason: `manifest ${digest} has ${size} bytes, more than 4 MiB` })
      const parts = yield* Stream.runCollect(
        grpc.serverStream(Content.read, request, Content.decodeReadResponse, options),
      )
      return yield* Effect.try({
        try: (): unknown => JSON.parse(Buffer.concat(parts).toString("utf8")),
        catch: () => new ImageIncomplete({ reason: `manifest ${digest} is not JSON` }),
      })
    })

  const walk = (digest: string, depth: number): Effect.Effect<void, ImageIncomplete | GrpcError> =>
    Effect.gen(function* () {
      if (depth > maxDepth)
        return yield* new ImageIncomplete({ reason: `index ${digest} is nested too deep` })
      const json = yield* readJson(digest)
      if (typeof json !== "object" || json === null)
        return yield* new ImageIncomplete({ reason: `manifest ${digest} is not an object` })
      if ("manifests" in json) {
        const present: Array<string> = []
        for (const child of digestsOf(json.manifests)) if (yield* exists(child)) present.push(child)
        if (present.length === 0)
          return yield* new ImageIncomplete({
            reason: `none of the manifests of index ${digest} found in it`,
          })
        for (const child of present) yield* walk(child, depth + 1)
        return
      }
      const config = "config" in json ? digestsOf(json.config) : []
      if (config.length !== 1)
        return yield* new ImageIncomplete({ reason: `manifest ${digest} names no config` })
      yield* need(config[0]!, "config")
      for (const layer of "layers" in json ? digestsOf(json.layers) : []) yield* need(layer, "layer")
    })
  return walk(digest, 1)
}
