/**
 * Which machines an image is for: a kernel, and the modules of it that the
 * image carries, in groups with their reasons. docs/files.md prints them.
 */
import type { Catalog } from "./components/catalog.ts"

/** Modules that are in the image for one reason. */
export interface ModuleGroup {
  readonly name: string
  /** One line for people: who needs them. */
  readonly why: string
  /** Names; what they need comes with them. */
  readonly modules: ReadonlyArray<string>
  /**
   * When they are loaded: before containerd, before the kubelet, or before pods, on every node; when a device is there
   * that they drive; or when somebody lists them (`kios.modules=`, modules-load.d).
   */
  readonly loaded: "boot" | "node" | "pods" | "device" | "listed"
  /**
   * Stored as a plain file, which loads fastest. Default: those of `boot`, `node` and `pods`. The others stay as Debian
   * compresses them: what most machines do not load is to take little of their memory.
   */
  readonly plain?: boolean
}

/** A kernel and its modules. */
export interface HardwareProfile {
  /** What `kios build --profile` knows it by, and the bill of materials. */
  readonly name: string
  /** The component that is the kernel. */
  readonly kernel: Extract<keyof Catalog, "kernel" | "kernel-generic">
  readonly modules: ReadonlyArray<ModuleGroup>
}

/**
 * The names of a profile's modules: those that are stored as plain files, and those that stay compressed.
 *
 * @example
 * ```ts
 * import { modulesOf } from "@kios/distro/HardwareProfile"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const plain = modulesOf(recipe.hardware).plain // ["overlay", ...]
 * ```
 */
export const modulesOf = (
  profile: HardwareProfile,
): { readonly plain: ReadonlyArray<string>; readonly compressed: ReadonlyArray<string> } => {
  const isPlain = (group: ModuleGroup) =>
    group.plain ?? (group.loaded !== "device" && group.loaded !== "listed")
  const names = (plain: boolean) => [
    ...new Set(profile.modules.filter((group) => isPlain(group) === plain).flatMap((group) => group.modules)),
  ]
  return { plain: names(true), compressed: names(false) }
}
