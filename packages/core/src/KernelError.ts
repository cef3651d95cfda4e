/**
 * The one error of the {@link Kernel} door: a system call, its errno and what
 * usually causes it.
 */
import * as Data from "effect/Data"

/**
 * A system call (or the file operation made of system calls) that failed.
 *
 * `errno` is the name that errno(3) gives it (`"EBUSY"`), `path` is what the
 * call was about, `args` the other arguments that matter for a diagnosis.
 *
 * @example
 * ```ts
 * import { KernelError } from "@kios/core/KernelError"
 *
 * const error = new KernelError({ syscall: "mount", errno: "ENODEV", path: "/data", args: { fstype: "btrfs" } })
 * console.log(error.message)
 * // mount("/data", fstype=btrfs): ENODEV (the kernel knows no such filesystem: is its module loaded?)
 * ```
 */
export class KernelError extends Data.TaggedError("KernelError")<{
  readonly syscall: string
  readonly errno: string
  readonly path?: string
  readonly args?: Readonly<Record<string, string | number>>
}> {
  override get message(): string {
    const shown = [
      ...(this.path === undefined ? [] : [JSON.stringify(this.path)]),
      ...Object.entries(this.args ?? {}).map(([key, value]) => `${key}=${value}`),
    ].join(", ")
    const hint = this.hint
    return `${this.syscall}(${shown}): ${this.errno}${hint === undefined ? "" : ` (${hint})`}`
  }

  /** What usually causes this errno from this call, in words; undefined when nothing useful can be said. */
  get hint(): string | undefined {
    const request = this.args?.["request"]
    // The older call of the two that load modules fails for the same reasons.
    const call = this.syscall === "init_module" ? "finit_module" : this.syscall
    return (
      (request === undefined ? undefined : hints[`${request} ${this.errno}`]) ??
      hints[`${call} ${this.errno}`] ??
      hints[this.errno]
    )
  }
}

// Keys are "syscall ERRNO", for ioctl(2) "REQUEST ERRNO", or just "ERRNO"; from the ERRORS section of each
// call's page in man-pages(2), worded as what to look at.
const hints: Readonly<Record<string, string>> = {
  "mount EACCES": "the device is write-protected, or permission is denied on the way to it",
  "mount EBADMSG": "a checksum of the filesystem is wrong: check it with fsck from another system",
  "mount EUCLEAN": "the filesystem is damaged: check it with fsck from another system",
  "mount EBUSY": "the target is a mount point already, or the source is in use",
  "mount EINVAL":
    "an option or flag that this filesystem does not know, a bad superblock, or a target that is no mount point",
  "mount ENODEV": "the kernel knows no such filesystem: is its module loaded?",
  "mount ENOENT": "the target directory or the source does not exist",
  "mount ENOTBLK": "the source is not a block device",
  "mount EPERM": "CAP_SYS_ADMIN is missing, or the mount is locked by another user namespace",
  "mount EROFS": "the device is read-only and the mount was not asked to be",
  "umount2 EBUSY": "something holds the mount: an open file, a working directory, or a mount below it",
  "umount2 EINVAL": "the target is not a mount point",
  "finit_module EEXIST": "the module is loaded already",
  "finit_module EKEYREJECTED":
    "the kernel only takes modules signed by a key that it knows (module.sig_enforce)",
  "finit_module ENOENT":
    "the module needs a symbol that no loaded module exports: load what it depends on first",
  "finit_module ENOEXEC": "not a module for this kernel: built for another version, or damaged",
  "finit_module ENODEV": "the device that this module drives is not present",
  "finit_module EOPNOTSUPP": "this kernel cannot decompress modules (CONFIG_MODULE_DECOMPRESS)",
  "finit_module ENOKEY": "it is signed by a key that this kernel does not know (module.sig_enforce)",
  "finit_module EBADMSG": "its signature is damaged (module.sig_enforce)",
  "finit_module EPERM": "CAP_SYS_MODULE is missing, or kernel.modules_disabled is set",
  "spawn ENOENT": "no such executable, or the loader that it names is missing",
  "spawn EACCES": "the file is not executable, or its mount is noexec",
  "spawn ENOEXEC": "not an executable for this machine",
  "write EINVAL": "the kernel refused the value",
  "write ENOENT": "no such file: is the filesystem mounted and the feature built in?",
  "BLKPG_ADD_PARTITION EBUSY": "the kernel has it already, or one that it overlaps",
  "BLKPG_ADD_PARTITION EINVAL":
    "it does not lie on the disk, or not at whole sectors, or the device is no whole disk",
  "BLKPG_RESIZE_PARTITION EBUSY": "it would overlap another partition",
  "BLKPG_RESIZE_PARTITION EINVAL":
    "it begins elsewhere, its length is not of whole sectors, or the device is no whole disk",
  "BLKPG_RESIZE_PARTITION ENXIO": "the kernel has no partition of this number",
  "EXT4_IOC_RESIZE_FS EBUSY": "it is being resized already",
  "EXT4_IOC_RESIZE_FS EINVAL":
    "a mounted filesystem cannot shrink, or its reserved descriptor blocks are inconsistent",
  "EXT4_IOC_RESIZE_FS ENOSPC": "the device is smaller than that",
  "EXT4_IOC_RESIZE_FS ENOTTY": "the filesystem is not ext4",
  "EXT4_IOC_RESIZE_FS EOPNOTSUPP":
    "it has features with which the kernel cannot grow it while it is mounted: use resize2fs from another system",
  "EXT4_IOC_RESIZE_FS EPERM":
    "CAP_SYS_RESOURCE is missing, or the filesystem has recorded errors: check it with e2fsck -f from another system",
  "inotify_add_watch EMFILE": "too many inotify instances: raise fs.inotify.max_user_instances",
  "inotify_add_watch ENOSPC": "too many watches: raise fs.inotify.max_user_watches",
  "listen EACCES": "its directory is missing, or may not be written to",
  "listen EADDRINUSE": "something is at that path already",
  "open ENODEV": "no driver serves this device",
  "chroot EPERM": "CAP_SYS_CHROOT is missing",
  "sethostname EPERM": "CAP_SYS_ADMIN is missing",
  "reboot EPERM": "CAP_SYS_BOOT is missing",
  EACCES: "permission denied",
  ELIBACC: "koffi's addon could not be loaded: it is missing, damaged, or for another machine",
  EMFILE: "this process has too many open files: raise RLIMIT_NOFILE",
  ENFILE: "the machine has too many open files: raise fs.file-max",
  ENOMEM: "out of memory",
  ENOSPC: "no space left on the filesystem",
  EPERM: "a capability is missing",
  EROFS: "the filesystem is read-only",
}
