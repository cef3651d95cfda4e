/**
 * Which kernel modules are in the image: those that are asked for and all that
 * they need, decompressed, with a modules.dep that lists just them.
 *
 * Debian's package has no modules.dep (depmod(8) makes it when the package is
 * installed) and compresses every module, which the image as a whole does
 * better: modules are stored as they are.
 */
import { order, parse, type ModuleEntry } from "@kios/stages-runtime/ModulesDep"
import { Data, Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { runToolOk } from "../components/Tools.ts"
import { fileOperation } from "./ImageError.ts"
import type { Entry } from "./Initramfs.ts"

/**
 * A module was asked for that this kernel does not have, neither as a file nor built in.
 *
 * @example
 * ```ts
 * import { ModuleMissing } from "@kios/distro/image/ModuleSet"
 *
 * const text = new ModuleMissing({ module: "zram", neededBy: undefined, release: "6.12.0" }).message
 * ```
 */
export class ModuleMissing extends Data.TaggedError("ModuleMissing")<{
  readonly module: string
  readonly neededBy: string | undefined
  readonly release: string
}> {
  override get message(): string {
    return `kernel ${this.release} has no module ${this.module}${this.neededBy === undefined ? "" : `, which ${this.neededBy} needs`}: check its name in the recipe`
  }
}

/** What {@link entries} takes. */
export interface ModuleSetOptions {
  /** Directory with `lib/modules/RELEASE`, as in the kernel component. */
  readonly root: string
  readonly release: string
  readonly modules: ReadonlyArray<string>
  /** Where decompressed modules are kept between builds; must exist. */
  readonly work: string
}

// depmod takes seconds over a whole kernel, so its answer is kept beside the modules.
const dependencies = Effect.fnUntraced(function* (options: ModuleSetOptions) {
  const file = path.join(options.work, "modules.dep")
  if (!fs.existsSync(file)) {
    const { stdout } = yield* runToolOk({
      component: "kernel",
      doing: "reading the dependencies of kernel modules",
      writesTo: options.work,
      command: "depmod",
      // A dry run prints the files that it would write, one after the other.
      args: ["--dry-run", "--basedir", options.root, options.release],
      env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`, LANG: "C.UTF-8" },
      capture: true,
    })
    const lines = stdout.split("\n").filter((line) => /^\S+\.ko(\.\w+)?:/u.test(line))
    const partial = `${file}.${process.pid}`
    yield* fileOperation("write", file, () => {
      fs.writeFileSync(partial, `${lines.join("\n")}\n`)
      fs.renameSync(partial, file)
    })
  }
  return parse(yield* fileOperation("read", file, () => fs.readFileSync(file, "utf8")))
})

/**
 * The image's entries below /lib/modules.
 *
 * Fails with {@link ModuleMissing}, `MissingTool` without `depmod` (Debian
 * package kmod) or `xz` (xz-utils), and the errors of the file system.
 *
 * @example
 * ```ts
 * import type { Resolved } from "@kios/distro/components/Resolved"
 * import * as ModuleSet from "@kios/distro/image/ModuleSet"
 *
 * const overlay = (kernel: Resolved) =>
 *   ModuleSet.entries({
 *     root: kernel.directory,
 *     release: kernel.attributes["release"] ?? "",
 *     modules: ["overlay"],
 *     work: "/tmp/work",
 *   })
 * ```
 */
export const entries = Effect.fn("ModuleSet.entries")(function* (options: ModuleSetOptions) {
  const base = path.join(options.root, "lib/modules", options.release)
  const target = `/lib/modules/${options.release}`
  const builtin = yield* fileOperation("read", base, () =>
    fs.readFileSync(path.join(base, "modules.builtin")),
  )
  const builtinNames = new Set(parse(builtin.toString("utf8").replaceAll("\n", ":\n")).keys())
  const { load, unknown } = order(yield* dependencies(options), options.modules)
  for (const { name, neededBy } of unknown) {
    if (!builtinNames.has(name))
      return yield* new ModuleMissing({ module: name, neededBy, release: options.release })
  }
  const plain = (entry: ModuleEntry) => entry.path.replace(/\.xz$/u, "")
  const files = yield* Effect.forEach(
    load,
    (entry) => decompressed(path.join(base, entry.path), path.join(options.work, plain(entry))),
    {
      concurrency: 2,
    },
  )
  const byName = new Map(load.map((entry) => [entry.name, plain(entry)]))
  const dep = load
    .map((entry) => `${plain(entry)}:${entry.needs.map((need) => ` ${byName.get(need) ?? ""}`).join("")}\n`)
    .join("")
  return [
    { _tag: "File", path: `${target}/modules.dep`, mode: 0o644, content: { bytes: Buffer.from(dep) } },
    { _tag: "File", path: `${target}/modules.builtin`, mode: 0o644, content: { bytes: builtin } },
    ...load.map((entry, index) => ({
      _tag: "File" as const,
      path: `${target}/${plain(entry)}`,
      mode: 0o644,
      content: { path: files[index] ?? "" },
    })),
  ] satisfies ReadonlyArray<Entry>
})

const decompressed = Effect.fnUntraced(function* (from: string, to: string) {
  if (!from.endsWith(".xz")) return from
  if (fs.existsSync(to)) return to
  yield* fileOperation("create", path.dirname(to), () => fs.mkdirSync(path.dirname(to), { recursive: true }))
  // The kernel checks the signature that is appended to the module itself, so its bytes must be exactly xz's output.
  const partial = `${to}.${process.pid}.xz`
  yield* fileOperation("copy", partial, () => fs.copyFileSync(from, partial))
  yield* runToolOk({
    component: "kernel",
    doing: `decompressing ${path.basename(from)}`,
    writesTo: path.dirname(to),
    command: "xz",
    args: ["--decompress", "--force", partial],
    env: { PATH: process.env["PATH"] },
  })
  yield* fileOperation("rename", to, () => fs.renameSync(partial.replace(/\.xz$/u, ""), to))
  return to
})
