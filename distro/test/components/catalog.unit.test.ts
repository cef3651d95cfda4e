import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { componentsDirectory, pinsFile } from "../../src/components/catalog/Recipe.ts"
import { components, testComponents } from "../../src/components/catalog.ts"
import { cacheKey } from "../../src/components/ComponentCache.ts"
import { temporaryDirectory } from "./support.ts"

const glibcKey = (pins: string) =>
  Effect.gen(function* () {
    const { glibc } = yield* components("x86_64", { pins })
    return cacheKey(glibc, glibc.sources[0], yield* glibc.sources[0].fingerprint)
  })

it.effect(
  "every component has its name, a version, a license and pinned sources, and no two share a file",
  () =>
    Effect.gen(function* () {
      const catalog = yield* components("x86_64")
      const owners = new Map<string, string>()
      for (const [name, component] of Object.entries(catalog)) {
        assert.strictEqual(component.name, name)
        assert.match(component.version, /\d/u)
        assert.notStrictEqual(component.license, "")
        for (const source of component.sources) {
          const fingerprint = yield* source.fingerprint
          assert.match(JSON.stringify(fingerprint), /[0-9a-f]{64}/u, `${name} pins nothing by digest`)
          assert.match(cacheKey(component, source, fingerprint), /^[0-9a-f]{64}$/u)
        }
        // An image has one kernel or the other.
        if (name === "kernel-generic") continue
        for (const file of component.provides) {
          assert.isUndefined(owners.get(file), `${file} is of ${owners.get(file)} and of ${name}`)
          owners.set(file, name)
        }
      }
    }),
)

it.effect("keys are the same each time and follow the pins", () =>
  Effect.gen(function* () {
    const changed = path.join(yield* temporaryDirectory, "pins.json")
    fs.writeFileSync(
      changed,
      fs.readFileSync(pinsFile, "utf8").replace(/("libc6"[\s\S]*?"version": ")/u, "$199"),
    )
    assert.strictEqual(yield* glibcKey(pinsFile), yield* glibcKey(pinsFile))
    assert.notStrictEqual(yield* glibcKey(pinsFile), yield* glibcKey(changed))
  }),
)

it.effect("a pin that a recipe needs and the file lacks is named", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "pins.json")
    fs.writeFileSync(file, fs.readFileSync(pinsFile, "utf8").replace(`"busybox-static": {`, `"other": {`))
    const error = yield* Effect.flip(components("x86_64", { pins: file }))
    assert.strictEqual(error.message, `${file}: there is no pin named busybox-static under "packages"`)
  }),
)

it.effect("no image has what only tests need, and their cluster is of the kubelet's version", () =>
  Effect.gen(function* () {
    const catalog = yield* components("x86_64")
    const forTests = yield* testComponents
    for (const [name, component] of Object.entries(forTests)) {
      assert.strictEqual(component.name, name)
      assert.notProperty(catalog, name)
      for (const source of component.sources)
        assert.match(JSON.stringify(yield* source.fingerprint), /[0-9a-f]{64}/u)
    }
    assert.strictEqual(forTests.kubernetes.version, catalog.kubelet.version)
    // Two go.mod, so that the tests' programs choose no version for the kubelet; what both have is the same.
    const modules = (name: string) => {
      const text = fs.readFileSync(path.join(componentsDirectory, name, "go.mod"), "utf8")
      return new Map([...text.matchAll(/^\s*(\S+)(?: =>.*)? (v\S+)/gmu)].map((match) => [match[1], match[2]]))
    }
    const ofTests = modules("cluster")
    const shared = [...modules("kubelet")].filter(([name]) => ofTests.has(name))
    assert.isAbove(shared.length, 50)
    for (const [name, version] of shared)
      if (!name?.startsWith("k8s.io/")) assert.strictEqual(ofTests.get(name), version, name)
  }),
)
