import { Effect, type Layer } from "effect"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import type { CommandRunner } from "../../src/components/CommandRunner.ts"
import * as Component from "../../src/components/Component.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { cachePaths, Environment } from "../../src/components/Environment.ts"
import { Progress, type ProgressEvent } from "../../src/components/Progress.ts"
import type { Source } from "../../src/components/Source.ts"
import { fakeCommands } from "../../src/components/testing/FakeCommands.ts"

/** A directory for one test, removed with its scope. */
export const temporaryDirectory = Effect.acquireRelease(
  Effect.promise(() => fsp.mkdtemp(path.join(os.tmpdir(), "kios-components-"))),
  (directory) => Effect.promise(() => fsp.rm(directory, { recursive: true, force: true })),
)

/** A machine with its own cache, variables and programs, on which components are resolved. */
export const machine = (options: {
  readonly root: string
  readonly env?: Record<string, string | undefined>
  readonly commands?: Layer.Layer<CommandRunner>
}) => {
  const environment = {
    PATH: process.env["PATH"],
    HOME: options.root,
    KIOS_CACHE: path.join(options.root, "cache"),
    ...options.env,
  }
  const events: Array<ProgressEvent> = []
  const commands = options.commands ?? fakeCommands({}).layer
  const provide = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.provide(commands),
      Effect.provideService(Progress, { report: (event) => events.push(event) }),
      Effect.provideService(Environment, environment),
    )
  const resolve = (component: Component.Component) =>
    ComponentStore.use((store) => store.resolve(component)).pipe(
      Effect.provide(ComponentStore.layer, { local: true }),
      provide,
    )
  const cache = cachePaths(environment)
  /** Names of what the cache has, and of work that was left behind. */
  const contents = () => ({
    components: fs.existsSync(cache.components) ? fs.readdirSync(cache.components) : [],
    scratch: fs.existsSync(cache.scratch) ? fs.readdirSync(cache.scratch) : [],
    locks: fs.existsSync(cache.locks) ? fs.readdirSync(cache.locks) : [],
  })
  return { resolve, provide, events, cache, contents, environment }
}

/** A component of the given sources that must have `bin/tool`. */
export const tool = (...sources: readonly [Source, ...ReadonlyArray<Source>]) =>
  Component.make({
    name: "tool",
    version: "1.0",
    license: "MIT",
    arch: "x86_64",
    provides: ["bin/tool"],
    sources,
  })

/** A source that writes what it is told to, and counts how often it is asked. */
export const scripted = (
  files: Readonly<Record<string, string>>,
  options: { readonly name?: string; readonly before?: Effect.Effect<void, never> } = {},
) => {
  const state = { fetched: 0 }
  const source: Source = {
    kind: "scripted",
    description: options.name ?? "script",
    heavy: false,
    fingerprint: Effect.succeed({ files }),
    fetch: ({ into }) =>
      Effect.gen(function* () {
        state.fetched++
        yield* Effect.promise(async () => {
          for (const [name, text] of Object.entries(files)) {
            await fsp.mkdir(path.dirname(path.join(into, name)), { recursive: true })
            await fsp.writeFile(path.join(into, name), text, { mode: 0o755 })
          }
        })
        yield* options.before ?? Effect.void
        return { parts: [{ name: "script", version: "1", purl: "pkg:generic/script@1" }] }
      }),
  }
  return { source, state }
}
