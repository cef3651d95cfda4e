import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { temporaryDirectory } from "./support.ts"

/** A build in a process of its own, killed with the scope if it still runs. */
const build = (root: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const script = fileURLToPath(new URL("fixtures/resolve.ts", import.meta.url))
      const files = ["cache", "log", "gate"].map((name) => path.join(root, name))
      const args = ["--conditions=@kios/source", script, ...files]
      const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] })
      let output = ""
      let errors = ""
      child.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()))
      child.stderr!.on("data", (chunk: Buffer) => (errors += chunk.toString()))
      const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
      return { child, ended, output: () => output, errors: () => errors }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL")),
  )

const until = (what: string, condition: () => boolean) =>
  Effect.gen(function* () {
    const deadline = Date.now() + 20_000
    while (!condition()) {
      if (Date.now() > deadline) throw new Error(`waited 20 s for ${what}`)
      yield* Effect.sleep("10 millis")
    }
  })

const lines = (file: string) =>
  fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n").length - 1 : 0

it.live("two processes: one works, the other waits, says for whom, and uses what there is then", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const log = path.join(root, "log")
    const first = yield* build(root)
    yield* until("the first to work", () => lines(log) === 1)
    const second = yield* build(root)
    yield* until("the second to wait", () =>
      second.output().includes(`process ${first.child.pid} is getting tool`),
    )
    fs.writeFileSync(path.join(root, "gate"), "")
    assert.strictEqual(yield* Effect.promise(() => first.ended), 0, first.errors())
    assert.strictEqual(yield* Effect.promise(() => second.ended), 0, second.errors())
    assert.strictEqual(lines(log), 1)
    assert.include(first.output(), `"cached":false`)
    assert.include(second.output(), `"cached":true`)
  }),
)

it.live("a build that is killed leaves a cache that the next one can use, and its waste is swept", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const log = path.join(root, "log")
    const killed = yield* build(root)
    yield* until("it to work", () => lines(log) === 1)
    killed.child.kill("SIGKILL")
    yield* Effect.promise(() => killed.ended)
    assert.lengthOf(fs.readdirSync(path.join(root, "cache/scratch")), 1)
    assert.lengthOf(fs.readdirSync(path.join(root, "cache/locks")), 1)
    fs.writeFileSync(path.join(root, "gate"), "")
    const next = yield* build(root)
    assert.strictEqual(yield* Effect.promise(() => next.ended), 0, next.errors())
    assert.notInclude(next.output(), "Waiting")
    assert.strictEqual(lines(log), 2)
    assert.lengthOf(fs.readdirSync(path.join(root, "cache/components")), 1)
    assert.deepStrictEqual(fs.readdirSync(path.join(root, "cache/scratch")), [])
    assert.deepStrictEqual(fs.readdirSync(path.join(root, "cache/locks")), [])
  }),
)
