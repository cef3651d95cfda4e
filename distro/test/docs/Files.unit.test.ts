import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { builtIn, filesMarkdown, mounts } from "../../src/docs/Files.ts"
import { recipe } from "../../src/recipe.ts"

const repository = (file: string) => fileURLToPath(new URL(`../../../${file}`, import.meta.url))

it.effect("docs/files.md is what the recipe and the stages say", () =>
  Effect.gen(function* () {
    const wanted = yield* filesMarkdown(recipe)
    const page = fs.readFileSync(repository("docs/files.md"), "utf8")
    // The first line that differs says what changed; the whole page would not.
    const lines = page.split("\n")
    const at = wanted.split("\n").findIndex((line, index) => line !== lines[index])
    assert.isTrue(
      page === wanted,
      `docs/files.md is out of date at line ${at + 1}: run \`npm run docs\`\n  has    ${lines[at]}\n  wanted ${wanted.split("\n")[at]}`,
    )
  }),
)

it.effect("every file has a reason, and no path of this machine is in the page", () =>
  Effect.gen(function* () {
    for (const file of [...recipe.files, ...recipe.images, ...(recipe.pods ?? [])])
      assert.notStrictEqual(file.why.trim(), "", "path" in file ? file.path : file.name)
    const page = yield* filesMarkdown(recipe)
    assert.notInclude(page, repository(""))
    for (const file of recipe.files) assert.include(page, `\`${file.path}\``)
  }),
)

it("the devices and directories are those that the builder makes", () => {
  const build = fs.readFileSync(repository("distro/src/Build.ts"), "utf8")
  const made = (tag: string) =>
    [...build.matchAll(new RegExp(`_tag: "${tag}", path: "([^"]+)"`, "gu"))].map((match) => match[1])
  assert.deepStrictEqual(
    builtIn.devices.map(({ path }) => path),
    made("CharDevice"),
  )
  assert.deepStrictEqual(
    builtIn.directories.map(({ path }) => path),
    made("Directory"),
  )
})

it.effect("only what must be executable or writable is", () =>
  Effect.gen(function* () {
    const found = yield* mounts
    const without = (flag: string) =>
      found.filter(({ flags }) => !flags.includes(flag)).map(({ target }) => target)
    assert.deepStrictEqual(without("nosuid"), [])
    assert.deepStrictEqual(without("nodev"), ["/dev", "/dev/pts"])
    assert.deepStrictEqual(without("noexec"), [
      "/bin",
      "/lib",
      "/lib64",
      "/var",
      "/opt",
      "/var/lib/containerd",
      "/var/lib/kubelet",
      "/opt/cni/bin",
    ])
    assert.deepStrictEqual(
      found.filter(({ flags }) => flags.includes("ro")).map(({ target }) => target),
      ["/", "/bin", "/lib", "/lib64"],
    )
  }),
)
