import * as path from "node:path"
import type { ComponentFile } from "./Files.ts"
import type { Part } from "./Source.ts"

/** What is known about a component in the cache: `record.json`. */
export interface ComponentRecord {
  readonly name: string
  readonly version: string
  /** SPDX expression. */
  readonly license: string
  readonly arch: string
  /** Which of the component's sources gave the files. */
  readonly source: { readonly kind: string; readonly description: string }
  /** The software inside: packages, Go modules with versions and checksums. */
  readonly parts: ReadonlyArray<Part>
  readonly transforms: ReadonlyArray<string>
  readonly facts: Readonly<Record<string, string>>
  readonly attributes: Readonly<Record<string, string>>
  /** Seconds that fetching and building took when it was done. */
  readonly buildSeconds: number
  /** The cache key: sha256 of recipe and inputs, hex. */
  readonly key: string
  /** Regular files, sorted by path. There is nothing else in a component. */
  readonly files: ReadonlyArray<ComponentFile>
}

/** A component that is in the cache. */
export interface Resolved extends ComponentRecord {
  /** Absolute path of the directory that the paths of `files` are relative to. Do not write to it. */
  readonly directory: string
  /** It was in the cache before: nothing was fetched or built. */
  readonly cached: boolean
  /** Sum of the sizes of its files. */
  readonly bytes: number
}

/**
 * The absolute path of one file of a component.
 *
 * @throws RangeError when the component has no such file: a mistake in the caller.
 *
 * @example
 * ```ts
 * import { filePath, type Resolved } from "@kios/distro/components/Resolved"
 *
 * const vmlinuz = (kernel: Resolved) => filePath(kernel, "boot/vmlinuz")
 * ```
 */
export const filePath = (resolved: Resolved, file: string): string => {
  if (!resolved.files.some((entry) => entry.path === file)) {
    throw new RangeError(
      `${resolved.name} has no file ${file}; it has ${resolved.files
        .slice(0, 8)
        .map((entry) => entry.path)
        .join(", ")}${resolved.files.length > 8 ? " ..." : ""}`,
    )
  }
  return path.join(resolved.directory, file)
}
