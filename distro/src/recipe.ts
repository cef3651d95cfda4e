/**
 * What is in the reference distro's EFI.
 */
import { fileURLToPath } from "node:url"
import { cloud } from "./profiles.ts"
import { component, local, type Recipe, type RecipeFile } from "./ImageRecipe.ts"
import { images, pods } from "./systemPods.ts"

export { imageNames } from "./systemPods.ts"

const here = (file: string) => fileURLToPath(new URL(`../${file}`, import.meta.url))

const binaries: ReadonlyArray<RecipeFile> = [
  {
    path: "/init",
    mode: 0o755,
    from: { _tag: "Init" },
    why: "PID 1: our program sealed into Node; no path leads to it once the root is switched",
  },
  {
    path: "/bin/containerd",
    mode: 0o755,
    from: component("containerd", "bin/containerd"),
    why: "the container runtime",
  },
  {
    path: "/bin/containerd-shim-runc-v2",
    mode: 0o755,
    from: component("containerd", "bin/containerd-shim-runc-v2"),
    why: "one process for each pod, so that pods outlive containerd",
  },
  { path: "/bin/runc", mode: 0o755, from: component("runc", "bin/runc"), why: "makes containers" },
  { path: "/bin/kubelet", mode: 0o755, from: component("kubelet", "bin/kubelet"), why: "runs pods" },
  {
    path: "/bin/mount",
    mode: 0o755,
    from: component("util-linux", "bin/mount"),
    why: "the kubelet executes it for volumes",
  },
  {
    path: "/bin/umount",
    mode: 0o755,
    from: component("util-linux", "bin/umount"),
    why: "the kubelet executes it for volumes",
  },
]

const library = (name: string, from: Parameters<typeof component>[0], why: string): RecipeFile => ({
  path: `/lib/${name}`,
  mode: 0o644,
  from: component(from, `lib/${name}`),
  why,
})

const libraries: ReadonlyArray<RecipeFile> = [
  {
    path: "/lib64/ld-linux-x86-64.so.2",
    // The kernel executes it as the interpreter of every dynamic program.
    mode: 0o755,
    from: component("glibc", "lib64/ld-linux-x86-64.so.2"),
    why: "the loader of /init, mount and umount",
  },
  library("libc.so.6", "glibc", "/init, mount, umount"),
  library("libm.so.6", "glibc", "/init"),
  library("libdl.so.2", "glibc", "/init"),
  library("libpthread.so.0", "glibc", "/init"),
  library("libstdc++.so.6", "gcc-libs", "/init"),
  library("libgcc_s.so.1", "gcc-libs", "/init"),
  library("libmount.so.1", "util-linux", "mount, umount"),
  library("libblkid.so.1", "util-linux", "libmount"),
  library("libselinux.so.1", "libselinux", "libmount"),
  library("libpcre2-8.so.0", "pcre2", "libselinux"),
  {
    path: "/lib/kios/koffi.node",
    mode: 0o644,
    from: component("koffi", "lib/koffi.node"),
    why: "init's system calls",
  },
]

const etc = (name: string, why: string): RecipeFile => ({
  path: `/lib/kios/etc/${name}`,
  mode: 0o644,
  from: local(here(`rootfs/etc/${name}`)),
  why,
})

// Below /lib/kios/etc: the lower layer of the overlay on /etc.
const configuration: ReadonlyArray<RecipeFile> = [
  etc("os-release", "the kubelet reports it as the node's osImage"),
  etc("passwd", "the kubelet does not start without it (user namespaces); runc resolves user names in it"),
  etc("group", "tty is the group of terminals"),
  etc("hosts", "the kubelet copies it into pods of the host's network"),
  etc("nsswitch.conf", "files before DNS for programs that ask"),
  etc("resolv.conf", "the kubelet's resolvConf; the dhcp pod writes it"),
  {
    path: "/lib/kios/etc/ssl/certs/ca-certificates.crt",
    mode: 0o644,
    from: component("ca-certificates", "etc/ssl/certs/ca-certificates.crt"),
    why: "containerd trusts registries by it",
  },
]

const cmdline = [
  "console=tty0",
  "console=ttyS0,115200",
  // Notices and worse: the kernel's own chatter would cost more than the boot on a serial line.
  "loglevel=6",
  // Init's records are not to be dropped by the limit for user space.
  "printk.devkmsg=on",
  // A kernel or init that dies is started again.
  "panic=10",
  // tmpfs as rootfs stops at half of the memory; ramfs does not.
  "rootfstype=ramfs",
  // 2 MiB of memory at once only for who asks for it: else what a daemon gave back is taken again (docs/soak.md).
  "transparent_hugepage=madvise",
  // Kernel hardening; see docs/security.md.
  "slab_nomerge",
  "pti=on",
  "module.sig_enforce=1",
  "proc_mem.force_override=never",
]

/**
 * The reference distro.
 *
 * @example
 * ```ts
 * import type { Recipe } from "@kios/distro/ImageRecipe"
 * import { recipe as reference } from "@kios/distro/recipe"
 *
 * const quiet: Recipe = { ...reference, cmdline: [...reference.cmdline, "quiet"] }
 * ```
 */
export const recipe: Recipe = {
  name: "kiOS",
  version: "0.1.0",
  init: here("src/init.ts"),
  files: [...binaries, ...libraries, ...configuration],
  images,
  pods,
  hardware: cloud,
  cmdline,
  // Measured in docs/performance.md: the largest step down in size that costs the boot next to nothing.
  compression: { compression: "zstd", level: 9 },
  // 10 MB more than by zstd, which is less than what the locales took; a quarter of the time to unpack and to pack.
  initCompression: { compression: "lz4", level: 3 },
}
