import { Clock, Context, Effect, Layer, Semaphore } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { CommandRunner } from "./CommandRunner.ts"
import { type Component, overrideVariable } from "./Component.ts"
import { cacheKey, lookup, publish, scratchDirectory, sweepScratch } from "./ComponentCache.ts"
import { type ComponentError, FileMissing, NotAvailable } from "./ComponentError.ts"
import { CacheLocation, Environment, isLocked } from "./Environment.ts"
import { io, listTree } from "./Files.ts"
import { lockFile } from "./LockFile.ts"
import { report, step } from "./Progress.ts"
import type { Resolved } from "./Resolved.ts"
import type { Source } from "./Source.ts"
import * as LocalFile from "./sources/LocalFile.ts"

/** Components that are worked on at the same time by {@link ComponentStore.resolveAll}. */
const CONCURRENCY = 4

/**
 * Turns components into directories of files, once: the results are kept in a
 * cache by the hash of recipe and inputs, and a second call costs a few stats.
 *
 * The environment variable `KIOS_COMPONENT_<NAME>=/path` replaces a component
 * by a file or directory of this machine.
 *
 * @example
 * ```ts
 * import { components } from "@kios/distro/components/catalog"
 * import { CommandRunner } from "@kios/distro/components/CommandRunner"
 * import { ComponentStore } from "@kios/distro/components/ComponentStore"
 * import { Effect, Layer } from "effect"
 *
 * const kernel = Effect.gen(function* () {
 *   const store = yield* ComponentStore
 *   const catalog = yield* components("x86_64")
 *   return (yield* store.resolve(catalog.kernel)).directory
 * }).pipe(Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)))
 * ```
 */
export class ComponentStore extends Context.Service<
  ComponentStore,
  {
    /**
     * Have one component in the cache. Sources that are cached are preferred, in
     * order; else each is tried, in order, until one is available. When none is
     * because an archive has moved on, what it serves now is taken, with a
     * warning, unless `KIOS_LOCKED` is set: the result then has another version
     * (and a kernel another release) than the component that was asked for.
     */
    readonly resolve: (component: Component) => Effect.Effect<Resolved, ComponentError>
    /** Have many, in the order given. The first failure interrupts the others; what they finished stays cached. */
    readonly resolveAll: (
      components: Iterable<Component>,
    ) => Effect.Effect<ReadonlyArray<Resolved>, ComponentError>
  }
>()("@kios/distro/components/ComponentStore") {
  /** The store over the cache that {@link CacheLocation} names; programs are run by {@link CommandRunner}. */
  static readonly layer = Layer.effect(
    ComponentStore,
    Effect.gen(function* () {
      const runner = yield* CommandRunner
      const heavy = yield* Semaphore.make(1)
      const resolve = (component: Component): Effect.Effect<Resolved, ComponentError> =>
        resolveWith(component, { heavy, resolve }).pipe(Effect.provideService(CommandRunner, runner))
      const cache = yield* CacheLocation
      yield* Effect.ignore(sweepScratch(cache))
      return ComponentStore.of({
        resolve,
        resolveAll: (components) => Effect.forEach(components, resolve, { concurrency: CONCURRENCY }),
      })
    }),
  )

  /** The store with real processes. */
  static readonly live = ComponentStore.layer.pipe(Layer.provide(CommandRunner.layer))
}

interface Store {
  readonly heavy: Semaphore.Semaphore
  readonly resolve: (component: Component) => Effect.Effect<Resolved, ComponentError>
}

/** The sources of a component on this machine: the local override alone, if there is one. */
const sourcesOf = (component: Component): Effect.Effect<ReadonlyArray<Source>> =>
  Effect.map(Environment, (environment) => {
    const variable = overrideVariable(component.name)
    const override = environment[variable]
    return override ? [LocalFile.override({ component, file: override, variable })] : component.sources
  })

const announce = (resolved: Resolved, seconds: number) =>
  report({
    _tag: "Resolved",
    component: resolved.name,
    version: resolved.version,
    source: resolved.source.description,
    seconds,
    bytes: resolved.bytes,
    cached: resolved.cached,
  })

const resolveWith = (
  component: Component,
  store: Store,
  /** Whether what the origin serves now may be taken where it does not serve what is pinned. */
  mayMove = true,
): Effect.Effect<Resolved, ComponentError, CommandRunner> =>
  Effect.gen(function* () {
    const cache = yield* CacheLocation
    const sources = yield* sourcesOf(component)
    const keyed = yield* Effect.forEach(sources, (source) =>
      Effect.map(source.fingerprint, (fingerprint) => ({
        source,
        key: cacheKey(component, source, fingerprint),
      })),
    )
    for (const { key } of keyed) {
      const found = yield* lookup(cache, component, key)
      if (found !== undefined) {
        yield* announce(found, 0)
        return found
      }
    }
    const locked = isLocked(yield* Environment)
    const tried: Array<{ source: string; reason: string; offline: boolean }> = []
    let gone: { readonly reason: string; readonly moved: NonNullable<Source["moved"]> } | undefined
    for (const { key, source } of keyed) {
      const attempt = buildEntry(component, source, key, store)
      const outcome = yield* attempt.pipe(
        Effect.map((resolved) => ({ resolved })),
        // The next source may have what this one can not give. A wrong digest, a full disk or a failed
        // build are no such thing: they must not be papered over by another source.
        Effect.catchTag(["SourceUnavailable", "PinNotServed", "MissingTool"], (error) =>
          Effect.succeed({ error }),
        ),
      )
      if ("resolved" in outcome) return outcome.resolved
      const { error } = outcome
      if (error._tag === "PinNotServed" && source.moved !== undefined && mayMove && !locked) {
        gone ??= { reason: error.message, moved: source.moved }
        continue
      }
      if (sources.length === 1 && error._tag !== "SourceUnavailable") return yield* error
      const offline = error._tag === "SourceUnavailable" && error.offline
      tried.push({ source: source.description, reason: error.message, offline })
      if (tried.length < sources.length) {
        yield* report({
          _tag: "SourceSkipped",
          component: component.name,
          source: source.description,
          reason: error.message,
        })
      }
    }
    if (gone !== undefined) {
      const served = yield* gone.moved(component.name)
      yield* report({
        _tag: "PinMoved",
        component: component.name,
        pinned: component.version,
        served: served.version,
        reason: gone.reason,
      })
      return yield* resolveWith(served, store, false)
    }
    return yield* new NotAvailable({ component: component.name, version: component.version, tried })
  })

const buildEntry = (
  component: Component,
  source: Source,
  key: string,
  store: Store,
): Effect.Effect<Resolved, ComponentError, CommandRunner> =>
  Effect.scoped(
    Effect.gen(function* () {
      const cache = yield* CacheLocation
      const doing = `getting ${component.name} ${component.version}`
      yield* lockFile(path.join(cache.locks, `${component.name}-${key.slice(0, 16)}`), component.name, doing)
      const meanwhile = yield* lookup(cache, component, key)
      if (meanwhile !== undefined) {
        yield* announce(meanwhile, 0)
        return meanwhile
      }
      const work = yield* scratchDirectory(cache, component.name)
      const entry = path.join(work, "entry")
      const into = path.join(entry, "files")
      const scratch = path.join(work, "work")
      yield* io("making a scratch directory", work, async () => {
        await fsp.mkdir(into, { recursive: true })
        await fsp.mkdir(scratch)
      })
      // Waiting for another compiler to finish is no part of the time that a build takes.
      let started = yield* Clock.monotonicTimeNanos
      const fetching = Effect.gen(function* () {
        started = yield* Clock.monotonicTimeNanos
        const fetch = source.fetch({ component, into, scratch, cache, resolve: store.resolve })
        return yield* step(component.name, `from ${source.description}`, fetch)
      })
      const produced = yield* source.heavy ? store.heavy.withPermits(1)(fetching) : fetching
      const files = yield* listTree(into)
      for (const wanted of component.provides) {
        const there = files.some((file) =>
          wanted.endsWith("/") ? file.path.startsWith(wanted) : file.path === wanted,
        )
        if (!there) {
          return yield* new FileMissing({
            component: component.name,
            source: source.description,
            file: wanted,
          })
        }
      }
      const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
      const resolved = yield* publish(cache, component, entry, {
        name: component.name,
        version: component.version,
        license: component.license,
        arch: component.arch,
        source: { kind: source.kind, description: source.description },
        parts: produced.parts,
        transforms: produced.transforms ?? [],
        facts: produced.facts ?? {},
        attributes: component.attributes,
        buildSeconds: Math.round(seconds * 100) / 100,
        key,
        files,
      })
      yield* announce(resolved, seconds)
      return resolved
    }),
  )
