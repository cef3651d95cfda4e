/**
 * Loads modules as modprobe(8) does: by name, by alias, by the devices that
 * are there, each after what it needs.
 */
import * as Effect from "effect/Effect"
import { Cmdline } from "@kios/core/Cmdline"
import { Events } from "@kios/core/Events"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import { scan } from "./Devices.ts"
import * as ModprobeConfig from "./ModprobeConfig.ts"
import * as ModulesAlias from "./ModulesAlias.ts"
import * as ModulesDep from "./ModulesDep.ts"

/** What {@link make} takes. */
export interface LoaderOptions {
  /** Directories as depmod(8) leaves them. Of modules that several have, the first one's is loaded. */
  readonly directories: ReadonlyArray<string>
  /** Directories with files of modprobe.d(5); what the later say of a parameter counts. */
  readonly configuration: ReadonlyArray<string>
  /** Devices that were looked at before, by their path in sysfs; those that are looked at now are added. */
  readonly seen?: Set<string>
}

/** What a kernel's modules are loaded by. */
export interface ModuleLoader {
  /** Whether a module or alias of that name is known, as a file or built in. */
  readonly knows: (name: string) => boolean
  /**
   * Loads a module, or all that answer to an alias, and says whether it is in now. Whatever is missing or refused is
   * told by name with what needed it.
   *
   * @param by who wants it, for that message
   */
  readonly request: (name: string, by: string) => Effect.Effect<boolean>
  /**
   * Loads the drivers of the devices that are there, and of those that appear through them, until no new one does.
   *
   * @param accepts told a module's file; those that it does not want stay out
   */
  readonly devices: (accepts?: (path: string) => boolean) => Effect.Effect<void>
  /** Tells which disk controllers and network interfaces have no driver. */
  readonly undriven: Effect.Effect<void>
  /** Names of the modules that were loaded, in order. */
  readonly loaded: ReadonlyArray<string>
  /** The devices that were looked at, by their path in sysfs. */
  readonly seen: Set<string>
}

/** Text of a file that need not be there; what else goes wrong with it is told. */
const optional = Effect.fnUntraced(function* (path: string) {
  const kernel = yield* Kernel
  return yield* Effect.catch(kernel.readText(path), (error: KernelError) =>
    Effect.as(error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message), ""),
  )
})

/**
 * The files of a directory whose names end in `.conf`, in the order of their names.
 *
 * @example
 * ```ts
 * import * as ModuleLoader from "@kios/stages-runtime/ModuleLoader"
 *
 * const files = ModuleLoader.configFiles("/etc/modules-load.d")
 * ```
 */
export const configFiles = Effect.fnUntraced(function* (directory: string) {
  const kernel = yield* Kernel
  const names = yield* Effect.catch(kernel.readDirectory(directory), (error: KernelError) =>
    Effect.as(
      error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message),
      [] as ReadonlyArray<string>,
    ),
  )
  return yield* Effect.forEach(
    names.filter((name) => name.endsWith(".conf")),
    (name) =>
      Effect.map(optional(`${directory}/${name}`), (text) => ({ path: `${directory}/${name}`, text })),
  )
})

interface Entry {
  readonly module: ModulesDep.ModuleEntry
  readonly file: string
}

/** A PCI disk controller or network interface by its modalias. */
const essential = /^pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4}).*bc0([12])sc/u

/**
 * Reads what depmod(8) says of the modules and what people say of them.
 *
 * A directory without modules.dep is told, and has no modules.
 *
 * @example
 * ```ts
 * import * as ModuleLoader from "@kios/stages-runtime/ModuleLoader"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function* () {
 *   const loader = yield* ModuleLoader.make({
 *     directories: [yield* ModuleLoader.imageModules],
 *     configuration: ["/etc/modprobe.d"],
 *   })
 *   yield* loader.request("wireguard", "this program")
 *   yield* loader.devices()
 *   return loader.loaded
 * })
 * ```
 */
export const make = Effect.fnUntraced(function* (
  options: LoaderOptions,
): Effect.fn.Return<ModuleLoader, never, Kernel | Cmdline | Events> {
  const kernel = yield* Kernel
  const events = yield* Events
  const { parameters } = yield* Cmdline

  const table = new Map<string, Entry>()
  const builtin = new Set<string>()
  const aliases: Array<ModulesAlias.AliasTable> = []
  const softdeps = new Map<string, ModprobeConfig.Softdep>()
  for (const directory of options.directories) {
    const dep = yield* Effect.catch(kernel.readText(`${directory}/modules.dep`), (error) =>
      Effect.as(Effect.logError(`no modules in ${directory}: ${error.message}`), ""),
    )
    for (const [name, module] of ModulesDep.parse(dep))
      if (!table.has(name)) table.set(name, { module, file: `${directory}/${module.path}` })
    for (const line of (yield* optional(`${directory}/modules.builtin`)).split("\n"))
      if (line !== "") builtin.add(ModulesDep.nameOf(line))
    if (dep === "") continue
    aliases.push(ModulesAlias.parse(yield* optional(`${directory}/modules.alias`)))
    for (const [name, softdep] of ModprobeConfig.parseSoftdeps(
      yield* optional(`${directory}/modules.softdep`),
    ))
      softdeps.set(name, softdep)
  }
  const files = (yield* Effect.forEach(options.configuration, configFiles)).flat()
  const config = ModprobeConfig.parse(files, parameters)
  for (const problem of config.problems) yield* Effect.logWarning(problem)
  for (const [name, softdep] of config.softdeps) softdeps.set(name, softdep)
  aliases.unshift(ModulesAlias.parse(config.aliases))
  const inKernel = (yield* optional("/proc/modules")).split("\n").map((line) => line.split(" ")[0] ?? "")

  // Whether each module that was asked for is in.
  const outcomes = new Map<string, boolean>(inKernel.map((name) => [name, true]))
  const loaded: Array<string> = []
  const passedOver = new Set<string>()
  const seen = options.seen ?? new Set<string>()

  const byAlias = (alias: string) => [...new Set(aliases.flatMap((one) => one.match(alias)))]
  const resolve = (name: string): ReadonlyArray<string> =>
    table.has(name) || builtin.has(name) ? [name] : byAlias(name)

  /** Softdeps are wishes: one that nobody has is no news. */
  const wishes = (names: ReadonlyArray<string>, wanted: ReadonlyArray<string>) =>
    Effect.forEach(
      names.flatMap(resolve).filter((name) => table.has(name)),
      (name) => load(name, wanted),
      { discard: true },
    )

  const load = (name: string, wanted: ReadonlyArray<string>): Effect.Effect<boolean> =>
    Effect.suspend(() => {
      const known = outcomes.get(name)
      if (known !== undefined) return Effect.succeed(known)
      const by = `; wanted by ${wanted.join(", ")}`
      const entry = table.get(name)
      if (entry === undefined) {
        outcomes.set(name, builtin.has(name))
        return Effect.as(
          builtin.has(name)
            ? Effect.void
            : Effect.logWarning(`module ${name} is not in ${options.directories.join(" or ")}${by}`),
          builtin.has(name),
        )
      }
      const never = config.never.get(name)
      if (never !== undefined) {
        outcomes.set(name, false)
        return Effect.as(Effect.logWarning(`module ${name} is not loaded: ${never} says never${by}`), false)
      }
      // Until it is known better, so that a circle ends.
      outcomes.set(name, true)
      return Effect.map(loadEntry(entry, wanted, by), (isIn) => {
        outcomes.set(name, isIn)
        return isIn
      })
    })

  const loadEntry = Effect.fnUntraced(function* (entry: Entry, wanted: ReadonlyArray<string>, by: string) {
    const { name, needs } = entry.module
    const inTurn = [name, ...wanted]
    const softdep = softdeps.get(name)
    if (softdep !== undefined) yield* wishes(softdep.pre, inTurn)
    // depmod lists the nearest dependency first, so the farthest goes in first.
    for (const need of needs.toReversed()) {
      // What could not be loaded was told, with all that wanted it.
      if (!(yield* load(need, inTurn))) return false
    }
    const isIn = yield* kernel.loadModule(entry.file, (config.options.get(name) ?? []).join(" ")).pipe(
      Effect.tap(() => Effect.sync(() => loaded.push(name))),
      Effect.as(true),
      Effect.catch((error) =>
        error.errno === "EEXIST"
          ? Effect.succeed(true)
          : Effect.as(
              events.publish({ kind: "module-refused", module: name, reason: `${error.message}${by}` }),
              false,
            ),
      ),
    )
    if (isIn && softdep !== undefined) yield* wishes(softdep.post, inTurn)
    return isIn
  })

  const request = (name: string, by: string): Effect.Effect<boolean> => {
    const plain = name.replaceAll("-", "_")
    const found = resolve(plain)
    if (found.length === 0) return load(plain, [by])
    return Effect.map(
      Effect.forEach(found, (one) => load(one, [by])),
      (all) => all.some(Boolean),
    )
  }

  const drivers = Effect.fnUntraced(function* (
    device: { readonly path: string; readonly modalias: string },
    accepts: (path: string) => boolean,
  ) {
    const by = `device ${device.path.split("/").at(-1)} (${device.modalias})`
    for (const name of byAlias(device.modalias)) {
      const entry = table.get(name)
      if (entry === undefined || !accepts(entry.module.path)) continue
      if (!config.blacklist.has(name)) yield* load(name, [by])
      else if (outcomes.get(name) !== true && !passedOver.has(name)) {
        passedOver.add(name)
        yield* Effect.logInfo(`module ${name} is not loaded: it is blacklisted; wanted by ${by}`)
      }
    }
  })

  const undriven: Array<{ readonly path: string; readonly what: string }> = []
  const devices = Effect.fnUntraced(function* (accepts: (path: string) => boolean = () => true) {
    let before: number
    do {
      before = loaded.length
      for (const device of yield* Effect.provideService(scan(seen), Kernel, kernel)) {
        yield* drivers(device, accepts)
        const [, vendor = "", id = "", kind] = essential.exec(device.modalias) ?? []
        if (kind !== undefined)
          undriven.push({
            path: device.path,
            what: `${kind === "1" ? "disk controller" : "network interface"} ${device.path.split("/").at(-1)} (${vendor}:${id})`,
          })
      }
      // A driver brings devices: a controller its disks, a bus what is on it.
    } while (loaded.length > before)
  })

  return {
    knows: (name) => resolve(name.replaceAll("-", "_")).length > 0,
    request,
    devices,
    undriven: Effect.gen(function* () {
      for (const { path, what } of undriven.splice(0)) {
        const driver = yield* Effect.catch(kernel.stat(`${path}/driver`), () => Effect.succeed(undefined))
        if (driver === undefined)
          yield* Effect.logWarning(
            `the ${what} has no driver: no module in the image knows it, or it refused the device`,
          )
      }
    }),
    loaded,
    seen,
  }
})

/**
 * The directory of the image's modules: `/lib/modules/RELEASE` of the kernel that runs.
 *
 * @example
 * ```ts
 * import * as ModuleLoader from "@kios/stages-runtime/ModuleLoader"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as Effect from "effect/Effect"
 *
 * const directory = ModuleLoader.imageModules.pipe(Effect.provide(TestMachine.make().layer))
 * ```
 */
export const imageModules = Effect.gen(function* () {
  const kernel = yield* Kernel
  return `/lib/modules/${(yield* kernel.readText("/proc/sys/kernel/osrelease")).trim()}`
})
