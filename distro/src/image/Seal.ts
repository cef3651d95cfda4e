/**
 * `/init`: our program, bundled and sealed into one executable.
 *
 * 1. esbuild bundles the TypeScript into one CommonJS file.
 * 2. Node compiles all of its functions, runs it up to its main function and
 *    writes the heap as a start-up snapshot: at boot nothing of it is parsed,
 *    compiled or evaluated again.
 * 3. The snapshot is put into a copy of the Node executable, with options that
 *    make it deaf to arguments, NODE_OPTIONS and SIGUSR1.
 * 4. The data of the world's locales, a third of the executable, is left out.
 *
 * https://nodejs.org/docs/latest-v24.x/api/single-executable-applications.html
 */
import { Effect } from "effect"
import * as esbuild from "esbuild"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"
import { runToolOk } from "../components/Tools.ts"
import * as ElfHole from "./ElfHole.ts"
import { fileOperation, LocalesNeeded, ToolFailed } from "./ImageError.ts"

/** What {@link seal} takes. */
export interface SealOptions {
  /** The program: a module whose last statement is `Init.start(...)`. */
  readonly entry: string
  /** Stripped Node executable of the machine that the image is for. */
  readonly node: string
  /** Directory for what is made on the way; must exist. */
  readonly directory: string
  readonly output: string
  /** Whether the program is given the locales' data, 33 MB, which `Intl` and its like need (default false). */
  readonly locales?: boolean
}

/** What was sealed. Sizes in bytes. */
export interface Sealed {
  readonly output: string
  readonly bundleBytes: number
  readonly snapshotBytes: number
  readonly bytes: number
  /** Modules in the bundle with their bytes, largest first. */
  readonly modules: ReadonlyArray<{ readonly path: string; readonly bytes: number }>
}

// ICU's data, as Node's executable exports it; the digits are ICU's version.
const LOCALES = /^icudt\d+_dat$/u
// What needs it: these throw, or give wrong answers, where it is zeros.
const NEEDS_LOCALES = /\bIntl\b|\.localeCompare\(|\.toLocale[A-Z]\w*\(|\.normalize\(["'`]NF/u

// The string that marks a Node executable as one that may carry a program; see the page above.
const SENTINEL = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2"

/**
 * The options of the single executable. `execArgvExtension: "none"` and
 * `--disable-sigusr1` are what seals it: without them NODE_OPTIONS would run
 * code and SIGUSR1 would open a debugger.
 *
 * `--max-semi-space-size` (MiB) bounds the memory that V8 takes for young
 * objects: by default up to 48 MiB in the course of a node's life, for which
 * init has no use (docs/soak.md).
 *
 * Many options of V8 are not for here: with them it does not trust the code that
 * Node's own modules bring compiled, and compiles each of them at boot
 * (docs/performance.md; `startup.unit.test.ts` fails when one of them is added).
 *
 * @example
 * ```ts
 * import * as Seal from "@kios/distro/image/Seal"
 * import * as fs from "node:fs"
 *
 * const write = () => fs.writeFileSync("sea.json", JSON.stringify(Seal.seaConfig("init.cjs", "init.blob")))
 * ```
 */
export const seaConfig = (main: string, output: string) => ({
  main,
  output,
  disableExperimentalSEAWarning: true,
  useSnapshot: true,
  useCodeCache: false,
  execArgv: [
    "--disable-sigusr1",
    "--no-warnings",
    // Loading node:tls, which node:http2 needs, would parse the certificates of 150 authorities. Init asks none of them;
    // a stage that speaks TLS has to say whom it trusts (`ca`).
    "--use-openssl-ca",
    // One thread beside the main one for V8's compiler and collector, where four would wait: a MiB of memory.
    "--v8-pool-size=1",
    "--max-semi-space-size=2",
    // A leak in init ends init, in a way that is told, before it takes the memory of pods: MiB, some eight times what it needs.
    "--max-old-space-size=128",
  ],
  execArgvExtension: "none",
})

/**
 * The program that runs the bundle `name`, which is beside it, with all of its functions compiled, and not each at its
 * first call: in a snapshot they keep what they were compiled to. Only `compileFunction` honours V8's option; `new
 * Function` stays lazy. The bundle is read and not quoted, so that its text is in the snapshot once.
 *
 * @example
 * ```ts
 * import * as Seal from "@kios/distro/image/Seal"
 * import * as fs from "node:fs"
 *
 * const write = () => fs.writeFileSync("dist/init.eager.cjs", Seal.eager("init.cjs"))
 * ```
 */
export const eager = (name: string): string =>
  [
    `const v8 = require("node:v8")`,
    `const name = ${JSON.stringify(name)}`,
    `const read = () => require("node:fs").readFileSync(require("node:path").join(__dirname, name), "utf8")`,
    `const parameters = ["exports", "require", "module", "__filename", "__dirname"]`,
    `v8.setFlagsFromString("--no-lazy")`,
    `const program = require("node:vm").compileFunction(read(), parameters, { filename: name })`,
    `v8.setFlagsFromString("--lazy")`,
    `const module_ = { exports: {} }`,
    `program(module_.exports, require, module_, __filename, __dirname)`,
    ``,
  ].join("\n")

const require = createRequire(import.meta.url)

/**
 * Bundles init; used alone by tests that look at what is in it.
 *
 * @example
 * ```ts
 * import * as Seal from "@kios/distro/image/Seal"
 * import { Effect } from "effect"
 *
 * const largest = Effect.map(Seal.bundle("src/init.ts", "/tmp/init.cjs"), ({ modules }) => modules.slice(0, 10))
 * ```
 */
export const bundle = (entry: string, output: string) =>
  Effect.tryPromise({
    try: () =>
      esbuild.build({
        entryPoints: [entry],
        outfile: output,
        bundle: true,
        minify: true,
        // Names in stack traces are worth their few bytes: they are all that a console shows.
        keepNames: false,
        platform: "node",
        format: "cjs",
        target: "node24",
        conditions: ["@kios/source"],
        metafile: true,
        logLevel: "silent",
      }),
    catch: (cause) =>
      new ToolFailed({
        tool: "esbuild",
        args: [entry],
        exit: "1",
        output: cause instanceof Error ? cause.message : String(cause),
      }),
  }).pipe(
    Effect.map((result) => {
      const written = Object.values(result.metafile.outputs)[0]
      return {
        bytes: written?.bytes ?? 0,
        modules: Object.entries(written?.inputs ?? {})
          .map(([name, input]) => ({ path: name, bytes: input.bytesInOutput }))
          .sort((a, b) => b.bytes - a.bytes),
      }
    }),
  )

/**
 * Bundles and seals a program.
 *
 * Fails with `ToolFailed` when it does not bundle, with `LocalesNeeded` when it
 * uses what `locales` is for, with `BuildFailed` when it does not survive being
 * made a snapshot (something native or open at module level), with `ElfError`
 * for a Node executable that is another than expected, with `ImageFileError` or `DiskFull` when it cannot be written.
 *
 * @example
 * ```ts
 * import * as Seal from "@kios/distro/image/Seal"
 *
 * const sealed = Seal.seal({ entry: "src/init.ts", node: "/cache/node", directory: "/tmp/work", output: "dist/init" })
 * ```
 */
export const seal = Effect.fn("Seal.seal")(function* (options: SealOptions) {
  const script = path.join(options.directory, "init.cjs")
  const blob = path.join(options.directory, "init.blob")
  const config = path.join(options.directory, "sea.json")
  const bundled = yield* bundle(options.entry, script)
  const source = yield* fileOperation("read", script, () => fs.readFileSync(script, "utf8"))
  const needs = options.locales === true ? null : NEEDS_LOCALES.exec(source)
  if (needs !== null) return yield* new LocalesNeeded({ entry: options.entry, found: needs[0] })
  const whole = path.join(options.directory, "init.eager.cjs")
  yield* fileOperation("write", whole, () => fs.writeFileSync(whole, eager(path.basename(script))))
  yield* fileOperation("write", config, () =>
    fs.writeFileSync(config, JSON.stringify(seaConfig(whole, blob))),
  )
  // The same executable makes the snapshot and carries it: V8 refuses another build's.
  yield* runToolOk({
    component: "init",
    doing: "making the start-up snapshot of init",
    writesTo: options.directory,
    command: options.node,
    args: ["--no-warnings", "--experimental-sea-config", config],
    env: { TZ: "UTC", LANG: "C.UTF-8" },
  })
  const partial = `${options.output}.${process.pid}.partial`
  yield* Effect.gen(function* () {
    yield* fileOperation("copy node to", partial, () => {
      fs.copyFileSync(options.node, partial)
      fs.chmodSync(partial, 0o755)
    })
    // A process of its own: postject's library takes over its process's error handlers.
    yield* runToolOk({
      component: "init",
      doing: "putting the snapshot into init",
      writesTo: path.dirname(options.output),
      command: process.execPath,
      args: [
        require.resolve("postject/dist/cli.js"),
        partial,
        "NODE_SEA_BLOB",
        blob,
        "--sentinel-fuse",
        SENTINEL,
      ],
      env: { LANG: "C.UTF-8" },
    })
    if (options.locales !== true) yield* ElfHole.cut(partial, LOCALES)
    yield* fileOperation("rename", options.output, () => fs.renameSync(partial, options.output))
  }).pipe(Effect.ensuring(Effect.sync(() => fs.rmSync(partial, { force: true }))))
  return {
    output: options.output,
    bundleBytes: bundled.bytes,
    modules: bundled.modules,
    snapshotBytes: fs.statSync(blob).size,
    bytes: fs.statSync(options.output).size,
  } satisfies Sealed
})
