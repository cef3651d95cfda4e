/**
 * What is in an image, as data: every file with where it comes from and why it
 * is there. The builder executes it and docs/files.md prints it.
 */
import type { Catalog } from "./components/catalog.ts"
import type { HardwareProfile } from "./HardwareProfile.ts"
import type { WriteOptions } from "./image/Initramfs.ts"
import type * as OciArchive from "./image/OciArchive.ts"

/** Where a file comes from. */
export type Origin =
  /** A file of a component. */
  | { readonly _tag: "Component"; readonly component: keyof Catalog; readonly file: string }
  /** A file of the build machine: absolute path. */
  | { readonly _tag: "Local"; readonly file: string }

/** One file of the image. */
export interface RecipeFile {
  readonly path: string
  readonly mode: number
  readonly from: Origin | { readonly _tag: "Init" }
  /** One line for people: who needs it. */
  readonly why: string
}

/** A file, link or directory of a container image. */
export type LayerFile =
  | { readonly path: string; readonly mode: number; readonly from: Origin }
  | { readonly path: string; readonly symlink: string }
  | { readonly path: string; readonly directory: true; readonly mode: number }

/** Files that images share: one value, so that it is stored and imported once. */
export interface Layer {
  readonly name: string
  readonly why: string
  readonly files: ReadonlyArray<LayerFile>
}

/** A container image that the EFI carries. */
export interface RecipeImage {
  /** File name below /lib/kios/images, without `.tar`; images with the same are in one archive, where they share layers. */
  readonly file: string
  readonly name: string
  readonly why: string
  /** What runs, as whom, with which environment and labels. */
  readonly config: OciArchive.Recipe["config"]
  /** Layers below the image's own files, from the bottom up. */
  readonly base?: ReadonlyArray<Layer>
  readonly files: ReadonlyArray<LayerFile>
}

/** A static pod of the image: a manifest below /etc/kubernetes/manifests. */
export interface RecipePod {
  /** Its name; the manifest is `NAME.yaml`. A file of that name on the data partition replaces it. */
  readonly name: string
  readonly why: string
  readonly from: Origin
}

/** An image archive that somebody else made, taken as it is. */
export interface RecipeArchive {
  /** File name below /lib/kios/images, without `.tar`. */
  readonly file: string
  readonly why: string
  readonly from: Origin
}

/** An image: its files and container images, the kernel's modules and command line, and how it is packed. */
export interface Recipe {
  /** Shown by the firmware and in /etc/os-release. */
  readonly name: string
  readonly version: string
  /** Module whose last statement is `Init.start(...)`. */
  readonly init: string
  readonly files: ReadonlyArray<RecipeFile>
  readonly images: ReadonlyArray<RecipeImage>
  /** Archives besides those that are made of `images`. */
  readonly archives?: ReadonlyArray<RecipeArchive>
  /** Static pods. */
  readonly pods?: ReadonlyArray<RecipePod>
  /** The kernel and its modules. */
  readonly hardware: HardwareProfile
  /** Kernel command line, one parameter an element. */
  readonly cmdline: ReadonlyArray<string>
  /** How the image is packed. */
  readonly compression: Pick<WriteOptions, "compression" | "level">
  /** How `/init` is packed, which is packed anew after each change of it (default: as the rest). */
  readonly initCompression?: Pick<WriteOptions, "compression" | "level">
  /** Whether init may use `Intl` and what else needs the data of locales: 33 MB (default false). */
  readonly locales?: boolean
}

/**
 * A file of a component.
 *
 * @example
 * ```ts
 * import { component, type RecipeFile } from "@kios/distro/ImageRecipe"
 *
 * const runc: RecipeFile = {
 *   path: "/bin/runc",
 *   mode: 0o755,
 *   from: component("runc", "bin/runc"),
 *   why: "makes containers",
 * }
 * ```
 */
export const component = (name: keyof Catalog, file: string): Origin => ({
  _tag: "Component",
  component: name,
  file,
})

/**
 * A file of the build machine.
 *
 * @example
 * ```ts
 * import { local, type RecipeFile } from "@kios/distro/ImageRecipe"
 * import * as path from "node:path"
 *
 * const hosts: RecipeFile = {
 *   path: "/lib/kios/etc/hosts",
 *   mode: 0o644,
 *   from: local(path.resolve("hosts")),
 *   why: "the kubelet copies it into pods of the host's network",
 * }
 * ```
 */
export const local = (file: string): Origin => ({ _tag: "Local", file })
