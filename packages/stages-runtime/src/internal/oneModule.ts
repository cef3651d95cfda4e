/**
 * Loads one module of the image, and what it needs, by its name: for stages
 * that cannot wait for those that load the others.
 */
import * as Effect from "effect/Effect"
import { Kernel } from "@kios/core/Kernel"
import * as ModulesDep from "../ModulesDep.ts"

/**
 * Whether the module is in now; if not, why was told. With `mustBeNew`, one that
 * is in already is an error: it did not bring what is missing.
 */
export const loadOne = Effect.fnUntraced(function* (
  name: string,
  { mustBeNew = false, parameters = "" }: { readonly mustBeNew?: boolean; readonly parameters?: string } = {},
) {
  const kernel = yield* Kernel
  const release = (yield* kernel.readText("/proc/sys/kernel/osrelease")).trim()
  const directory = `/lib/modules/${release}`
  const table = ModulesDep.parse(yield* kernel.readText(`${directory}/modules.dep`))
  const { load, unknown } = ModulesDep.order(table, [name])
  const [missing] = unknown
  if (missing !== undefined) {
    yield* Effect.logWarning(`module ${missing.name} is not in ${directory}`)
    return false
  }
  for (const entry of load)
    yield* Effect.catchIf(
      kernel.loadModule(`${directory}/${entry.path}`, entry.name === name ? parameters : ""),
      (error) => error.errno === "EEXIST" && !(mustBeNew && entry.name === name),
      () => Effect.void,
    )
  return true
})

/** Of a module that is in already; for the `tolerates` of a stage that uses {@link loadOne}. */
export const alreadyLoaded = {
  operation: "loadModule",
  errno: ["EEXIST"],
  because: "it is loaded already",
  silent: true,
} as const
