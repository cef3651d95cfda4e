/**
 * The containerd client of PID 1: readiness, image import and "which containers started".
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as CriRuntime from "./CriRuntime.ts"
import { makeGrpc } from "./Grpc.ts"
import type { GrpcError } from "./GrpcStatus.ts"
import * as Health from "./Health.ts"
import { importImage, type ImageImportError, type ImportedImage, type ImportRequest } from "./ImageImport.ts"
import * as Images from "./Images.ts"
import { stopTasks, type StopTasksOptions } from "./StopTasks.ts"
import { type TaskStart, taskStarts } from "./TaskStarts.ts"
import * as Version from "./Version.ts"

/**
 * The namespace that containerd's CRI plugin keeps the kubelet's images and containers in.
 *
 * @example
 * ```ts
 * import * as ContainerdClient from "@kios/stages-runtime/containerd/ContainerdClient"
 *
 * const client = ContainerdClient.make("/run/containerd/containerd.sock", ContainerdClient.kubernetesNamespace)
 * ```
 */
export const kubernetesNamespace = "k8s.io"

/**
 * Labels by which CRI sees an image at once and the kubelet's image garbage collection leaves it alone.
 *
 * @example
 * ```ts
 * import { ContainerdClient, pinnedImageLabels } from "@kios/stages-runtime/containerd/ContainerdClient"
 *
 * const preload = (archive: string) =>
 *   ContainerdClient.use((containerd) => containerd.importImage({ archive, labels: pinnedImageLabels }))
 * ```
 */
export const pinnedImageLabels: Readonly<Record<string, string>> = {
  "io.cri-containerd.image": "managed",
  "io.cri-containerd.pinned": "pinned",
}

/**
 * Calls to one containerd. Every call but {@link taskStarts} and {@link importImage} has a deadline of 10
 * seconds. All of them are interruptible, and work again when containerd was restarted.
 *
 * @example
 * ```ts
 * import { ContainerdClient, pinnedImageLabels } from "@kios/stages-runtime/containerd/ContainerdClient"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function* () {
 *   const containerd = yield* ContainerdClient
 *   yield* containerd.importImage({ archive: "/images/pause.tar", labels: pinnedImageLabels })
 * }).pipe(Effect.provide(ContainerdClient.layer("/run/containerd/containerd.sock")))
 * ```
 */
export class ContainerdClient extends Context.Service<
  ContainerdClient,
  {
    /** grpc.health.v1 for the whole server. */
    readonly health: Effect.Effect<Health.ServingStatus, GrpcError>
    /** containerd's own version. */
    readonly version: Effect.Effect<Version.ContainerdVersion, GrpcError>
    /** CRI's version call, the first thing that the kubelet asks; UNAVAILABLE while CRI is not initialised. */
    readonly criVersion: Effect.Effect<CriRuntime.CriVersion, GrpcError>
    /** See {@link importImage}. */
    readonly importImage: (
      request: ImportRequest,
    ) => Effect.Effect<ReadonlyArray<ImportedImage>, ImageImportError>
    /** All image records of the namespace. */
    readonly images: Effect.Effect<ReadonlyArray<Images.Image>, GrpcError>
    /** Ends the namespace's containers: see {@link stopTasks}. */
    readonly stopTasks: (options: Omit<StopTasksOptions, "namespace">) => Effect.Effect<void, GrpcError>
    /** See {@link taskStarts}. */
    readonly taskStarts: Stream.Stream<TaskStart>
  }
>()("kios/ContainerdClient") {
  /** A client for the socket, closed with the layer. */
  static readonly layer = (address: string, namespace: string = kubernetesNamespace) =>
    Layer.effect(ContainerdClient, make(address, namespace))
}

const callTimeout = "10 seconds"

/**
 * Makes a client for the unix socket at `address`; connects on the first call.
 *
 * @example
 * ```ts
 * import * as ContainerdClient from "@kios/stages-runtime/containerd/ContainerdClient"
 * import * as Effect from "effect/Effect"
 *
 * const client = Effect.scoped(ContainerdClient.make("/run/containerd/containerd.sock"))
 * ```
 */
export const make = (
  address: string,
  namespace: string = kubernetesNamespace,
): Effect.Effect<ContainerdClient["Service"], never, Scope.Scope> =>
  Effect.map(makeGrpc(address), (grpc) =>
    ContainerdClient.of({
      health: grpc.unary(Health.check, Health.encodeRequest(""), Health.decodeResponse, {
        timeout: callTimeout,
      }),
      version: grpc.unary(Version.method, new Uint8Array(0), Version.decodeResponse, {
        timeout: callTimeout,
      }),
      criVersion: grpc.unary(CriRuntime.version, new Uint8Array(0), CriRuntime.decodeVersionResponse, {
        timeout: callTimeout,
      }),
      importImage: (request) => importImage(grpc, namespace, request),
      images: grpc.unary(Images.list, Images.encodeListRequest([]), Images.decodeListResponse, {
        namespace,
        timeout: callTimeout,
      }),
      stopTasks: (options) => stopTasks(grpc, { ...options, namespace }),
      taskStarts: taskStarts(grpc, namespace),
    }),
  )
