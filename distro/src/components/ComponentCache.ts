import { Effect, type Scope } from "effect"
import { createHash } from "node:crypto"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { Component } from "./Component.ts"
import { type DiskFull, type FileFailure } from "./ComponentError.ts"
import type { CachePaths } from "./Environment.ts"
import { errnoOf, io } from "./Files.ts"
import { isProcessGone, thisProcess } from "./LockFile.ts"
import type { ComponentRecord, Resolved } from "./Resolved.ts"
import type { Json, Source } from "./Source.ts"

/** Raised when the form of cache entries changes: old entries are then not found. */
const FORMAT = 1

/** Milliseconds. */
const DAY = 86_400_000

/** The number in `pid:[4026531836]`, the name of a pid namespace. */
const digits = (namespace: string): string => namespace.replaceAll(/\D/gu, "") || "0"

/** JSON with sorted keys: equal values have equal texts. */
export const canonicalJson = (value: Json): string => {
  if (value === null || typeof value !== "object") return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map((item: Json) => canonicalJson(item)).join(",")}]`
  const entries = Object.entries(value as { readonly [key: string]: Json })
  return `{${entries
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`)
    .join(",")}}`
}

/** The key of what one source gives for a component: sha256, hex. */
export const cacheKey = (component: Component, source: Source, fingerprint: Json): string =>
  createHash("sha256")
    .update(
      canonicalJson({
        format: FORMAT,
        name: component.name,
        version: component.version,
        license: component.license,
        arch: component.arch,
        provides: component.provides,
        attributes: component.attributes,
        kind: source.kind,
        fingerprint,
      }),
    )
    .digest("hex")

/** Where an entry of the cache is, or will be. */
export const entryDirectory = (cache: CachePaths, component: Component, key: string): string => {
  const version = component.version.replaceAll(/[^A-Za-z0-9.+~-]/gu, "_")
  return path.join(cache.components, `${component.name}-${version}-${key.slice(0, 16)}`)
}

/**
 * The entry for a key, if the cache has it whole: every file is there with its
 * size and mode. An entry that is damaged is removed, as if it had never been.
 */
export const lookup = (
  cache: CachePaths,
  component: Component,
  key: string,
): Effect.Effect<Resolved | undefined, DiskFull | FileFailure> => {
  const directory = entryDirectory(cache, component, key)
  return io("reading the cache", directory, async () => {
    let record: ComponentRecord
    try {
      record = JSON.parse(await fsp.readFile(path.join(directory, "record.json"), "utf8")) as ComponentRecord
    } catch (cause) {
      if (errnoOf(cause) === "ENOENT") return undefined
      if (!(cause instanceof SyntaxError)) throw cause
      await fsp.rm(directory, { recursive: true, force: true })
      return undefined
    }
    const files = path.join(directory, "files")
    let whole = record.key === key
    for (let at = 0; whole && at < record.files.length; at += 64) {
      const batch = record.files.slice(at, at + 64)
      const stats = await Promise.all(
        batch.map((file) => fsp.lstat(path.join(files, file.path)).catch(() => undefined)),
      )
      whole = batch.every((file, index) => {
        const stat = stats[index]
        return stat?.isFile() === true && stat.size === file.size && (stat.mode & 0o777) === file.mode
      })
    }
    if (!whole) {
      await fsp.rm(directory, { recursive: true, force: true })
      return undefined
    }
    const bytes = record.files.reduce((sum, file) => sum + file.size, 0)
    return { ...record, directory: files, cached: true, bytes }
  })
}

/** A new scratch directory, removed with the scope. Its name says whose it is. */
export const scratchDirectory = (
  cache: CachePaths,
  name: string,
): Effect.Effect<string, DiskFull | FileFailure, Scope.Scope> =>
  Effect.acquireRelease(
    io("making a scratch directory", cache.scratch, async () => {
      await fsp.mkdir(cache.scratch, { recursive: true })
      const { namespace, pid, start } = thisProcess()
      return await fsp.mkdtemp(path.join(cache.scratch, `${name}.${pid}.${start}.${digits(namespace)}.`))
    }),
    (directory) => Effect.promise(() => removeTree(directory)),
  )

/** Remove a tree even where directories are read-only, as Go makes them. */
const removeTree = async (directory: string): Promise<void> => {
  try {
    await fsp.rm(directory, { recursive: true, force: true })
  } catch {
    for (const entry of await fsp.readdir(directory, { recursive: true, withFileTypes: true })) {
      if (entry.isDirectory()) await fsp.chmod(path.join(entry.parentPath, entry.name), 0o755)
    }
    await fsp.rm(directory, { recursive: true, force: true }).catch(() => {})
  }
}

/** Remove the scratch directories of processes that are gone: what an interrupted build left. */
export const sweepScratch = (cache: CachePaths): Effect.Effect<void, DiskFull | FileFailure> =>
  io("sweeping", cache.scratch, async () => {
    const names = await fsp.readdir(cache.scratch).catch((cause: unknown) => {
      if (errnoOf(cause) === "ENOENT") return []
      throw cause
    })
    for (const name of names) {
      const [pid, start, namespace] = name.split(".").slice(-4)
      if (pid === undefined || start === undefined) continue
      if (namespace === digits(thisProcess().namespace)) {
        if (isProcessGone(Number(pid), start)) await removeTree(path.join(cache.scratch, name))
        continue
      }
      // Of another container that shares the cache, where this pid means another process.
      const stat = await fsp.stat(path.join(cache.scratch, name)).catch(() => undefined)
      if (stat !== undefined && Date.now() - stat.mtimeMs > DAY)
        await removeTree(path.join(cache.scratch, name))
    }
  })

/**
 * Move a finished entry into the cache. One rename: readers see all of it or
 * nothing. When another process was faster, its entry stays and ours is dropped.
 *
 * @param entry A directory with `files/`, on the cache's filesystem.
 */
export const publish = (
  cache: CachePaths,
  component: Component,
  entry: string,
  record: ComponentRecord,
): Effect.Effect<Resolved, DiskFull | FileFailure> => {
  const directory = entryDirectory(cache, component, record.key)
  return io("publishing", directory, async () => {
    await fsp.writeFile(path.join(entry, "record.json"), `${JSON.stringify(record, undefined, 1)}\n`, {
      flush: true,
    })
    await fsp.mkdir(cache.components, { recursive: true })
    try {
      await fsp.rename(entry, directory)
    } catch (cause) {
      if (!["EEXIST", "ENOTEMPTY"].includes(errnoOf(cause))) throw cause
    }
    const bytes = record.files.reduce((sum, file) => sum + file.size, 0)
    return { ...record, directory: path.join(directory, "files"), cached: false, bytes }
  })
}
