/**
 * modules.dep(5): which module file a module is in and what it needs.
 */

/** A module's file and those it depends on, as `depmod` wrote them. */
export interface ModuleEntry {
  readonly name: string
  /** Relative to /lib/modules/RELEASE. */
  readonly path: string
  /** Names, directly or indirectly needed. */
  readonly needs: ReadonlyArray<string>
}

/**
 * The name that the kernel knows a module file by: no directory, no suffix, underscores.
 *
 * @example
 * ```ts
 * import * as ModulesDep from "@kios/stages-runtime/ModulesDep"
 *
 * ModulesDep.nameOf("kernel/net/bridge/br-netfilter.ko.xz") // "br_netfilter"
 * ```
 */
export const nameOf = (path: string): string => {
  const base = path.slice(path.lastIndexOf("/") + 1)
  const plain = base.endsWith(".ko") ? base.slice(0, -3) : base.replace(/\.ko\.(xz|zst|gz)$/u, "")
  return plain.includes("-") ? plain.replaceAll("-", "_") : plain
}

/**
 * Reads a modules.dep file; lines that are not of its form are passed over.
 *
 * @example
 * ```ts
 * import * as ModulesDep from "@kios/stages-runtime/ModulesDep"
 *
 * const table = ModulesDep.parse("kernel/net/bridge.ko: kernel/net/llc.ko\n")
 * table.get("bridge")?.needs // ["llc"]
 * ```
 */
export const parse = (text: string): ReadonlyMap<string, ModuleEntry> => {
  const entries = new Map<string, ModuleEntry>()
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":")
    if (colon > 0) {
      const entry = new Line(line, colon)
      entries.set(entry.name, entry)
    }
  }
  return entries
}

/** A line of modules.dep. Of hundreds a boot loads some: what they need is read when it is asked for. */
class Line implements ModuleEntry {
  readonly name: string
  readonly path: string
  readonly #line: string
  #needs: ReadonlyArray<string> | undefined

  constructor(line: string, colon: number) {
    this.path = line.slice(0, colon)
    this.name = nameOf(this.path)
    this.#line = line
  }

  get needs(): ReadonlyArray<string> {
    return (this.#needs ??= this.#line
      .slice(this.path.length + 1)
      .split(/\s+/u)
      .flatMap((need) => (need === "" ? [] : [nameOf(need)])))
  }
}

/**
 * The modules to load for `wanted`, each after what it needs, each once.
 * Names that the table does not have come back in `unknown`, with what needs them.
 *
 * @example
 * ```ts
 * import * as ModulesDep from "@kios/stages-runtime/ModulesDep"
 *
 * const table = ModulesDep.parse("kernel/net/llc.ko:\nkernel/net/bridge.ko: kernel/net/llc.ko\n")
 * ModulesDep.order(table, ["bridge"]).load.map((entry) => entry.name) // ["llc", "bridge"]
 * ```
 */
export const order = (
  table: ReadonlyMap<string, ModuleEntry>,
  wanted: ReadonlyArray<string>,
): {
  readonly load: ReadonlyArray<ModuleEntry>
  readonly unknown: ReadonlyArray<{ readonly name: string; readonly neededBy: string | undefined }>
} => {
  const load = new Map<string, ModuleEntry>()
  const unknown: Array<{ name: string; neededBy: string | undefined }> = []
  const visiting = new Set<string>()
  const visit = (name: string, neededBy: string | undefined) => {
    if (load.has(name) || visiting.has(name)) return
    const entry = table.get(name)
    if (entry === undefined) {
      unknown.push({ name, neededBy })
      return
    }
    visiting.add(name)
    // depmod lists the nearest dependency first, so the farthest goes in first.
    for (const need of entry.needs.toReversed()) visit(need, name)
    visiting.delete(name)
    load.set(name, entry)
  }
  for (const name of wanted) visit(name.replaceAll("-", "_"), undefined)
  return { load: [...load.values()], unknown }
}
