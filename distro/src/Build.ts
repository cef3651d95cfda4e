/**
 * From a recipe to an EFI file.
 */
import { Clock, Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { ComponentStore } from "./components/ComponentStore.ts"
import { components, type Catalog } from "./components/catalog.ts"
import { CacheLocation } from "./components/Environment.ts"
import { step } from "./components/Progress.ts"
import { filePath, type Resolved } from "./components/Resolved.ts"
import { modulesOf } from "./HardwareProfile.ts"
import * as ContainerImages from "./ContainerImages.ts"
import type { Origin, Recipe } from "./ImageRecipe.ts"
import { fileOperation } from "./image/ImageError.ts"
import * as Initramfs from "./image/Initramfs.ts"
import * as ModuleSet from "./image/ModuleSet.ts"
import * as Sbom from "./image/Sbom.ts"
import * as Seal from "./image/Seal.ts"
import * as Segments from "./image/Segments.ts"
import * as Uki from "./image/Uki.ts"

/** How many bytes one part of the image takes before compression. */
export interface PartSize {
  readonly part: string
  readonly bytes: number
}

/** What was built. Sizes in bytes. */
export interface Build {
  readonly efi: string
  readonly bytes: number
  readonly sha256: string
  /** The initramfs as it is in the EFI, and unpacked. */
  readonly initramfs: { readonly bytes: number; readonly uncompressedBytes: number }
  readonly kernelBytes: number
  readonly parts: ReadonlyArray<PartSize>
  readonly sbom: string
  readonly seconds: number
}

/**
 * Where a build leaves its {@link Build} as JSON: `dist/kios.efi` has `dist/kios.build.json`.
 *
 * @example
 * ```ts
 * import * as Build from "@kios/distro/Build"
 * import * as fs from "node:fs"
 *
 * const built = JSON.parse(fs.readFileSync(Build.recordPath("dist/kios.efi"), "utf8")) as Build.Build
 * ```
 */
export const recordPath = (efi: string): string =>
  path.join(path.dirname(path.resolve(efi)), `${path.basename(efi, ".efi")}.build.json`)

/** What {@link build} takes. */
export interface BuildOptions {
  readonly recipe: Recipe
  /** Path of the EFI; the SBOM is put beside it. */
  readonly output: string
}

// Components that every image has, whatever its recipe's files.
const always = ["efi-stub", "node"] as const

/**
 * The components that a recipe takes files from.
 *
 * @example
 * ```ts
 * import * as Build from "@kios/distro/Build"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const names = Build.componentsOf(recipe) // ["kernel", "efi-stub", "node", "containerd", ...]
 * ```
 */
export const componentsOf = (recipe: Recipe): ReadonlyArray<keyof Catalog> => {
  const origins = [
    ...ContainerImages.filesOf(recipe).map((file) => file.from),
    ...ContainerImages.originsOf(recipe),
  ]
  const named = origins.flatMap((origin) => (origin._tag === "Component" ? [origin.component] : []))
  return [...new Set([recipe.hardware.kernel, ...always, ...named])]
}

type Parts = Partial<Record<keyof Catalog, Resolved>>

const resolveAll = Effect.fnUntraced(function* (recipe: Recipe) {
  const store = yield* ComponentStore
  const catalog = yield* components("x86_64")
  const names = componentsOf(recipe)
  const resolved = yield* store.resolveAll(names.map((name) => catalog[name]))
  return Object.fromEntries(names.map((name, index) => [name, resolved[index]])) as Parts
})

const part = (parts: Parts, name: keyof Catalog): Resolved => {
  const found = parts[name]
  if (found === undefined)
    throw new RangeError(`component ${name} was not resolved: componentsOf() left it out`)
  return found
}

const pathOf = (parts: Parts, origin: Origin): string =>
  origin._tag === "Local" ? origin.file : filePath(part(parts, origin.component), origin.file)

/**
 * Devices that exist before /dev is mounted: where the kernel and init write.
 *
 * @example
 * ```ts
 * import * as Build from "@kios/distro/Build"
 *
 * const paths = Build.devices.map((entry) => entry.path) // "/dev/console", ...
 * ```
 */
export const devices: ReadonlyArray<Initramfs.Entry> = [
  { _tag: "CharDevice", path: "/dev/console", mode: 0o600, major: 5, minor: 1 },
  { _tag: "CharDevice", path: "/dev/kmsg", mode: 0o600, major: 1, minor: 11 },
  { _tag: "CharDevice", path: "/dev/null", mode: 0o666, major: 1, minor: 3 },
]

/**
 * Looked up by programs of the image, and nothing may be put there.
 *
 * @example
 * ```ts
 * import * as Build from "@kios/distro/Build"
 *
 * const paths = Build.emptyDirectories.map((entry) => entry.path)
 * ```
 */
export const emptyDirectories: ReadonlyArray<Initramfs.Entry> = [
  { _tag: "Directory", path: "/lib/kios/volume-plugins", mode: 0o755 },
  { _tag: "Directory", path: "/lib/kios/etc/kubernetes/manifests", mode: 0o755 },
  { _tag: "Directory", path: "/lib/kios/etc/cni/net.d", mode: 0o755 },
  { _tag: "Directory", path: "/lib/kios/images", mode: 0o755 },
]

/** Bytes by what people ask about: the first component of a file's name that means something. */
const partOf = (recipe: Recipe) => {
  const byPath = new Map(recipe.files.map((file) => [file.path.replace(/^\//u, ""), file]))
  return (entry: string): string => {
    const name = entry.replace(/^\//u, "")
    const file = byPath.get(name)
    if (file?.from._tag === "Init") return "init (node and bundle)"
    if (name.startsWith("lib/modules/")) return "kernel modules"
    if (name.startsWith("lib/kios/images/")) return "images"
    if (file?.from._tag === "Component" && name.startsWith("bin/")) return name.slice("bin/".length)
    return name.startsWith("lib/kios/etc/") ? "/etc" : "libraries"
  }
}

/** What is another one after each change of our program; all else is packed once. */
const isInit = (entry: Initramfs.Entry): boolean => entry.path === "/init"

const sha256 = (file: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const hash = crypto.createHash("sha256")
    fs.createReadStream(file)
      .on("data", (chunk) => hash.update(chunk))
      .on("error", reject)
      .on("end", () => resolve(hash.digest("hex")))
  })

/**
 * Builds the EFI of a recipe: resolves its components, seals init, makes the
 * container images, the initramfs and the unified kernel image, and writes the
 * software bill of materials beside it (`kios.cdx.json`).
 *
 * Progress goes to the `Progress` reference. Fails with `ComponentError` or
 * `ImageError`, each of which says what to do.
 *
 * @example
 * ```ts
 * import * as Build from "@kios/distro/Build"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const efi = Build.build({ recipe, output: "dist/kios.efi" })
 * ```
 */
export const build = Effect.fn("Build.build")(function* ({ output, recipe }: BuildOptions) {
  const started = yield* Clock.monotonicTimeNanos
  const parts = yield* resolveAll(recipe)
  const cache = yield* CacheLocation
  const directory = path.dirname(path.resolve(output))
  const kernel = part(parts, recipe.hardware.kernel)
  const release = kernel.attributes["release"] ?? ""
  const selected = modulesOf(recipe.hardware)
  const work = path.join(directory, "build")
  const modulesWork = path.join(cache.root, "modules", kernel.key)
  yield* fileOperation("create", work, () => fs.mkdirSync(work, { recursive: true }))
  yield* fileOperation("create", modulesWork, () => fs.mkdirSync(modulesWork, { recursive: true }))

  const init = path.join(work, "init")
  const sealing = Seal.seal({
    entry: recipe.init,
    node: filePath(part(parts, "node"), "bin/node"),
    directory: work,
    output: init,
    locales: recipe.locales === true,
  })
  // An image may bring another PID 1, as the bench's yardstick does.
  const sealed = recipe.files.some((file) => file.from._tag === "Init")
    ? yield* step("init", "bundle and seal", sealing)
    : undefined
  const archives = yield* step(
    "images",
    `make ${recipe.images.length} container images`,
    ContainerImages.makeArchives(recipe, { pathOf: (from) => pathOf(parts, from), work }),
  )
  const modules = yield* step(
    "kernel",
    "collect modules",
    ModuleSet.entries({
      root: kernel.directory,
      release,
      modules: selected.plain,
      compressed: selected.compressed,
      work: modulesWork,
    }),
  )
  const entries: ReadonlyArray<Initramfs.Entry> = [
    ...devices,
    ...emptyDirectories,
    ...ContainerImages.filesOf(recipe).map((file) => ({
      _tag: "File" as const,
      path: file.path,
      mode: file.mode,
      content: { path: file.from._tag === "Init" ? init : pathOf(parts, file.from) },
    })),
    ...archives.map((archive) => ({
      _tag: "File" as const,
      path: `/lib/kios/images/${archive.name}`,
      mode: 0o644,
      content: { path: archive.path },
    })),
    ...modules,
  ]
  const initrd = path.join(work, "initramfs.img")
  const initramfs = yield* step(
    "initramfs",
    `pack (${recipe.compression.compression})`,
    Segments.write(
      [
        { keep: true, entries: entries.filter((entry) => !isInit(entry)), ...recipe.compression },
        { keep: false, entries: entries.filter(isInit), ...(recipe.initCompression ?? recipe.compression) },
      ],
      { output: initrd, cache: path.join(cache.root, "packed") },
    ),
  )
  const vmlinuz = filePath(kernel, "boot/vmlinuz")
  const uki = yield* step(
    "efi",
    "link",
    Uki.build({
      output,
      stub: filePath(part(parts, "efi-stub"), "linuxx64.efi.stub"),
      kernel: vmlinuz,
      initrd,
      cmdline: recipe.cmdline.join(" "),
      osRelease: `NAME="${recipe.name}"\nID=kios\nPRETTY_NAME="${recipe.name} ${recipe.version}"\nVERSION_ID="${recipe.version}"\n`,
      uname: release,
    }),
  )
  const sbom = path.join(directory, `${path.basename(output, ".efi")}.cdx.json`)
  const ours =
    sealed === undefined
      ? []
      : [
          {
            name: "kios-init",
            version: recipe.version,
            license: "Apache-2.0",
            source: "sealed from the distro's own packages",
            files: [{ path: "init", sha256: yield* Effect.promise(() => sha256(init)), size: sealed.bytes }],
          },
        ]
  const document = yield* Sbom.make(
    { name: recipe.name, version: recipe.version, profile: recipe.hardware.name },
    [
      ...Object.values(parts).map((resolved) => ({
        name: resolved.name,
        version: resolved.version,
        license: resolved.license,
        source: resolved.source.description,
        // Of Go modules go.sum has the digests, and there are hundreds.
        packages: resolved.parts.flatMap(({ digest, purl }) =>
          resolved.source.kind === "debian" && digest !== undefined ? [{ purl, digest }] : [],
        ),
        files: resolved.files,
      })),
      ...ours,
    ],
  )
  yield* fileOperation("write", sbom, () => fs.writeFileSync(sbom, document))

  const name = partOf(recipe)
  const sizes = new Map<string, number>()
  for (const entry of initramfs.parts)
    sizes.set(name(entry.path), (sizes.get(name(entry.path)) ?? 0) + entry.bytes)
  const kernelBytes = fs.statSync(vmlinuz).size
  const built = {
    efi: path.resolve(output),
    bytes: uki.bytes,
    sha256: uki.sha256,
    initramfs: { bytes: initramfs.bytes, uncompressedBytes: initramfs.uncompressedBytes },
    kernelBytes,
    parts: [...sizes]
      .map(([partName, bytes]) => ({ part: partName, bytes }))
      .sort((a, b) => b.bytes - a.bytes),
    sbom,
    seconds: Number((yield* Clock.monotonicTimeNanos) - started) / 1e9,
  } satisfies Build
  const record = recordPath(output)
  yield* fileOperation("write", record, () => fs.writeFileSync(record, `${JSON.stringify(built, null, 2)}\n`))
  return built
})
