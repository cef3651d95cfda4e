/**
 * The root that the node keeps.
 *
 * The kernel unpacks the image into its rootfs, which pivot_root(2), and with
 * it runc, cannot leave. So a small tmpfs becomes the root and the image's
 * directories are bind-mounted into it: nothing is copied.
 *
 * Both filesystems become read-only, and not only their mounts: runc remounts
 * the bind mount of a hostPath volume as writable, for pods without any
 * capability too, and only the filesystem itself refuses that.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel, type MountCall } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"
import { mountOne, type MountRow, strict } from "./MountTable.ts"

/** What the new root has. */
export interface RootSwitchOptions {
  /** Directories of the image to keep, read-only, and what is in them. */
  readonly keep: Readonly<Record<string, string>>
  /** Mount points to make in the new root, which is read-only afterwards. */
  readonly directories: ReadonlyArray<string>
  /** Symbolic links to make in the new root. */
  readonly links: Readonly<Record<string, string>>
  /**
   * Files of the image to remove, to get back their memory. Not `/init`: a file
   * that is unlinked while it runs keeps its filesystem from becoming
   * read-only (EBUSY), and no path leads to it from the new root.
   */
  readonly remove: ReadonlyArray<string>
}

/**
 * What the reference distro keeps and makes.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const stage = RootSwitch.make({
 *   ...RootSwitch.reference,
 *   directories: [...RootSwitch.reference.directories, "/srv"],
 * })
 * ```
 */
export const reference: RootSwitchOptions = {
  keep: {
    "/bin": "the image's programs, bound and not copied; exec",
    "/lib":
      "the image's libraries, modules, archives and defaults, bound and not copied; exec, because a library is mapped executable",
    "/lib64": "the loader of dynamic programs, where their headers name it; exec",
  },
  directories: ["/proc", "/sys", "/dev", "/run", "/tmp", "/etc", "/var", "/opt"],
  links: {},
  remove: [],
}

const NEW_ROOT = "/newroot"

/**
 * The mounts of a root, in order: the root itself and what is bound into it.
 * They are made below another directory, which then becomes the root.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const targets = RootSwitch.rows(RootSwitch.reference).map((row) => row.target) // ["/", "/bin", "/lib", "/lib64"]
 * ```
 */
export const rows = (
  options: Pick<RootSwitchOptions, "keep">,
): readonly [root: MountRow, ...binds: ReadonlyArray<MountRow>] => [
  {
    source: "kios-root",
    target: "/",
    fstype: "tmpfs",
    flags: ["MS_RDONLY", ...strict],
    options: "mode=0755,size=1M,nr_inodes=1k",
    why: "a root that pivot_root(2) accepts, for runc; nothing can be written or executed on it",
    reference: "Talos for ro, nosuid, nodev and shared; noexec is stricter: programs are in the mounts below",
  },
  ...Object.entries(options.keep).map(([directory, why]): MountRow => ({
    source: directory,
    target: directory,
    fstype: "none",
    flags: ["MS_BIND", "MS_RDONLY", "MS_NOSUID", "MS_NODEV", "MS_RELATIME"],
    why,
    reference: "Talos' read-only root; Documentation/filesystems/ramfs-rootfs-initramfs.rst",
  })),
]

/**
 * The reference distro's.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const readOnly = RootSwitch.mounts.every((row) => row.flags.includes("MS_RDONLY")) // true
 * ```
 */
export const mounts: ReadonlyArray<MountRow> = rows(reference)

/**
 * Switches the root. Must come before every other mount. `noexec` is right for
 * the new root itself: programs are in the mounts below it.
 *
 * mount(2), pivot_root(2) NOTES, Documentation/filesystems/ramfs-rootfs-initramfs.rst.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const program = RootSwitch.switchRoot(RootSwitch.reference)
 * ```
 */
export const switchRoot = Effect.fnUntraced(function* (options: RootSwitchOptions) {
  const kernel = yield* Kernel
  const [root, ...binds] = rows(options)
  const readOnly = Object.keys(options.keep)
  // The image is in RAM, and so is all that is mounted here.
  const mount = (call: Omit<MountCall, "fstype">) => kernel.mount({ ...call, fstype: "none", inRam: true })
  yield* kernel.makeDirectory(NEW_ROOT)
  yield* mountOne({ ...root, flags: strict }, NEW_ROOT)
  for (const bind of binds) {
    yield* kernel.makeDirectory(`${NEW_ROOT}${bind.target}`)
    yield* mountOne(bind, NEW_ROOT, true)
  }
  for (const directory of options.directories) yield* kernel.makeDirectory(`${NEW_ROOT}${directory}`)
  for (const [path, target] of Object.entries(options.links))
    yield* kernel.symlink(target, `${NEW_ROOT}${path}`)
  for (const path of options.remove) {
    yield* Effect.catchIf(
      kernel.unlink(path),
      (error) => error.errno === "ENOENT",
      () => Effect.void,
    )
  }
  // Without MS_BIND: the filesystem that all of the binds share.
  yield* mount({ source: "none", target: "/", flags: ["MS_REMOUNT", "MS_RDONLY"] })
  yield* kernel.chdir(NEW_ROOT)
  yield* mount({ source: ".", target: "/", flags: ["MS_MOVE"] })
  yield* kernel.chroot(".")
  yield* kernel.chdir("/")
  yield* mount({ source: "none", target: "/", flags: ["MS_REMOUNT", ...root.flags] })
  // After the move, which a shared parent would refuse: pods that ask for
  // Bidirectional mount propagation need it, and later mounts inherit it.
  yield* mount({ source: "none", target: "/", flags: ["MS_REC", "MS_SHARED"] })
  return { readOnly }
})

/**
 * The stage, for an image of one's own.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const root = RootSwitch.make({
 *   ...RootSwitch.reference,
 *   keep: { ...RootSwitch.reference.keep, "/usr": "programs of ours" },
 * })
 * ```
 */
export const make = (options: RootSwitchOptions) =>
  Stage.make({
    name: "root-switch",
    description: "a root that pivot_root accepts, with the image read-only on it",
    provides: [MountedRoot],
    tolerates: [{ operation: "unlink", errno: ["ENOENT"], because: "it is gone already", silent: true }],
    layer: Layer.effect(MountedRoot, switchRoot(options)),
  })

/**
 * The stage as the reference distro has it.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const smallest = Pipeline.make([RootSwitch.stage])
 * ```
 */
export const stage = make(reference)
