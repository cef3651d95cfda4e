import { Effect } from "effect"
import {
  type AptPlaces,
  type DebianPins,
  readPins,
  servedPins,
  updatePins as updatePinsOf,
} from "./apt/DebianPins.ts"
import { boot } from "./catalog/Boot.ts"
import { kubernetes } from "./catalog/Kubernetes.ts"
import { libraries } from "./catalog/Libraries.ts"
import { node } from "./catalog/Node.ts"
import { debianRecipes, type DebianRecipes, pinsFile } from "./catalog/Recipe.ts"
import { testCluster } from "./catalog/TestCluster.ts"
import { userland } from "./catalog/Userland.ts"
import type { Arch, Component } from "./Component.ts"
import { type ComponentError, RecipeInvalid } from "./ComponentError.ts"

/**
 * The components of the reference distro, by name. Reads the Debian pins;
 * fetches nothing. `go-bootstrap` is a tool of the build and no part of an
 * image: it is resolved when the machine has no usable Go.
 *
 * @param arch The machine's architecture; x86_64 is what there are recipes for.
 * @param options.pins The file with the Debian pins.
 * @param options.etcApt apt's configuration; the machine's by default, as are the keys.
 *
 * @example
 * ```ts
 * import { components } from "@kios/distro/components/catalog"
 * import { ComponentStore } from "@kios/distro/components/ComponentStore"
 * import { filePath } from "@kios/distro/components/Resolved"
 * import { Effect } from "effect"
 *
 * const vmlinuz = Effect.gen(function* () {
 *   const store = yield* ComponentStore
 *   const catalog = yield* components("x86_64")
 *   return filePath(yield* store.resolve(catalog.kernel), "boot/vmlinuz")
 * })
 * ```
 */
export const components = Effect.fn("components")(function* (
  _arch: Arch,
  options: AptPlaces & { readonly pins?: string } = {},
) {
  const file = options.pins ?? pinsFile
  return yield* catalogOf(parts, yield* readPins(file), file, options)
})

/**
 * The components that only tests use: a cluster for a node to join. None is in
 * {@link components}, and so none can get into an image.
 *
 * @example
 * ```ts
 * import { testComponents } from "@kios/distro/components/catalog"
 * import { ComponentStore } from "@kios/distro/components/ComponentStore"
 * import { filePath } from "@kios/distro/components/Resolved"
 * import { Effect } from "effect"
 *
 * const etcd = Effect.gen(function* () {
 *   const store = yield* ComponentStore
 *   return filePath(yield* store.resolve((yield* testComponents).etcd), "bin/etcd")
 * })
 * ```
 */
export const testComponents = Effect.suspend(() =>
  Effect.flatMap(readPins(pinsFile), (pins) => catalogOf(testCluster, pins, pinsFile, {})),
)

const parts = Effect.fnUntraced(function* (debian: DebianRecipes) {
  return {
    ...(yield* boot(debian)),
    ...(yield* libraries(debian)),
    ...(yield* userland(debian)),
    ...(yield* node(debian)),
    ...(yield* kubernetes(debian)),
  }
})

/** The type of the catalog. */
export type Catalog = Effect.Success<ReturnType<typeof parts>>

/** The catalog of some pins. Where the archive has moved on, a component is the one of the pins of today. */
const catalogOf = <Parts extends Readonly<Record<string, Component>>>(
  of: (debian: DebianRecipes) => Effect.Effect<Parts, ComponentError>,
  pins: DebianPins,
  file: string,
  places: AptPlaces,
): Effect.Effect<Parts, ComponentError> =>
  of(
    debianRecipes(pins, file, {
      ...places,
      moved: (name) =>
        Effect.gen(function* () {
          const now = yield* catalogOf(
            of,
            yield* servedPins(pins, { ...places, component: name }),
            file,
            places,
          )
          const found = Object.values<Component>(now).find((component) => component.name === name)
          if (found !== undefined) return found
          const issue = `the catalog has no component named ${name}`
          return yield* new RecipeInvalid({ where: file, issue })
        }),
    }),
  )

/**
 * Pin what Debian serves now for the reference distro: `kios components update`. See {@link updatePinsOf}.
 *
 * @example
 * ```ts
 * import { updatePins } from "@kios/distro/components/catalog"
 * import { CommandRunner } from "@kios/distro/components/CommandRunner"
 * import { Effect } from "effect"
 *
 * const program = updatePins.pipe(Effect.provide(CommandRunner.layer))
 * ```
 */
export const updatePins = updatePinsOf(pinsFile)
