/**
 * Container images that are there before there is a network: OCI archives in
 * the image and on the data partition, imported through containerd's own API.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { BootReport } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { Images } from "@kios/core/capabilities/Images"
import * as ImageArchives from "./ImageArchives.ts"
import { ContainerdClient, pinnedImageLabels } from "./containerd/ContainerdClient.ts"
import type { ImageImportError } from "./containerd/ImageImport.ts"

/**
 * Where the image carries archives.
 *
 * @example
 * ```ts
 * import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
 *
 * const archive = `${ImagePreload.DIRECTORY}/pause.tar`
 * ```
 */
export const DIRECTORY = "/lib/kios/images"

/**
 * Where the data partition has archives: its directory `/data/images`.
 *
 * @example
 * ```ts
 * import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
 *
 * const archive = `${ImagePreload.DATA_DIRECTORY}/my-agent.tar`
 * ```
 */
export const DATA_DIRECTORY = "/run/kios/data/data/images"

// An import holds a quarter of a MiB: its memory is not what limits this.
const OWN_AT_ONCE = 4

// containerd died or was restarted during the import: that is no fault of the archive.
const interrupted = (error: ImageImportError) =>
  error.grpc !== undefined && ["UNAVAILABLE", "CANCELLED"].includes(error.grpc.code)

/** The archives of a directory; none when there is no such directory. */
const archivesOf = Effect.fnUntraced(function* (directory: string) {
  const kernel = yield* Kernel
  const names = yield* Effect.catch(kernel.readDirectory(directory), (error) =>
    Effect.as(
      error.errno === "ENOENT" ? Effect.void : Effect.logError(`no image was imported: ${error.message}`),
      [],
    ),
  )
  return names.filter((name) => name.endsWith(".tar")).sort()
})

/** Has containerd have the images of each archive; what is broken is told by name and skipped. */
const importAll = Effect.fnUntraced(function* (
  directory: string,
  archives: ReadonlyArray<string>,
  concurrency: number,
) {
  const containerd = yield* ContainerdClient
  const imported = yield* Effect.forEach(
    archives,
    (archive) =>
      containerd
        .importImage({ archive: `${directory}/${archive}`, labels: pinnedImageLabels, unlessThere: true })
        .pipe(
          Effect.retry({ while: interrupted, schedule: Schedule.spaced("2 seconds"), times: 10 }),
          Effect.map((images) => [{ archive, images }]),
          Effect.catch((error) =>
            Effect.as(Effect.logError(`image archive ${archive} was skipped: ${error.message}`), []),
          ),
        ),
    { concurrency },
  )
  const done = imported.flat()
  const images = done.flatMap((one) => one.images)
  return {
    archives: done.map(({ archive }) => archive),
    names: images.map(({ name }) => name),
    imported: images.filter(({ wasThere }) => wasThere !== true).length,
  }
})

/** Numbers of images for a milestone. */
const counts = (done: { readonly names: ReadonlyArray<string>; readonly imported: number }) => ({
  count: String(done.names.length),
  imported: String(done.imported),
})

/**
 * The stage, for directories of one's own. It is up when the images of
 * `directory` are in containerd; those of `dataDirectory` follow in the
 * background, so that no number of them delays the kubelet. An archive is sent
 * only when containerd does not have its images yet, by digest. One that is
 * broken is told by name and skipped. The archives of `directory` are unlinked
 * when they are in: they are in RAM. Images are pinned, so that the kubelet's
 * garbage collection leaves them alone.
 *
 * Milestones: `images-ready`, and `data-images-ready` when the data partition
 * has archives; each with how many images there are and how many were imported.
 *
 * @example
 * ```ts
 * import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
 *
 * const preload = ImagePreload.make("/lib/my-images", "/run/kios/data/my-images")
 * ```
 */
export const make = (directory: string, dataDirectory: string) =>
  Stage.make({
    name: "image-preload",
    description: "import the images that need no registry",
    criticality: "optional",
    requires: [ContainerdClient, DataPartition],
    provides: [Images],
    tolerates: [
      { operation: "readDirectory", errno: ["ENOENT"], because: "there are none", silent: true },
      { operation: "readDirectory", because: "registries have images, too" },
      ...ImageArchives.tolerances,
    ],
    timeout: "5 minutes",
    layer: Layer.effect(
      Images,
      Effect.gen(function* () {
        const report = yield* BootReport
        const { device } = yield* DataPartition
        // The kubelet waits for these: while containerd writes one, the next is on its way.
        const own = yield* importAll(directory, yield* archivesOf(directory), OWN_AT_ONCE)
        yield* ImageArchives.release(directory, own.archives)
        yield* report.milestone("images-ready", counts(own))
        const data = device === undefined ? [] : yield* archivesOf(dataDirectory)
        if (data.length > 0)
          yield* importAll(dataDirectory, data, 1).pipe(
            Effect.tap((done) => report.milestone("data-images-ready", counts(done))),
            Effect.forkScoped,
          )
        return { names: own.names }
      }),
    ),
  })

/**
 * The stage as the reference distro has it.
 *
 * @example
 * ```ts
 * import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
 *
 * const waitsFor = ImagePreload.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = make(DIRECTORY, DATA_DIRECTORY)
