/**
 * What the image weighs, against bench/budget.json.
 */
import * as Seal from "@kios/distro/image/Seal"
import { recipe } from "@kios/distro/recipe"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { type Budget, overrun, overruns, type Sizes } from "../Budget.ts"

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const budget = JSON.parse(fs.readFileSync(file("../budget.json"), "utf8")) as Budget
const record = file("../../dist/kios.build.json")

describe("budget", () => {
  const sizes: Sizes = {
    bytes: 100,
    initramfs: { uncompressedBytes: 200 },
    kernelBytes: 10,
    parts: [
      { part: "kubelet", bytes: 80 },
      { part: "runc", bytes: 20 },
    ],
  }
  const fits: Budget = { efi: 100, unpacked: 200, kernel: 10, bundle: 1, parts: { kubelet: 80, runc: 20 } }

  it("is kept at exactly its size", () => assert.deepStrictEqual(overruns(sizes, fits), []))

  it("names the part, its size, the budget and by how much it is over", () =>
    assert.deepStrictEqual(overruns(sizes, { ...fits, efi: 50, parts: { kubelet: 64, runc: 20 } }), [
      "EFI: 100 bytes are 50 (100.0 %) over the budget of 50",
      "kubelet: 80 bytes are 16 (25.0 %) over the budget of 64",
    ]))

  it("wants one for every part, and none for what is gone", () =>
    assert.deepStrictEqual(overruns(sizes, { ...fits, parts: { kubelet: 80, crun: 5 } }), [
      'runc: 20 bytes and no budget: add "runc" to bench/budget.json',
      "crun: has a budget and is not in the image: remove it from bench/budget.json",
    ]))
})

it("the image is within its budget", (context) => {
  if (!fs.existsSync(record)) {
    const missing = `${record} is not there: build the EFI first (npx kios build)`
    if (process.env["CI"] === "true") assert.fail(missing)
    return context.skip(missing)
  }
  const over = overruns(JSON.parse(fs.readFileSync(record, "utf8")) as Sizes, budget)
  assert.deepStrictEqual(over, [], over.join("\n"))
})

const bundleOf = Effect.fnUntraced(function* (entry: (directory: string) => string) {
  const directory = yield* Effect.acquireRelease(
    // Below the repository, so that a program of its own finds the packages.
    Effect.sync(() => {
      const parent = file("../../node_modules/.cache")
      fs.mkdirSync(parent, { recursive: true })
      return fs.mkdtempSync(path.join(parent, "bundle-"))
    }),
    (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true })),
  )
  return yield* Seal.bundle(entry(directory), path.join(directory, "init.cjs"))
})

// The barrel of Effect drags all of it in; a YAML reader and the platform are for the command, not for init.
const heavy = /node_modules\/(effect\/dist\/index\.js$|yaml\/|@effect\/)/u

const heavyIn = (modules: ReadonlyArray<{ readonly path: string }>) =>
  modules.map((module) => module.path).filter((module) => heavy.test(module))

it.effect("init's bundle is within its budget, and nothing heavy slipped in", () =>
  Effect.gen(function* () {
    const bundle = yield* bundleOf(() => recipe.init)
    const over = overrun("init's bundle", bundle.bytes, budget.bundle)
    const largest = bundle.modules.slice(0, 8).map((module) => `\n  ${module.bytes} ${module.path}`)
    assert.deepStrictEqual(over, [], `${over.join("\n")}; the largest modules in it:${largest.join("")}`)
    assert.isAbove(bundle.modules.length, 20)
    assert.deepStrictEqual(heavyIn(bundle.modules), [], "init imports what only the command may")
  }),
)

it.effect("a barrel that slipped in is seen", () =>
  Effect.gen(function* () {
    const bundle = yield* bundleOf((directory) => {
      const entry = path.join(directory, "init.ts")
      fs.writeFileSync(entry, `import { Effect } from "effect"\nEffect.runFork(Effect.log("up"))\n`)
      return entry
    })
    assert.deepStrictEqual(
      heavyIn(bundle.modules).map((module) => module.slice(module.indexOf("node_modules/"))),
      ["node_modules/effect/dist/index.js"],
    )
  }),
)
