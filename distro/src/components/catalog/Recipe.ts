import { Effect } from "effect"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { type AptPlaces, type DebianPin, type DebianPins, pinOf } from "../apt/DebianPins.ts"
import type { Component } from "../Component.ts"
import type { ComponentError } from "../ComponentError.ts"
import type { FileRule } from "../FileSelection.ts"
import type { Source } from "../Source.ts"
import * as Debian from "../sources/Debian.ts"

/** `distro/components`: pins and Go modules. The same from `src` and from `dist`. */
export const componentsDirectory = fileURLToPath(new URL("../../../components/", import.meta.url))

/** The file with the Debian pins. */
export const pinsFile = path.join(componentsDirectory, "debian.lock.json")

/** Debian's directory of libraries for x86_64. */
export const LIB = "usr/lib/x86_64-linux-gnu"

/** What recipes of Debian packages are written with. */
export interface DebianRecipes {
  /** The pin of that name in `debian.lock.json`. */
  readonly pin: (name: string) => Effect.Effect<DebianPin, ComponentError>
  /** A source of some pinned packages. */
  readonly source: (
    packages: Readonly<Record<string, readonly [FileRule, ...ReadonlyArray<FileRule>]>>,
  ) => Effect.Effect<Source, ComponentError>
}

/**
 * The means to write recipes with some pins.
 *
 * @param file Where the pins are from, for errors.
 * @param options.moved See {@link Source.moved}.
 */
export const debianRecipes = (
  pins: DebianPins,
  file: string,
  options: AptPlaces & { readonly moved: NonNullable<Source["moved"]> },
): DebianRecipes => {
  const { etcApt, keyring, moved } = options
  const places = {
    moved,
    ...(etcApt === undefined ? {} : { etcApt }),
    ...(keyring === undefined ? {} : { keyring }),
  }
  const pin = (name: string) => pinOf(pins, name, file)
  return {
    pin,
    source: (packages) =>
      Effect.map(
        Effect.forEach(Object.entries(packages), ([name, files]) =>
          Effect.map(pin(name), (found) => ({ pin: found, files })),
        ),
        ([first, ...rest]) =>
          Debian.source({ suite: pins.suite, arch: pins.arch, packages: [first!, ...rest], ...places }),
      ),
  }
}

/** A function from recipes to components: one file of the catalog. */
export type CatalogPart<Names extends string> = (
  debian: DebianRecipes,
) => Effect.Effect<{ readonly [Name in Names]: Component<Name> }, ComponentError>
