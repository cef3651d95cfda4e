/**
 * Kernel modules without modprobe and udev: those of a list, and the drivers
 * of the devices that are there.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { Etc } from "@kios/core/capabilities/Etc"
import { Modules } from "@kios/core/capabilities/Modules"
import { Images } from "@kios/core/capabilities/Images"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as ModprobeConfig from "./ModprobeConfig.ts"
import * as ModuleLoader from "./ModuleLoader.ts"
import { scan } from "./Devices.ts"
import { devices, loading, looks, requests } from "./internal/moduleTolerances.ts"

/**
 * What the container runtime cannot start without, whatever the machine: its
 * snapshotter and the data partition's filesystem. Drivers of disks are found
 * by the devices that are there.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const modules = KernelModules.stages({
 *   boot: [...KernelModules.bootModules, "dm_crypt"],
 *   node: KernelModules.nodeModules,
 * })
 * ```
 */
export const bootModules: ReadonlyArray<string> = ["overlay", "ext4"]

/**
 * What a node needs before its kubelet runs: bridges whose packets iptables
 * sees, connection tracking, and the links of pods. They load while the
 * runtime comes up.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const inImage = [...KernelModules.bootModules, ...KernelModules.nodeModules, ...KernelModules.podModules]
 * ```
 */
export const nodeModules: ReadonlyArray<string> = ["br_netfilter", "veth", "nf_conntrack"]

/**
 * What kube-proxy and the usual CNI plugins take for granted. They get them on
 * other systems because the kernel asks modprobe for them; here it asks nobody
 * (see {@link stages}), and they load while the kubelet comes up.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const forCilium = [...KernelModules.podModules, "xt_socket", "xt_TPROXY", "xt_CT"]
 * ```
 */
export const podModules: ReadonlyArray<string> = [
  "vxlan",
  // kube-proxy and portmap by iptables: that on top of nftables, and the older one.
  "nft_compat",
  "nft_chain_nat",
  "iptable_filter",
  "iptable_nat",
  "iptable_mangle",
  "ip6table_filter",
  "ip6table_nat",
  "ip6table_mangle",
  "xt_addrtype",
  "xt_comment",
  "xt_conntrack",
  "xt_mark",
  "xt_MASQUERADE",
  "xt_multiport",
  "xt_nat",
  "xt_recent",
  "xt_statistic",
  "xt_tcpudp",
  "ipt_REJECT",
  "ip6t_REJECT",
  // kube-proxy by nftables.
  "nft_ct",
  "nft_fib_inet",
  "nft_masq",
  "nft_nat",
  "nft_numgen",
  "nft_reject_inet",
  "nf_conntrack_netlink",
]

/**
 * Where the image has its defaults of modprobe.d(5), before there is an `/etc`.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const file = `${KernelModules.IMAGE_MODPROBE_D}/kios.conf`
 * ```
 */
export const IMAGE_MODPROBE_D = "/lib/kios/etc/modprobe.d"

/**
 * Where the data partition has modules of its own: files to load at every boot,
 * and for each kernel release a directory as depmod(8) leaves it.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const forThisKernel = (release: string) => `${KernelModules.DATA_MODULES}/${release}/modules.dep`
 * ```
 */
export const DATA_MODULES = "/run/kios/data/modules"

const MODPROBE_D = "/etc/modprobe.d"
const MODULES_LOAD_D = "/etc/modules-load.d"

/**
 * Whether a module is what stands between a machine and its disks: a controller, a disk, or a bus that they are on.
 *
 * @param path the module's file, relative to its release's directory
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * KernelModules.isStorage("kernel/drivers/scsi/virtio_scsi.ko") // true
 * KernelModules.isStorage("kernel/drivers/net/virtio_net.ko") // false
 * ```
 */
export const isStorage = (path: string): boolean =>
  /(^|\/)drivers\/(ata|block|firewire|hv\/hv_vmbus|memstick|message|misc\/cardreader|mmc|nvdimm|nvme|pci|scsi|ufs|usb\/(common|core|host|storage)|virtio\/virtio_(mmio|pci)|xen)\b/u.test(
    path,
  )

/** Writing nothing is no write: the line end is what makes it empty. */
const noRequests = Effect.gen(function* () {
  const kernel = yield* Kernel
  yield* Effect.catch(kernel.writeControl("/proc/sys/kernel/modprobe", "\n"), (error) =>
    error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message),
  )
})

/** Names that files of modules-load.d(5) list, with the file. */
const listed = Effect.map(ModuleLoader.configFiles(MODULES_LOAD_D), (files) =>
  files.flatMap(({ path, text }) =>
    ModprobeConfig.parseLoadList(text).map((name) => ({ name, by: path }) as const),
  ),
)

const imageList = "the image's own list"

const bootLoad = Effect.fnUntraced(function* (list: ReadonlyArray<string>) {
  yield* noRequests
  const { values } = yield* Cmdline
  const loader = yield* ModuleLoader.make({
    directories: [yield* ModuleLoader.imageModules],
    configuration: [IMAGE_MODPROBE_D],
  })
  for (const name of list) yield* loader.request(name, imageList)
  // Those of the command line too: one may be the driver of the data partition's disk.
  for (const name of values.modules) yield* loader.request(name, "kios.modules=")
  yield* loader.devices(isStorage)
  return { loaded: loader.loaded, devices: loader.seen }
})

const nodeLoad = Effect.fnUntraced(function* (list: ReadonlyArray<string>) {
  const kernel = yield* Kernel
  const loader = yield* ModuleLoader.make({
    directories: [yield* ModuleLoader.imageModules],
    configuration: [MODPROBE_D],
  })
  yield* loader.devices()
  for (const name of list) yield* loader.request(name, imageList)
  // A name that the image does not have may be one of the data partition's, whose stage is next.
  const more = yield* Effect.catch(kernel.stat(DATA_MODULES), () => Effect.succeed(undefined))
  for (const { by, name } of yield* listed)
    if (more === undefined || loader.knows(name)) yield* loader.request(name, by)
  yield* loader.undriven
  return { loaded: loader.loaded, devices: loader.seen }
})

const podLoad = Effect.fnUntraced(function* (list: ReadonlyArray<string>) {
  const loader = yield* ModuleLoader.make({
    directories: [yield* ModuleLoader.imageModules],
    configuration: [MODPROBE_D],
  })
  for (const name of list) yield* loader.request(name, imageList)
})

/** The files of a directory, each loaded; those that need a symbol of another one when that is in. */
const loadFiles = Effect.fnUntraced(function* (directory: string, names: ReadonlyArray<string>) {
  const kernel = yield* Kernel
  const loaded: Array<string> = []
  let left = names
  for (let progress = true; progress && left.length > 0;) {
    const failed: Array<{ readonly name: string; readonly message: string }> = []
    for (const name of left)
      yield* kernel.loadModule(`${directory}/${name}`).pipe(
        Effect.tap(() => Effect.sync(() => loaded.push(name))),
        Effect.catch((error) =>
          Effect.sync(() => {
            if (error.errno !== "EEXIST") failed.push({ name, message: error.message })
          }),
        ),
      )
    progress = failed.length < left.length
    left = failed.map(({ name }) => name)
    if (!progress || left.length === 0)
      for (const { message, name } of failed)
        yield* Effect.logWarning(`module ${name} of the data partition was not loaded: ${message}`)
  }
  return loaded
})

/** What the data partition's `/modules` has: see docs/modules.md. */
const dataLoad = Effect.gen(function* () {
  const kernel = yield* Kernel
  const { device } = yield* DataPartition
  const names =
    device === undefined
      ? []
      : yield* Effect.catch(kernel.readDirectory(DATA_MODULES), (error) =>
          Effect.as(
            error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message),
            [] as ReadonlyArray<string>,
          ),
        )
  if (names.length === 0) return
  const image = yield* ModuleLoader.imageModules
  const release = image.slice(image.lastIndexOf("/") + 1)
  const flat = names.filter((name) => /\.ko(\.(xz|zst|gz))?$/u.test(name))
  const files = yield* loadFiles(DATA_MODULES, flat)
  const own = names.includes(release) ? [`${DATA_MODULES}/${release}`] : []
  const loader = yield* ModuleLoader.make({ directories: [image, ...own], configuration: [MODPROBE_D] })
  if (own.length > 0) yield* loader.devices()
  for (const { by, name } of yield* listed) yield* loader.request(name, by)
  const loaded = [...files, ...loader.loaded]
  if (loaded.length > 0) yield* Effect.logInfo(`modules of the data partition: ${loaded.join(", ")}`)
})

const watch = Effect.fnUntraced(function* (
  already: ReadonlySet<string>,
  accepts: (path: string) => boolean,
  configuration: string,
  schedule: Schedule.Schedule<unknown>,
) {
  const seen = new Set(already)
  const directory = yield* ModuleLoader.imageModules
  const look = Effect.gen(function* () {
    // What is known of modules takes memory: it is read again when there is something to look up.
    if ((yield* scan(new Set(seen))).length === 0) return
    const loader = yield* ModuleLoader.make({
      directories: [directory],
      configuration: [configuration],
      seen,
    })
    yield* loader.devices(accepts)
    if (loader.loaded.length > 0)
      yield* Effect.logInfo(`for new devices: modules ${loader.loaded.join(", ")}`)
  })
  yield* look.pipe(
    Effect.schedule(schedule),
    Effect.catchCause((cause) => Effect.logWarning("no longer looking for new devices", cause)),
    Effect.forkScoped,
  )
})

/**
 * The stages: what the runtime waits for; what the kubelet waits for; what
 * pods' networks take for granted; what the data partition adds; and two that
 * look for devices that come later.
 *
 * `boot-modules` also switches the kernel's own requests for modules off
 * (`kernel.modprobe` is empty): there is no modprobe that could serve them.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const { boot, node, pods } = KernelModules.stages({
 *   boot: [...KernelModules.bootModules, "dm_crypt"],
 *   node: KernelModules.nodeModules,
 *   pods: KernelModules.podModules,
 * })
 * ```
 */
export const stages = (options: {
  readonly boot: ReadonlyArray<string>
  readonly node: ReadonlyArray<string>
  readonly pods?: ReadonlyArray<string>
}) => ({
  boot: Stage.make({
    name: "boot-modules",
    description: `kernel modules that the runtime waits for: ${options.boot.join(", ")}, and the drivers of disks`,
    // A controller with many disks takes its time.
    timeout: "3 minutes",
    requires: [PseudoFilesystems, Cmdline],
    provides: [BootModules],
    tolerates: [...loading(["etc-overlay"]), ...devices, ...requests],
    layer: Layer.effect(BootModules, bootLoad(options.boot)),
  }),
  /** Disks that appear while the data partition is waited for, and a while after. */
  disks: Stage.make({
    name: "disk-watch",
    description: "drivers of disks that appear late",
    criticality: "optional",
    requires: [Cmdline, BootModules],
    tolerates: [...loading([]), ...devices],
    layer: Layer.effectDiscard(
      Effect.flatMap(BootModules, ({ devices: already = new Set<string>() }) =>
        watch(
          already,
          isStorage,
          IMAGE_MODPROBE_D,
          Schedule.exponential("250 millis", 2).pipe(Schedule.upTo({ duration: "1 minute" })),
        ),
      ),
    ),
  }),
  node: Stage.make({
    name: "node-modules",
    description: `kernel modules that the kubelet waits for: ${options.node.join(", ")}, the drivers of all devices, and what is listed in /etc`,
    timeout: "3 minutes",
    requires: [PseudoFilesystems, Cmdline, BootModules, Etc],
    provides: [Modules],
    tolerates: [...loading([]), ...devices, looks],
    layer: Layer.effect(Modules, nodeLoad(options.node)),
  }),
  pods: Stage.make({
    name: "pod-modules",
    description: "kernel modules that kube-proxy and CNI plugins take for granted",
    criticality: "optional",
    timeout: "3 minutes",
    // Not beside the runtime's own start and the import of images: those are what a boot waits for.
    requires: [PseudoFilesystems, Cmdline, Modules, Etc, ContainerRuntime],
    wants: [Images],
    tolerates: loading([]),
    layer: Layer.effectDiscard(podLoad(options.pods ?? [])),
  }),
  data: Stage.make({
    name: "data-modules",
    description: "kernel modules of the data partition",
    criticality: "optional",
    timeout: "3 minutes",
    requires: [PseudoFilesystems, Cmdline, DataPartition, Etc, Modules],
    tolerates: [...loading([]), ...devices],
    layer: Layer.effectDiscard(dataLoad),
  }),
  /** What is plugged in later. */
  devices: Stage.make({
    name: "device-watch",
    description: "drivers of devices that are plugged in later",
    criticality: "optional",
    requires: [Cmdline, Modules],
    tolerates: [...loading([]), ...devices],
    layer: Layer.effectDiscard(
      Effect.flatMap(Modules, ({ devices: already = new Set<string>() }) =>
        watch(already, () => true, MODPROBE_D, Schedule.spaced("30 seconds")),
      ),
    ),
  }),
})
