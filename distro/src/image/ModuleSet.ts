/**
 * Which kernel modules are in the image: those that are asked for and all that
 * they need, with the index files of just them.
 *
 * Debian's package has no index (depmod(8) makes it when the package is
 * installed) and compresses every module. What every boot loads is stored as
 * it is: it loads faster, and the image as a whole is compressed anyway.
 */
import * as ModprobeConfig from "@kios/stages-runtime/ModprobeConfig"
import type { Softdep } from "@kios/stages-runtime/ModprobeConfig"
import * as ModulesAlias from "@kios/stages-runtime/ModulesAlias"
import type { AliasTable } from "@kios/stages-runtime/ModulesAlias"
import { order, parse, type ModuleEntry } from "@kios/stages-runtime/ModulesDep"
import { Data, Effect } from "effect"
import { createHash } from "node:crypto"
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
  /** Stored as they are when decompressed. */
  readonly modules: ReadonlyArray<string>
  /** Stored as the kernel's package has them, unless one of `modules` needs them. */
  readonly compressed?: ReadonlyArray<string>
  /** Where decompressed modules are kept between builds; must exist. */
  readonly work: string
}

const depmod = (options: ModuleSetOptions, args: ReadonlyArray<string>) =>
  runToolOk({
    component: "kernel",
    doing: "reading the dependencies of kernel modules",
    writesTo: options.work,
    command: "depmod",
    args: [...args, options.release],
    env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`, LANG: "C.UTF-8" },
    capture: true,
  })

/** Dependencies, softdeps and aliases of a whole kernel. */
interface Index {
  readonly table: ReadonlyMap<string, ModuleEntry>
  readonly softdeps: ReadonlyMap<string, Softdep>
  readonly aliases: AliasTable
}

// depmod takes seconds over a whole kernel, so its answer is kept beside the modules.
const indexOf = Effect.fnUntraced(function* (options: ModuleSetOptions) {
  const file = path.join(options.work, "depmod.txt")
  if (!fs.existsSync(file)) {
    // A dry run prints the files that it would write, one after the other.
    const { stdout } = yield* depmod(options, ["--dry-run", "--basedir", options.root])
    const partial = `${file}.${process.pid}`
    yield* fileOperation("write", file, () => {
      fs.writeFileSync(partial, stdout)
      fs.renameSync(partial, file)
    })
  }
  const text = yield* fileOperation("read", file, () => fs.readFileSync(file, "utf8"))
  const lines = text.split("\n")
  return {
    table: parse(lines.filter((line) => /^\S+\.ko(\.\w+)?:/u.test(line)).join("\n")),
    softdeps: ModprobeConfig.parseSoftdeps(lines.filter((line) => line.startsWith("softdep ")).join("\n")),
    // Only names, which softdeps go by: devices have colons.
    aliases: ModulesAlias.parse(lines.filter((line) => /^alias [^:]+ /u.test(line)).join("\n")),
  } satisfies Index
})

/** The modules of a list with all that they need, and what they wish for where the kernel has it. */
const closure = (index: Index, wanted: ReadonlyArray<string>): ReturnType<typeof order> => {
  const names = new Set(wanted.map((name) => name.replaceAll("-", "_")))
  for (;;) {
    const found = order(index.table, [...names])
    const before = names.size
    for (const { name } of found.load) {
      const { post = [], pre = [] } = index.softdeps.get(name) ?? {}
      for (const wish of [...pre, ...post])
        for (const one of index.table.has(wish) ? [wish] : index.aliases.match(wish))
          if (index.table.has(one)) names.add(one)
    }
    if (names.size === before) return found
  }
}

/**
 * The image's entries below /lib/modules: the modules, and the index files of
 * depmod(8) over just these, binary ones too: a privileged pod's own modprobe
 * finds its way in them.
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
  const builtin = yield* fileOperation("read", base, () =>
    fs.readFileSync(path.join(base, "modules.builtin"), "utf8"),
  )
  const builtinNames = new Set(parse(builtin.replaceAll("\n", ":\n")).keys())
  const index = yield* indexOf(options)
  const plain = new Set(closure(index, options.modules).load.map(({ name }) => name))
  const { load, unknown } = closure(index, [...options.modules, ...(options.compressed ?? [])])
  for (const { name, neededBy } of unknown) {
    if (!builtinNames.has(name))
      return yield* new ModuleMissing({ module: name, neededBy, release: options.release })
  }
  const stored = (entry: ModuleEntry) =>
    plain.has(entry.name) ? entry.path.replace(/\.xz$/u, "") : entry.path
  const files = yield* Effect.forEach(
    load,
    (entry) => {
      const from = path.join(base, entry.path)
      return plain.has(entry.name)
        ? decompressed(from, path.join(options.work, stored(entry)))
        : Effect.succeed(from)
    },
    { concurrency: 2 },
  )
  const contents = load.map((entry, at) => ({ path: stored(entry), file: files[at] ?? "" }))
  const tree = yield* indexed(options, base, contents)
  return tree.map((name): Entry => ({
    _tag: "File",
    path: `/lib/modules/${options.release}/${name.path}`,
    mode: 0o644,
    content: { path: name.file },
  }))
})

interface Content {
  /** Relative to /lib/modules/RELEASE. */
  readonly path: string
  readonly file: string
}

// What the kernel's package says of all of its modules, and depmod reads.
const given = ["modules.builtin", "modules.builtin.modinfo", "modules.order"]

// What only depmod reads, and symbols: by them modprobe finds what nobody asks for.
const unneeded = new Set(["modules.builtin.modinfo", "modules.order", "modules.symbols"])

/** Adds depmod's files to the modules. They are made once for each list of modules. */
const indexed = Effect.fnUntraced(function* (
  options: ModuleSetOptions,
  base: string,
  modules: ReadonlyArray<Content>,
) {
  const list = modules.map((module) => module.path).join("\n")
  const directory = path.join(
    options.work,
    "trees",
    createHash("sha256").update(list).digest("hex").slice(0, 16),
  )
  const inside = path.join("lib/modules", options.release)
  if (!fs.existsSync(directory)) {
    const partial = `${directory}.${process.pid}`
    yield* fileOperation("copy", partial, () => {
      fs.rmSync(partial, { recursive: true, force: true })
      const all = [...modules, ...given.map((name) => ({ path: name, file: path.join(base, name) }))]
      for (const module of all) {
        const to = path.join(partial, inside, module.path)
        fs.mkdirSync(path.dirname(to), { recursive: true })
        fs.copyFileSync(module.file, to)
      }
    })
    yield* depmod(options, ["--basedir", partial])
    yield* fileOperation("rename", directory, () => {
      // What is not needed again: the modules are where they were.
      fs.rmSync(path.join(partial, inside, "kernel"), { recursive: true, force: true })
      try {
        fs.renameSync(partial, directory)
      } catch (cause) {
        // Another build was faster.
        if (!fs.existsSync(directory)) throw cause
        fs.rmSync(partial, { recursive: true, force: true })
      }
    })
  }
  const names = yield* fileOperation("read", directory, () => fs.readdirSync(path.join(directory, inside)))
  return [
    ...names
      .filter((name) => !unneeded.has(name))
      .sort()
      .map((name) => ({ path: name, file: path.join(directory, inside, name) })),
    ...modules,
  ] satisfies ReadonlyArray<Content>
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
