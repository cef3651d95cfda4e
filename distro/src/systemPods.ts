/**
 * The pods that the reference distro carries, and the images that they are
 * made of.
 */
import { reference as runtime } from "@kios/stages-runtime/ContainerdConfig"
import { fileURLToPath } from "node:url"
import {
  component,
  type Layer,
  type LayerFile,
  local,
  type RecipeImage,
  type RecipePod,
} from "./ImageRecipe.ts"

const here = (file: string) => fileURLToPath(new URL(`../${file}`, import.meta.url))

const applets = (
  "awk base64 basename blkid cat chmod chown chroot cmp cp cut date dd df diff dirname dmesg du echo env expr false find " +
  "free grep gunzip gzip head hexdump hostname httpd id insmod ip kill less ln ls lsmod md5sum mkdir mkfifo mknod mktemp " +
  "modinfo modprobe more mount mv nc netstat nproc nsenter nslookup od ping ping6 printf ps pwd readlink realpath reboot " +
  "rm rmdir rmmod route sed seq setpriv setsid sh sha256sum sleep sort stat strings stty sync sysctl tail tar tee test " +
  "timeout top touch tr traceroute true udhcpc udhcpc6 umount uname uniq unshare uptime vi watch wc wget which xargs xzcat"
).split(" ")

const library = (name: string): LayerFile => ({
  path: `lib/${name}`,
  mode: 0o755,
  from: component("glibc", `lib/${name}`),
})

const base: Layer = {
  name: "base",
  why: "the C library and busybox, below every image but pause",
  files: [
    {
      path: "lib64/ld-linux-x86-64.so.2",
      mode: 0o755,
      from: component("glibc", "lib64/ld-linux-x86-64.so.2"),
    },
    library("libc.so.6"),
    // ntpd
    library("libm.so.6"),
    // busybox
    library("libresolv.so.2"),
    { path: "bin/busybox", mode: 0o755, from: component("busybox-dynamic", "bin/busybox-dynamic") },
    ...applets.map((name) => ({ path: `bin/${name}`, symlink: "busybox" })),
    { path: "tmp", directory: true, mode: 0o1777 },
  ],
}

const file = (path: string, from: string, mode = 0o644): LayerFile => ({
  path,
  mode,
  from: local(here(`images/${from}`)),
})

/**
 * The images' names, as manifests spell them.
 *
 * @example
 * ```ts
 * import { imageNames } from "@kios/distro/recipe"
 *
 * const container = { name: "main", image: imageNames.busybox, imagePullPolicy: "Never" }
 * ```
 */
export const imageNames = {
  pause: runtime.sandboxImage,
  busybox: "localhost/kios/busybox:1.37.0",
  dhcp: "localhost/kios/dhcp:1",
  ntp: "localhost/kios/ntp:1",
}

const labels = (title: string) => ({
  "org.opencontainers.image.title": title,
  "org.opencontainers.image.vendor": "kiOS",
})

/** The container images of the reference distro. */
export const images: ReadonlyArray<RecipeImage> = [
  {
    file: "pause",
    name: imageNames.pause,
    why: "the container that holds a pod's namespaces",
    config: { entrypoint: ["/pause"], user: "65535:65535" },
    files: [{ path: "pause", mode: 0o755, from: component("pause", "pause") }],
  },
  {
    file: "system",
    name: imageNames.busybox,
    why: "the sample pod, and the pods node-logs, modules and debug",
    config: { entrypoint: ["/bin/sh"], env: ["PATH=/bin"], labels: labels("busybox") },
    base: [base],
    files: [file("www/index.html", "busybox/index.html")],
  },
  {
    file: "system",
    name: imageNames.dhcp,
    why: "the dhcp pod",
    config: { entrypoint: ["/kios/dhcp"], env: ["PATH=/bin"], labels: labels("dhcp") },
    base: [base],
    files: [
      { path: "bin/rdisc6", mode: 0o755, from: component("ndisc6", "bin/rdisc6") },
      file("kios/dhcp", "dhcp/dhcp.sh", 0o755),
      file("kios/lease", "dhcp/lease.sh", 0o755),
      file("kios/lease6", "dhcp/lease6.sh", 0o755),
      file("kios/resolv", "dhcp/resolv.sh", 0o755),
    ],
  },
  {
    file: "system",
    name: imageNames.ntp,
    why: "the ntp pod",
    config: { entrypoint: ["/kios/ntp"], env: ["PATH=/bin"], labels: labels("ntp") },
    base: [base],
    files: [
      { path: "bin/ntpd", mode: 0o755, from: component("openntpd", "bin/ntpd") },
      file("kios/ntp", "ntp/ntp.sh", 0o755),
      file("etc/passwd", "ntp/passwd"),
      file("etc/group", "ntp/group"),
      // ntpd asks for its port by name.
      file("etc/services", "ntp/services"),
      // The root of the process that reads packets.
      { path: "run/openntpd", directory: true, mode: 0o755 },
    ],
  },
]

const pod = (name: string, why: string): RecipePod => ({
  name,
  why,
  from: local(here(`manifests/${name}.yaml`)),
})

/** The static pods of the reference distro. */
export const pods: ReadonlyArray<RecipePod> = [
  pod("dhcp", "the node's network"),
  pod("ntp", "the node's clock"),
  pod("node-logs", "the kubelet's and containerd's logs as a pod's"),
  pod("hello", "the sample pod"),
]
