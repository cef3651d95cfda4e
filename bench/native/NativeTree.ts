/**
 * What the native bench runs: two directory trees, each the root of a machine
 * whose init is the one under test and whose containerd only says when it was
 * started. All else is the recipe's own: the same Node, libraries, sealing.
 */
import { components } from "@kios/distro/components/catalog"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { filePath } from "@kios/distro/components/Resolved"
import { runToolOk } from "@kios/distro/components/Tools"
import type { Recipe } from "@kios/distro/ImageRecipe"
import * as Seal from "@kios/distro/image/Seal"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { attempt, compilerFlags, configuration } from "../FloorImage.ts"

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url))

/** Where the trees are, and the program that starts them. */
export interface NativeTrees {
  readonly kios: string
  readonly floor: string
  /** `stamp`: makes a tree the root and tells the time. */
  readonly launcher: string
  /** The abstract socket on which the stamps arrive, without its leading NUL. */
  readonly socket: string
}

/** Compiles a C program of the bench. */
const compile = (source: string, output: string, define: ReadonlyArray<string> = []) =>
  runToolOk({
    component: "bench",
    doing: `compiling ${path.basename(source)}`,
    writesTo: path.dirname(output),
    command: "gcc",
    args: ["-static", "-s", ...compilerFlags, ...define, "-o", output, source],
    env: { PATH: process.env["PATH"] ?? "" },
  })

/** PID 1 of the native bench: the stages of `pipeline.ts`, sealed as the reference distro's are. */
const entryOf = (stages: number): string => `import * as Init from "@kios/core/Init"
import { make } from ${JSON.stringify(here("pipeline.ts"))}
Init.start({ pipeline: make(${stages}), koffiPath: "/lib/kios/koffi.node" })
`

/**
 * Makes both trees in `directory`, which is emptied first.
 *
 * @param stages Stages of no work that kiOS's init has before containerd.
 */
export const make = Effect.fn("NativeTree.make")(function* (recipe: Recipe, directory: string, stages = 0) {
  const store = yield* ComponentStore
  const catalog = yield* components("x86_64")
  const ofLibraries = recipe.files.flatMap(({ from, mode, path: target }) =>
    from._tag === "Component" && target.startsWith("/lib") ? [{ from, mode, target }] : [],
  )
  const names = [...new Set(["node" as const, ...ofLibraries.map(({ from }) => from.component)])]
  const resolved = yield* store.resolveAll(names.map((name) => catalog[name]))
  const find = (component: (typeof names)[number], file: string) =>
    filePath(resolved[names.indexOf(component)]!, file)

  const at = (...parts: ReadonlyArray<string>) => path.join(directory, ...parts)
  yield* attempt(directory, () => {
    fs.rmSync(directory, { recursive: true, force: true })
    fs.mkdirSync(directory, { recursive: true })
  })
  const launcher = at("stamp")
  yield* compile(here("stamp.c"), launcher)
  yield* compile(here("../floor.c"), at("floor-init"), ["-DNAMESPACE"])
  // A directory of this package, so that the packages are found from it.
  const entry = here(`.init-${stages}.ts`)
  yield* attempt(entry, () => fs.writeFileSync(entry, entryOf(stages)))
  const sealed = yield* Seal.seal({
    entry,
    node: find("node", "bin/node"),
    directory,
    output: at("kios-init"),
    locales: recipe.locales === true,
  }).pipe(Effect.ensuring(Effect.sync(() => fs.rmSync(entry, { force: true }))))

  const socket = `kios-bench-${process.pid}`
  const put = (
    file: string,
    mode: number,
    content: { readonly path: string } | { readonly text: string },
  ) => {
    fs.mkdirSync(path.dirname(file), { recursive: true })
    if ("path" in content) fs.copyFileSync(content.path, file)
    else fs.writeFileSync(file, content.text)
    fs.chmodSync(file, mode)
  }
  const shared = (root: string, init: string) => {
    put(path.join(root, "init"), 0o755, { path: init })
    put(path.join(root, "bin/containerd"), 0o755, { path: launcher })
    put(path.join(root, "lib/kios/bench-socket"), 0o644, { text: `${socket}\n` })
    for (const { from, mode, target } of ofLibraries)
      put(path.join(root, target), mode, { path: find(from.component, from.file) })
    for (const name of ["lib/kios/etc/kubernetes/manifests", "lib/kios/etc/cni/net.d", "dev", "old"])
      fs.mkdirSync(path.join(root, name), { recursive: true })
  }
  yield* attempt(directory, () => {
    shared(at("kios"), sealed.output)
    shared(at("floor"), at("floor-init"))
    for (const [name, text] of Object.entries(configuration())) put(at("floor", name), 0o600, { text })
    // No module before containerd, none after it.
    put(at("floor/lib/modules/kios.order"), 0o644, { text: "\n" })
  })
  return {
    trees: { kios: at("kios"), floor: at("floor"), launcher, socket } satisfies NativeTrees,
    sealed,
  }
})
