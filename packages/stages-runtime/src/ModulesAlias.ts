/**
 * modules.alias: which modules drive a device, or answer to another name.
 *
 * The kernel gives every device a modalias (`/sys/bus/BUS/devices/DEVICE/modalias`),
 * drivers carry patterns that match those of the devices that they drive, and
 * depmod(8) collects the patterns. They are matched as fnmatch(3) does.
 */

/** The aliases of a directory of modules. */
export interface AliasTable {
  /** Names of the modules that answer to a device's modalias or to another name, in the file's order. */
  readonly match: (alias: string) => ReadonlyArray<string>
}

interface Alias {
  readonly pattern: string
  /** What stands before its first wildcard. */
  readonly literal: string
  readonly module: string
}

const PCI_VENDOR = "pci:v00008086".length

/** What aliases are sorted by: the bus, and PCI devices, of which there are thousands, by their vendor. */
const keyOf = (literal: string): string =>
  literal.startsWith("pci:v") && literal.length >= PCI_VENDOR
    ? literal.slice(0, PCI_VENDOR)
    : (/^[A-Za-z0-9]*/u.exec(literal)?.[0] ?? "")

// Aliases and names are compared as modprobe does: a dash is an underscore.
const normal = (text: string): string => text.replaceAll("-", "_")

/**
 * Whether a pattern of fnmatch(3) (`*`, `?`, `[abc]`, `[!abc]`) matches all of a text.
 *
 * @example
 * ```ts
 * import * as ModulesAlias from "@kios/stages-runtime/ModulesAlias"
 *
 * ModulesAlias.matches("virtio:d00000002v*", "virtio:d00000002v00001AF4") // true
 * ```
 */
export const matches = (pattern: string, text: string): boolean => {
  let source = ""
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern.charAt(at)
    const end = character === "[" ? pattern.indexOf("]", at + 2) : -1
    if (end > 0) {
      const set = pattern.slice(at + 1, end).replaceAll(/[\\\]^]/gu, String.raw`\$&`)
      source += set.startsWith("!") ? `[^${set.slice(1)}]` : `[${set}]`
      at = end
    } else if (character === "*") source += "[^]*"
    else if (character === "?") source += "[^]"
    else source += character.replace(/[\\^$.|+()[\]{}/-]/u, String.raw`\$&`)
  }
  try {
    return new RegExp(`^${source}$`).test(text)
  } catch {
    // A set such as [z-a]: it matches nothing.
    return false
  }
}

/**
 * Reads a modules.alias file; lines that are not of its form are passed over.
 *
 * @example
 * ```ts
 * import * as ModulesAlias from "@kios/stages-runtime/ModulesAlias"
 *
 * const table = ModulesAlias.parse("alias scsi:t-0x00* sd_mod\nalias fs-overlay overlay\n")
 * table.match("scsi:t-0x00") // ["sd_mod"]
 * ```
 */
export const parse = (text: string): AliasTable => {
  const buckets = new Map<string, Array<Alias>>()
  for (const line of text.split("\n")) {
    if (!line.startsWith("alias ")) continue
    const end = line.lastIndexOf(" ")
    const pattern = normal(line.slice(6, end))
    if (pattern === "" || end < 7) continue
    const wildcard = pattern.search(/[*?[]/u)
    const literal = wildcard < 0 ? pattern : pattern.slice(0, wildcard)
    const key = keyOf(literal)
    const alias = { pattern, literal, module: normal(line.slice(end + 1)) }
    const bucket = buckets.get(key)
    if (bucket === undefined) buckets.set(key, [alias])
    else bucket.push(alias)
  }
  return {
    match: (alias) => {
      const wanted = normal(alias)
      const keys = new Set([keyOf(wanted), /^[A-Za-z0-9]*/u.exec(wanted)?.[0] ?? "", ""])
      const found = new Set<string>()
      for (const key of keys)
        for (const { literal, module, pattern } of buckets.get(key) ?? [])
          if (
            wanted.startsWith(literal) &&
            (literal === pattern ? wanted === pattern : matches(pattern, wanted))
          )
            found.add(module)
      return [...found]
    },
  }
}
