/**
 * Container images that are there before there is a network: OCI archives in
 * the image, imported through containerd's own API.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { BootReport } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Images } from "@kios/core/capabilities/Images"
import * as ImageArchives from "./ImageArchives.ts"
import { ContainerdClient, pinnedImageLabels } from "./containerd/ContainerdClient.ts"

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
 * The stage, for a directory of one's own. An archive that is broken is told
 * by name and skipped; the others are imported, and then unlinked: they are in
 * RAM. Images are pinned, so that the kubelet's garbage collection leaves them
 * alone.
 *
 * @example
 * ```ts
 * import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
 *
 * const preload = ImagePreload.make("/lib/my-images")
 * ```
 */
export const make = (directory: string) =>
  Stage.make({
    name: "image-preload",
    description: "import the images that need no registry",
    criticality: "optional",
    requires: [ContainerdClient],
    provides: [Images],
    tolerates: [
      { operation: "readDirectory", errno: ["ENOENT"], because: "the image has none", silent: true },
      { operation: "readDirectory", because: "registries have images, too" },
      ...ImageArchives.tolerances,
    ],
    timeout: "5 minutes",
    layer: Layer.effect(
      Images,
      Effect.gen(function* () {
        const kernel = yield* Kernel
        const containerd = yield* ContainerdClient
        const report = yield* BootReport
        const archives = (yield* Effect.catch(kernel.readDirectory(directory), (error) =>
          Effect.as(
            error.errno === "ENOENT"
              ? Effect.void
              : Effect.logError(`no image was imported: ${error.message}`),
            [],
          ),
        )).filter((name) => name.endsWith(".tar"))
        const names: Array<string> = []
        const imported: Array<string> = []
        for (const archive of archives) {
          yield* containerd
            .importImage({ archive: `${directory}/${archive}`, labels: pinnedImageLabels })
            .pipe(
              Effect.tap((images) =>
                Effect.sync(() => {
                  imported.push(archive)
                  names.push(...images.map((image) => image.name))
                }),
              ),
              Effect.catch((error) =>
                Effect.logError(`image archive ${archive} was skipped: ${error.message}`),
              ),
            )
        }
        yield* ImageArchives.release(directory, imported)
        yield* report.milestone("images-ready", { count: String(names.length) })
        return { names }
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
export const stage = make(DIRECTORY)
