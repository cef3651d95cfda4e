import type { Source } from "./Source.ts"

/** Architectures that components exist for, as `uname -m` names them. */
export type Arch = "x86_64"

/**
 * A third-party part of the image: a recipe with a pinned version, a license
 * and an ordered list of sources, each of which pins what it gives by digest.
 */
export interface Component<out Name extends string = string> {
  readonly name: Name
  readonly version: string
  /** SPDX license expression. */
  readonly license: string
  readonly arch: Arch
  /** Paths that every source must give. One that ends in `/` is a directory that must not be empty. */
  readonly provides: readonly [string, ...ReadonlyArray<string>]
  /** The first that is available is used. */
  readonly sources: readonly [Source, ...ReadonlyArray<Source>]
  /** Facts that users of the component need, such as the kernel's release. */
  readonly attributes: Readonly<Record<string, string>>
}

/**
 * Make a component.
 *
 * @param options.name Lower case, digits and dashes; the override variable is made from it.
 * @param options.provides Paths that every source must give.
 * @throws TypeError when the name is not of that form: a mistake in the recipe.
 *
 * @example
 * ```ts
 * import * as Component from "@kios/distro/components/Component"
 * import * as Download from "@kios/distro/components/sources/Download"
 *
 * const hello = Component.make({
 *   name: "hello",
 *   version: "2.10",
 *   license: "GPL-3.0-or-later",
 *   arch: "x86_64",
 *   provides: ["bin/hello"],
 *   sources: [
 *     Download.source({
 *       url: "https://example.org/hello",
 *       sha256: "0".repeat(64),
 *       to: "bin/hello",
 *       executable: true,
 *     }),
 *   ],
 * })
 * ```
 */
export const make = <const Name extends string>(
  options: Omit<Component<Name>, "attributes"> & {
    readonly attributes?: Readonly<Record<string, string>>
  },
): Component<Name> => {
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/u.test(options.name)) {
    throw new TypeError(`component name ${JSON.stringify(options.name)}: want lower case, digits and dashes`)
  }
  return { ...options, attributes: options.attributes ?? {} }
}

/**
 * The environment variable that replaces a component by a local file: `KIOS_COMPONENT_EFI_STUB`.
 *
 * @example
 * ```ts
 * import * as Component from "@kios/distro/components/Component"
 *
 * Component.overrideVariable("efi-stub") // "KIOS_COMPONENT_EFI_STUB"
 * ```
 */
export const overrideVariable = (name: string): string =>
  `KIOS_COMPONENT_${name.toUpperCase().replaceAll("-", "_")}`
