/**
 * The root that the node keeps.
 *
 * The kernel unpacks the image into its rootfs, which pivot_root(2), and with
 * it runc, cannot leave. So a small tmpfs becomes the root and the image's
 * directories are bind-mounted into it: nothing is copied, and what is bound
 * becomes read-only, also for pods that mount the host's directories.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { MountedRoot } from "@kios/core/capabilities/MountedRoot"

export interface RootSwitchOptions {
  /** Directories of the image to keep, read-only. */
  readonly keep: ReadonlyArray<string>
  /** Mount points to make in the new root, which is read-only afterwards. */
  readonly directories: ReadonlyArray<string>
  /** Symbolic links to make in the new root. */
  readonly links: Readonly<Record<string, string>>
  /** Files of the image to remove: what nobody may run again, such as `/init`. */
  readonly remove: ReadonlyArray<string>
}

/** What the reference distro keeps and makes. */
export const reference: RootSwitchOptions = {
  keep: ["/bin", "/lib", "/lib64"],
  directories: ["/proc", "/sys", "/dev", "/run", "/tmp", "/etc", "/var", "/opt"],
  links: {},
  remove: ["/init"],
}

const NEW_ROOT = "/newroot"

/**
 * Switches the root. Must come before every other mount. `noexec` is right for
 * the new root itself: programs are in the mounts below it.
 *
 * mount(2), pivot_root(2) NOTES, Documentation/filesystems/ramfs-rootfs-initramfs.rst.
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
  yield* kernel.chdir(NEW_ROOT)
  yield* kernel.mount({ source: ".", target: "/", fstype: "none", flags: ["MS_MOVE"] })
  yield* kernel.chroot(".")
  yield* kernel.chdir("/")
  yield* kernel.mount({
    source: "none",
    target: "/",
    fstype: "none",
    flags: ["MS_REMOUNT", "MS_BIND", "MS_RDONLY", "MS_NOSUID", "MS_NODEV", "MS_NOEXEC"],
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
    layer: Layer.effect(MountedRoot, switchRoot(options)),
  })

/** The stage as the reference distro has it. */
export const stage = make(reference)
