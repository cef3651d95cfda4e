/** The container images of the reference distro, made of the real components. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath, type Resolved } from "../../src/components/Resolved.ts"
import { layersOf, makeArchives, originsOf } from "../../src/ContainerImages.ts"
import type { Origin } from "../../src/ImageRecipe.ts"
import { recipe } from "../../src/recipe.ts"
import { scratch } from "./support.ts"

/** Where the recipe's files are. */
const sources = Effect.gen(function* () {
  const store = yield* ComponentStore
  const catalog = yield* components("x86_64")
  const names = new Set(
    originsOf(recipe).flatMap((from) => (from._tag === "Component" ? [from.component] : [])),
  )
  const resolved = new Map<string, Resolved>()
  for (const name of names) resolved.set(name, yield* store.resolve(catalog[name]))
  return (from: Origin) =>
    from._tag === "Local" ? from.file : filePath(resolved.get(from.component)!, from.file)
}).pipe(Effect.provide(ComponentStore.live))

/** Libraries and loader that a program or library names, from its ELF headers. */
const needs = (file: string): ReadonlyArray<string> => {
  const text = execFileSync("readelf", ["-d", "-l", file], { encoding: "utf8" })
  const loader = /interpreter: (.*)\]/u.exec(text)?.[1]
  return [
    ...[...text.matchAll(/\(NEEDED\).*\[(.*)\]/gu)].map((match) => match[1]!),
    ...(loader === undefined ? [] : [path.basename(loader)]),
  ]
}

const isElf = (file: string): boolean => {
  const handle = fs.openSync(file, "r")
  const magic = Buffer.alloc(4)
  fs.readSync(handle, magic, 0, 4, 0)
  fs.closeSync(handle)
  return magic.equals(Buffer.from("\x7fELF", "latin1"))
}

describe("the distro's container images", () => {
  it.live("same recipe, same digests, from files and to directories of other names", () =>
    Effect.gen(function* () {
      const pathOf = yield* sources
      const [one, two] = [yield* scratch, yield* scratch]
      // The second build reads copies, with other times and modes than the cache's.
      const copies = path.join(two, "copies")
      fs.mkdirSync(copies)
      let count = 0
      const copied = (from: Origin) => {
        const to = path.join(copies, String(count++))
        fs.copyFileSync(pathOf(from), to)
        fs.chmodSync(to, 0o600)
        return to
      }
      const a = yield* makeArchives(recipe, { pathOf, work: one })
      const b = yield* makeArchives(recipe, { pathOf: copied, work: path.join(two, "elsewhere") })
      assert.isAbove(a.length, 1)
      assert.deepStrictEqual(
        a.map(({ images, name }) => ({ name, images })),
        b.map(({ images, name }) => ({ name, images })),
      )
      for (const [index, archive] of a.entries())
        assert.isTrue(fs.readFileSync(archive.path).equals(fs.readFileSync(b[index]!.path)), archive.name)
    }),
  )

  it.live("each has the libraries that its programs need; no library is in vain", () =>
    Effect.gen(function* () {
      const pathOf = yield* sources
      const used = new Set<string>()
      const carried = new Set<string>()
      for (const image of recipe.images) {
        const files = layersOf(image).flat()
        const programs = files.flatMap((file) =>
          "from" in file ? [[file.path, pathOf(file.from)] as const] : [],
        )
        const there = new Set(files.map((file) => path.basename(file.path)))
        for (const [name, source] of programs) {
          if (/\.so\.\d/u.test(name)) carried.add(path.basename(name))
          if (!isElf(source)) continue
          for (const needed of needs(source)) {
            used.add(needed)
            assert.isTrue(there.has(needed), `${image.name}: /${name} needs ${needed}`)
          }
        }
        for (const file of files)
          if ("symlink" in file)
            assert.isTrue(there.has(file.symlink), `${image.name}: /${file.path} leads nowhere`)
      }
      assert.deepStrictEqual([...carried].toSorted(), [...used].toSorted())
    }),
  )
})
