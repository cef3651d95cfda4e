/**
 * The floor's image: a recipe with the C program of `floor.c` in place of init
 * and without what only init needs. All else is the recipe's own, so that the
 * two images differ in nothing but PID 1.
 */
import * as Component from "@kios/distro/components/Component"
import { components } from "@kios/distro/components/catalog"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { CacheLocation } from "@kios/distro/components/Environment"
import { filePath } from "@kios/distro/components/Resolved"
import * as CProgram from "@kios/distro/components/sources/CProgram"
import * as GoModule from "@kios/distro/components/sources/GoModule"
import { modulesOf } from "@kios/distro/HardwareProfile"
import { local, type Recipe, type RecipeFile } from "@kios/distro/ImageRecipe"
import * as ModuleSet from "@kios/distro/image/ModuleSet"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as ModulesDep from "@kios/stages-runtime/ModulesDep"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import * as SelfSignedCertificate from "@kios/stages-kubelet/SelfSignedCertificate"
import { Data, Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url))

/** Where floor.c looks for its configuration. */
const CONFIG = "/lib/kios/floor"

/** What only Node needs: `mount` and `umount` do without. */
const ofInit = new Set([
  "/init",
  "/lib/kios/koffi.node",
  "/lib/libm.so.6",
  "/lib/libdl.so.2",
  "/lib/libpthread.so.0",
  "/lib/libstdc++.so.6",
  "/lib/libgcc_s.so.1",
])

/** A file of the floor's image could not be made. */
export class FloorFileError extends Data.TaggedError("FloorFileError")<{
  readonly path: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `${this.path}: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/** Runs what reads or writes a file. */
export const attempt = <A>(file: string, run: () => A) =>
  Effect.try({ try: run, catch: (cause) => new FloorFileError({ path: file, cause }) })

/**
 * The flags that floor.c is compiled with, besides `-static -s`. Warnings are
 * errors: a yardstick has to be right.
 */
export const compilerFlags = ["-std=c17", "-O2", "-Wall", "-Wextra", "-Werror"] as const

/** `floor.c` and `floor-import`, compiled; both are cached by what they are made of. */
const programs = Effect.gen(function* () {
  const store = yield* ComponentStore
  const catalog = yield* components("x86_64")
  const source = here("floor.c")
  const sha256 = digest([yield* attempt(source, () => fs.readFileSync(source))])
  const floor = Component.make({
    name: "floor",
    version: sha256.slice(0, 12),
    // glibc is linked in.
    license: "Apache-2.0 AND LGPL-2.1-or-later",
    arch: "x86_64",
    provides: ["init"],
    sources: [CProgram.source({ from: { file: source }, sha256, flags: compilerFlags, to: "init" })],
  })
  const directory = here("floor-import")
  const goMod = path.join(directory, "go.mod")
  const version = /^go (\S+)$/mu.exec(yield* attempt(goMod, () => fs.readFileSync(goMod, "utf8")))?.[1]
  // The compiler that made containerd is here already; another one would be a download.
  const compiler = (yield* store.resolve(catalog.containerd)).facts["go"] ?? `go${version}`
  const own = yield* attempt(directory, () => {
    const names = fs.readdirSync(directory).filter((name) => name.endsWith(".go"))
    return names.sort().map((name) => fs.readFileSync(path.join(directory, name)))
  })
  const floorImport = Component.make({
    name: "floor-import",
    // A Go source is keyed by go.mod and go.sum, which pin what is imported; our own package is beside them.
    version: digest(own).slice(0, 12),
    license: "Apache-2.0",
    arch: "x86_64",
    provides: ["bin/floor-import"],
    sources: [
      GoModule.source({
        directory,
        toolchain: { version: compiler, bootstrap: catalog["go-bootstrap"] },
        packages: ["kios.dev/bench/floor-import"],
        to: "bin",
        tags: ["osusergo", "netgo"],
        ldflags: ["-s", "-w"],
      }),
    ],
  })
  const [init, importer] = yield* store.resolveAll([floor, floorImport])
  return { init: filePath(init!, "init"), import: filePath(importer!, "bin/floor-import") }
})

const digest = (chunks: ReadonlyArray<Buffer>): string =>
  chunks.reduce((hash, chunk) => hash.update(chunk), createHash("sha256")).digest("hex")

/**
 * The drivers of QEMU's machine with a virtio disk, network and random numbers: kiOS finds them by the devices that are
 * there, the floor is told.
 */
const ofMachine = {
  boot: ["virtio_blk", "ahci"],
  node: ["virtio_net", "virtio_rng", "button", "evdev"],
} as const

/** The list that floor.c loads: boot modules, an empty line, the rest; relative to /lib/modules. */
export const moduleOrder = (
  dep: string,
  boot: ReadonlyArray<string>,
  node: ReadonlyArray<string>,
  release: string,
): string => {
  const table = ModulesDep.parse(dep)
  const paths = (names: Iterable<string>) =>
    ModulesDep.order(table, [...names]).load.map((entry) => `${release}/${entry.path}`)
  const first = paths(boot)
  const rest = paths(node).filter((entry) => !first.includes(entry))
  return `${first.join("\n")}\n\n${rest.join("\n")}\n`
}

const modulesFile = Effect.fnUntraced(function* (recipe: Recipe) {
  const store = yield* ComponentStore
  const cache = yield* CacheLocation
  const kernel = yield* store.resolve((yield* components("x86_64"))[recipe.hardware.kernel])
  const release = kernel.attributes["release"] ?? ""
  const work = path.join(cache.root, "modules", kernel.key)
  yield* attempt(work, () => fs.mkdirSync(work, { recursive: true }))
  const selected = modulesOf(recipe.hardware)
  const entries = yield* ModuleSet.entries({
    root: kernel.directory,
    release,
    modules: selected.plain,
    compressed: selected.compressed,
    work,
  })
  const dep = entries.find((entry) => entry.path.endsWith("/modules.dep"))
  const file = dep?._tag === "File" && "path" in dep.content ? dep.content.path : ""
  return moduleOrder(
    yield* attempt(file, () => fs.readFileSync(file, "utf8")),
    [...KernelModules.bootModules, ...ofMachine.boot],
    [...ofMachine.node, ...KernelModules.nodeModules, ...KernelModules.podModules],
    release,
  )
})

/** The configuration files, by their path in the image: rendered by the stages' own code. */
export const configuration = (): Readonly<Record<string, string>> => {
  const tls = { tlsCertFile: `${CONFIG}/tls.crt`, tlsPrivateKeyFile: `${CONFIG}/tls.key` }
  const pair = SelfSignedCertificate.make("kios", new Date(0), 36_500)
  const runtime = ContainerdConfig.reference
  const standalone = { _tag: "Standalone" } as const
  const kubelet = {
    ...KubeletConfig.base(standalone, tls),
    ...KubeletConfig.fixed(standalone, {
      containerRuntimeEndpoint: `unix://${runtime.address}`,
      staticPodPath: "/etc/kubernetes/manifests",
    }),
  }
  return {
    [`${CONFIG}/containerd.toml`]: ContainerdConfig.render(runtime),
    // JSON is YAML.
    [`${CONFIG}/kubelet.yaml`]: `${JSON.stringify(kubelet, null, 2)}\n`,
    [tls.tlsCertFile]: pair.certificate,
    [tls.tlsPrivateKeyFile]: pair.privateKey,
  }
}

/** What of a recipe the floor keeps. */
export const kept = (recipe: Recipe): ReadonlyArray<RecipeFile> =>
  recipe.files.filter((file) => !ofInit.has(file.path))

/**
 * The floor's recipe. Files that are made for it are put into `directory`.
 *
 * Fails with `ComponentError` when a program cannot be built and with
 * {@link FloorFileError}.
 *
 * @example
 * ```ts
 * const floor = yield* FloorImage.of(recipe, "dist/build/floor")
 * yield* Build.build({ recipe: floor, output: "dist/floor.efi" })
 * ```
 */
export const of = Effect.fn("FloorImage.of")(function* (recipe: Recipe, directory: string) {
  const { import: importer, init } = yield* programs
  const texts = { ...configuration(), "/lib/modules/kios.order": yield* modulesFile(recipe) }
  const made = yield* attempt(directory, () => {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    return Object.entries(texts).map(([target, text]): RecipeFile => {
      const file = path.join(directory, path.basename(target))
      fs.writeFileSync(file, text, { mode: 0o600 })
      return { path: target, mode: 0o600, from: local(file), why: "the floor's configuration" }
    })
  })
  return {
    ...recipe,
    name: `${recipe.name} floor`,
    files: [
      { path: "/init", mode: 0o755, from: local(init), why: "PID 1: floor.c" },
      { path: "/bin/floor-import", mode: 0o755, from: local(importer), why: "imports images" },
      ...kept(recipe),
      ...made,
    ],
  } satisfies Recipe
})
