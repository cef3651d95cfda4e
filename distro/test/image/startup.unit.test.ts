/**
 * What init's start rests on (docs/performance.md): that Node takes the code of its own modules as they come compiled,
 * and that what init needs first is in the snapshot already.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as esbuild from "esbuild"
import * as Seal from "../../src/image/Seal.ts"

/** Runs a program of one file with Node as init's is run: from a snapshot, with the same options. */
const fromSnapshot = (source: string, options: ReadonlyArray<string> = []): string => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-startup-"))
  try {
    const script = path.join(directory, "main.cjs")
    esbuild.buildSync({
      stdin: { contents: source, loader: "ts", resolveDir: path.dirname(fileURLToPath(import.meta.url)) },
      outfile: script,
      bundle: true,
      platform: "node",
      format: "cjs",
      conditions: ["@kios/source"],
      external: ["internal/*"],
    })
    const whole = path.join(directory, "eager.cjs")
    fs.writeFileSync(whole, Seal.eager("main.cjs"))
    const node = (...args: ReadonlyArray<string>) =>
      execFileSync(process.execPath, args, { encoding: "utf8", cwd: directory })
    node("--no-warnings", "--expose-internals", "--snapshot-blob", "main.blob", "--build-snapshot", whole)
    const { execArgv } = Seal.seaConfig("", "")
    return node(...execArgv, ...options, "--expose-internals", "--snapshot-blob", "main.blob")
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

const usage = `
  require("node:v8").startupSnapshot.setDeserializeMainFunction(() => {
    require("node:http2")
    const { internalBinding } = require("internal/test/binding")
    const { compiledWithCache, compiledWithoutCache } = internalBinding("builtins").getCacheUsage()
    console.log(JSON.stringify({ brought: [...compiledWithCache].length, compiled: [...compiledWithoutCache] }))
  })`

const read = (text: string) =>
  JSON.parse(text) as { readonly brought: number; readonly compiled: ReadonlyArray<string> }

describe("init's start", () => {
  it("with the options of init Node's own modules are not compiled again", () => {
    const { brought, compiled } = read(fromSnapshot(usage))
    assert.deepStrictEqual(compiled, [])
    assert.isAbove(brought, 20)
  })

  it("an option that V8 minds is seen", () => {
    const { brought, compiled } = read(fromSnapshot(usage, ["--initial-heap-size=16"]))
    assert.strictEqual(brought, 0)
    assert.isAbove(compiled.length, 20)
  })

  it("what init preloads is in its snapshot", () => {
    const loaded = fromSnapshot(`
      import { preload } from "../../../packages/core/src/internal/preloaded.ts"
      preload()
      process.getBuiltinModule("node:v8").startupSnapshot.setDeserializeMainFunction(() =>
        console.log(process.moduleLoadList.join("\\n")))`)
    for (const name of ["net", "child_process", "crypto", "string_decoder"])
      assert.include(loaded, `NativeModule ${name}\n`)
    assert.notInclude(loaded, "NativeModule http2\n")
  })

  it("the functions of a bundle are compiled before they are called", () => {
    // V8 writes down what it compiles.
    const compiled = (program: string, bundle = "") => {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-startup-"))
      try {
        const script = path.join(directory, "main.cjs")
        fs.writeFileSync(script, program)
        fs.writeFileSync(path.join(directory, "bundle.cjs"), bundle)
        const log = path.join(directory, "v8.log")
        execFileSync(process.execPath, [
          "--log-function-events",
          "--no-logfile-per-isolate",
          `--logfile=${log}`,
          script,
        ])
        return fs.readFileSync(log, "utf8")
      } finally {
        fs.rmSync(directory, { recursive: true, force: true })
      }
    }
    const bundle = `const neverCalledByAnybody = () => { return 1 }; module.exports = 2`
    assert.match(
      compiled(Seal.eager("bundle.cjs"), bundle),
      /^function,interpreter,.*neverCalledByAnybody$/mu,
    )
    assert.notMatch(compiled(bundle), /^function,interpreter,.*neverCalledByAnybody$/mu)
  })
})
