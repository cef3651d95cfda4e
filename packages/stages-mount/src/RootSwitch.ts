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
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"

/** What the new root has. */
export interface RootSwitchOptions {
  /** Directories of the image to keep, read-only. */
  readonly keep: ReadonlyArray<string>
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
  keep: ["/bin", "/lib", "/lib64"],
  directories: ["/proc", "/sys", "/dev", "/run", "/tmp", "/etc", "/var", "/opt"],
  links: {},
  remove: [],
}

const NEW_ROOT = "/newroot"

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
  yield* kernel.makeDirectory(NEW_ROOT)
  yield* kernel.mount({
    source: "kios-root",
    target: NEW_ROOT,
    fstype: "tmpfs",
    flags: ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
    options: "mode=0755,size=1M",
  })
  for (const directory of options.keep) {
    const target = `${NEW_ROOT}${directory}`
    yield* kernel.makeDirectory(target)
    yield* kernel.mount({ source: directory, target, fstype: "none", flags: ["MS_BIND"] })
    // The first bind takes its flags from its source; only a remount can add some.
    yield* kernel.mount({
      source: "none",
      target,
      fstype: "none",
      flags: ["MS_REMOUNT", "MS_BIND", "MS_RDONLY", "MS_NOSUID", "MS_NODEV"],
    })
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
  yield* kernel.mount({
    source: "none",
    target: "/",
    fstype: "none",
    flags: ["MS_REMOUNT", "MS_RDONLY"],
  })
  yield* kernel.chdir(NEW_ROOT)
  yield* kernel.mount({ source: ".", target: "/", fstype: "none", flags: ["MS_MOVE"] })
  yield* kernel.chroot(".")
  yield* kernel.chdir("/")
  yield* kernel.mount({
    source: "none",
    target: "/",
    fstype: "none",
    flags: ["MS_REMOUNT", "MS_RDONLY", "MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
  })
  // After the move, which a shared parent would refuse: pods that ask for
  // Bidirectional mount propagation need it, and later mounts inherit it.
  yield* kernel.mount({ source: "none", target: "/", fstype: "none", flags: ["MS_REC", "MS_SHARED"] })
  return { readOnly: options.keep }
})

/**
 * The stage, for an image of one's own.
 *
 * @example
 * ```ts
 * import * as RootSwitch from "@kios/stages-mount/RootSwitch"
 *
 * const root = RootSwitch.make({ ...RootSwitch.reference, keep: ["/bin", "/lib", "/lib64", "/usr"] })
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
