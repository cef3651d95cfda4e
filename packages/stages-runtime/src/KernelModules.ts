/**
 * Kernel modules in dependency order, without modprobe.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as ModulesDep from "./ModulesDep.ts"

/**
 * What the container runtime cannot start without: its snapshotter, and the disks of virtual machines.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const modules = KernelModules.stages({
 *   boot: [...KernelModules.bootModules, "nvme"],
 *   node: KernelModules.nodeModules,
 * })
 * ```
 */
export const bootModules: ReadonlyArray<string> = ["overlay", "virtio_blk"]

/**
 * What pods, their networks and the machine's buttons need; they load while the runtime comes up.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const inImage = [...KernelModules.bootModules, ...KernelModules.nodeModules]
 * ```
 */
export const nodeModules: ReadonlyArray<string> = [
  "virtio_net",
  "virtio_rng",
  "br_netfilter",
  "veth",
  "nf_conntrack",
  "button",
  "evdev",
  // The watchdogs of machines; loading what this one does not have costs a moment and changes nothing.
  "i6300esb",
  "wdat_wdt",
]

/** Options for modules on the kernel command line, `MODULE.PARAMETER=VALUE`; the kernel itself only reads those of what is built in. */
const optionsFor = (parameters: ReadonlyArray<readonly [string, string]>, name: string): string =>
  parameters
    .flatMap(([key, value]) => {
      const dot = key.indexOf(".")
      return dot > 0 && key.slice(0, dot).replaceAll("-", "_") === name
        ? [`${key.slice(dot + 1)}${value === "" ? "" : `=${value}`}`]
        : []
    })
    .join(" ")

/**
 * Loads modules by name, each after what it needs, and returns those that are
 * in now. A module that is missing or refused is told by name, with what
 * wanted it, and the rest is loaded all the same: which of them this machine
 * can live without is for what uses them to find out.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const program = KernelModules.loadAll(["zram", "nf_tables"])
 * ```
 */
export const loadAll = Effect.fnUntraced(function* (wanted: ReadonlyArray<string>) {
  const kernel = yield* Kernel
  const { parameters } = yield* Cmdline
  const release = (yield* kernel.readText("/proc/sys/kernel/osrelease")).trim()
  const directory = `/lib/modules/${release}`
  const table = yield* kernel.readText(`${directory}/modules.dep`).pipe(
    Effect.map(ModulesDep.parse),
    Effect.catch((error) =>
      Effect.as(
        Effect.logError(`no modules for kernel ${release}: ${error.message}`),
        new Map<string, ModulesDep.ModuleEntry>(),
      ),
    ),
  )
  const builtin = yield* kernel.readText(`${directory}/modules.builtin`).pipe(
    Effect.map((text) => new Set(text.split("\n").map(ModulesDep.nameOf))),
    Effect.catch((error) =>
      Effect.as(error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message), new Set<string>()),
    ),
  )
  const { load, unknown } = ModulesDep.order(table, wanted)
  for (const { name, neededBy } of unknown) {
    if (builtin.has(name)) continue
    yield* Effect.logWarning(
      `module ${name} is not in the image${neededBy === undefined ? "" : `, and ${neededBy} needs it`}`,
    )
  }
  const loaded: Array<string> = []
  for (const entry of load) {
    yield* kernel.loadModule(`${directory}/${entry.path}`, optionsFor(parameters, entry.name)).pipe(
      Effect.tap(() => Effect.sync(() => loaded.push(entry.name))),
      Effect.catch((error) =>
        error.errno === "EEXIST"
          ? Effect.void
          : Effect.logWarning(`module ${entry.name} was not loaded: ${error.message}`),
      ),
    )
  }
  return loaded as ReadonlyArray<string>
})

const tolerances = (breaks: ReadonlyArray<string>): ReadonlyArray<Stage.Tolerance> => [
  { operation: "loadModule", errno: ["EEXIST"], because: "it is loaded already", silent: true, breaks },
  { operation: "loadModule", because: "what needs it says so; the rest works", breaks },
  { operation: "readText", path: /\/modules\.dep$/u, because: "all may be built in", breaks },
  {
    operation: "readText",
    path: /\/modules\.builtin$/u,
    errno: ["ENOENT"],
    because: "the image need not have it",
    silent: true,
  },
  {
    operation: "readText",
    path: /\/modules\.builtin$/u,
    because: "it only says which modules need no warning",
  },
]

/**
 * The two stages: what the runtime waits for, and the rest.
 *
 * @example
 * ```ts
 * import * as KernelModules from "@kios/stages-runtime/KernelModules"
 *
 * const { boot, node } = KernelModules.stages({
 *   boot: [...KernelModules.bootModules, "nvme"],
 *   node: KernelModules.nodeModules,
 * })
 * ```
 */
export const stages = (options: {
  readonly boot: ReadonlyArray<string>
  readonly node: ReadonlyArray<string>
}) => ({
  boot: Stage.make({
    name: "boot-modules",
    description: `kernel modules that the runtime waits for: ${options.boot.join(", ")}`,
    requires: [PseudoFilesystems, Cmdline],
    provides: [BootModules],
    tolerates: tolerances(["etc-overlay"]),
    layer: Layer.effect(
      BootModules,
      // Those of the command line too: one may be the driver of the data partition's disk.
      Effect.gen(function* () {
        const { values } = yield* Cmdline
        return { loaded: yield* loadAll([...options.boot, ...values.modules]) }
      }),
    ),
  }),
  node: Stage.make({
    name: "node-modules",
    description: `kernel modules that pods need: ${options.node.join(", ")}`,
    requires: [PseudoFilesystems, Cmdline, BootModules],
    provides: [Modules],
    tolerates: tolerances([]),
    layer: Layer.effect(
      Modules,
      Effect.map(loadAll(options.node), (loaded) => ({ loaded })),
    ),
  }),
})
