import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"

/** Libraries and loader that a program or library names, from its ELF headers (readelf of binutils). */
const needs = (file: string): ReadonlyArray<string> => {
  const text = execFileSync("readelf", ["-d", "-l", file], { encoding: "utf8" })
  const libraries = [...text.matchAll(/\(NEEDED\).*\[(.*)\]/gu)].map((match) => match[1]!)
  const loader = /interpreter: (.*)\]/u.exec(text)?.[1]
  return loader === undefined ? libraries : [...libraries, path.basename(loader)]
}

// Needs the archive or a warm cache, as every build does.
it.live("the catalog has every library that its programs need, and none that nobody needs", () =>
  Effect.gen(function* () {
    const all = yield* components("x86_64")
    const store = yield* ComponentStore
    const resolved = yield* store.resolveAll([
      all.glibc,
      all["gcc-libs"],
      all["util-linux"],
      all.libselinux,
      all.pcre2,
      all.node,
      all.koffi,
      all["busybox-dynamic"],
      all.ndisc6,
      all.openntpd,
    ])
    const files = resolved.flatMap((item) => item.files.map((file) => filePath(item, file.path)))
    const libraries = new Set(
      files.map((file) => path.basename(file)).filter((name) => /\.so\.\d/u.test(name)),
    )
    const needed = new Set(files.flatMap(needs))
    assert.deepStrictEqual([...libraries].sort(), [...needed].sort())
  }).pipe(Effect.provide(ComponentStore.live)),
)
