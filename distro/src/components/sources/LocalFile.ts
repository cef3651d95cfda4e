import { Effect } from "effect"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { Component } from "../Component.ts"
import { type ComponentError, FileFailure, RecipeInvalid } from "../ComponentError.ts"
import { errnoOf, io, sha256File } from "../Files.ts"
import type { Json, Source } from "../Source.ts"

/** The digest of each file below a path: the path alone if it is a file. */
const digests = (file: string): Effect.Effect<{ readonly [key: string]: Json }, ComponentError> =>
  Effect.gen(function* () {
    const names = yield* io("reading", file, async () => {
      if (!(await fsp.stat(file)).isDirectory()) return [""]
      const entries = await fsp.readdir(file, { recursive: true, withFileTypes: true })
      return entries
        .filter((entry) => !entry.isDirectory())
        .map((entry) => path.relative(file, path.join(entry.parentPath, entry.name)))
        .sort()
    })
    const pairs = yield* Effect.forEach(
      names,
      (name) => Effect.map(sha256File(path.join(file, name)), (sha256) => [name, sha256] as const),
      { concurrency: 4 },
    )
    return Object.fromEntries(pairs)
  })

/**
 * A file or directory of this machine. It has no pin: its digest is what it is,
 * and the record says that it is local.
 *
 * @param options.file Absolute path. A directory stands for the whole component.
 * @param options.to Path in the component, when `file` is a file.
 * @param options.executable Give it mode 0o755 instead of its own.
 *
 * @example
 * ```ts
 * import * as LocalFile from "@kios/distro/components/sources/LocalFile"
 *
 * const agent = LocalFile.source({ file: "/home/me/agent", to: "bin/agent", executable: true })
 * ```
 */
export const source = (options: {
  readonly file: string
  readonly to: string
  readonly executable?: boolean
}): Source => ({
  kind: "local",
  description: `local ${options.file}`,
  heavy: false,
  fingerprint: Effect.map(digests(options.file), (files) => ({
    files,
    to: options.to,
    executable: options.executable ?? null,
  })),
  fetch: ({ component, into }) =>
    Effect.gen(function* () {
      yield* io("copying", options.file, async () => {
        const directory = (await fsp.stat(options.file)).isDirectory()
        const to = directory ? into : path.join(into, options.to)
        await fsp.mkdir(path.dirname(to), { recursive: true })
        await fsp.cp(options.file, to, { recursive: true, dereference: true })
        if (!directory && options.executable === true) await fsp.chmod(to, 0o755)
      })
      const version = `local`
      const purl = `pkg:generic/${component.name}@${version}`
      return { parts: [{ name: component.name, version, purl }], facts: { path: options.file } }
    }),
})

/**
 * The source that replaces a component by what a variable names. A file can
 * stand for a component of one file only; else it takes a directory that has
 * the component's files under their names.
 *
 * @example
 * ```ts
 * import type { Component } from "@kios/distro/components/Component"
 * import * as LocalFile from "@kios/distro/components/sources/LocalFile"
 *
 * const ownRunc = (runc: Component) =>
 *   LocalFile.override({ component: runc, file: "/home/me/runc", variable: "KIOS_COMPONENT_RUNC" })
 * ```
 */
export const override = (options: {
  readonly component: Component
  readonly file: string
  /** The variable, for errors. */
  readonly variable: string
}): Source => {
  const { component, variable } = options
  const file = path.resolve(options.file)
  const only = component.provides.length === 1 && !component.provides[0].endsWith("/")
  const to = component.provides[0]
  const inner = source({ file, to, executable: /(^|\/)bin\//u.test(to) })
  const check = Effect.suspend((): Effect.Effect<void, ComponentError> => {
    try {
      const directory = fs.statSync(file).isDirectory()
      if (directory || only) return Effect.void
      const issue = `${file} is one file, and ${component.name} has several: give a directory with ${component.provides.join(", ")}`
      return Effect.fail(new RecipeInvalid({ where: variable, issue }))
    } catch (cause) {
      const doing = `reading what ${variable} names`
      return Effect.fail(new FileFailure({ doing, path: file, errno: errnoOf(cause) }))
    }
  })
  return { ...inner, fingerprint: Effect.andThen(check, inner.fingerprint) }
}
