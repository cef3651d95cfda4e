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
  /** Made when a text begins with `literal`, which few do. */
  matcher?: (text: string) => boolean
}

const ALIAS = "alias "
const PCI = "pci:v"
const PCI_VENDOR = "pci:v00008086".length
const wildcards = /[*?[]/u
const notOfName = /[^A-Za-z0-9]/gu

/**
 * What aliases are sorted by: the bus, and PCI devices, of which there are thousands, by their vendor.
 * The pattern begins at `from`.
 */
const keyOf = (text: string, from = 0): string => {
  if (text.startsWith(PCI, from)) {
    const vendor = text.slice(from, from + PCI_VENDOR)
    if (vendor.length === PCI_VENDOR && !wildcards.test(vendor)) return vendor
  }
  notOfName.lastIndex = from
  return text.slice(from, notOfName.exec(text)?.index ?? text.length)
}

// Aliases and names are compared as modprobe does: a dash is an underscore, but in a set.
const normal = (text: string): string =>
  text.includes("-") ? text.replaceAll(/\[[^\]]*\]|-/gu, (found) => (found === "-" ? "_" : found)) : text

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
export const matches = (pattern: string, text: string): boolean => matcherOf(pattern)(text)

const matcherOf = (pattern: string): ((text: string) => boolean) => {
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
    const expression = new RegExp(`^${source}$`)
    return (text) => expression.test(text)
  } catch {
    // A set such as [z-a]: it matches nothing.
    return () => false
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
  // A machine has devices of a few vendors: the lines of the others are only sorted, and not read.
  const lines = new Map<string, Array<string>>()
  for (const line of text.split("\n")) {
    if (!line.startsWith(ALIAS)) continue
    const key = keyOf(line, ALIAS.length)
    const bucket = lines.get(key)
    if (bucket === undefined) lines.set(key, [line])
    else bucket.push(line)
  }
  const buckets = new Map<string, ReadonlyArray<Alias>>()
  const bucketOf = (key: string): ReadonlyArray<Alias> => {
    const known = buckets.get(key)
    if (known !== undefined) return known
    const made = (lines.get(key) ?? []).flatMap(read)
    buckets.set(key, made)
    return made
  }
  return {
    match: (alias) => {
      const wanted = normal(alias)
      const keys = new Set([keyOf(wanted), /^[A-Za-z0-9]*/u.exec(wanted)?.[0] ?? "", ""])
      const found = new Set<string>()
      for (const key of keys)
        for (const one of bucketOf(key)) {
          if (!wanted.startsWith(one.literal)) continue
          const is =
            one.literal === one.pattern
              ? wanted === one.pattern
              : (one.matcher ??= matcherOf(one.pattern))(wanted)
          if (is) found.add(one.module)
        }
      return [...found]
    },
  }
}

const read = (line: string): ReadonlyArray<Alias> => {
  const end = line.lastIndexOf(" ")
  if (end <= ALIAS.length) return []
  const pattern = normal(line.slice(ALIAS.length, end))
  const wildcard = pattern.search(wildcards)
  const literal = wildcard < 0 ? pattern : pattern.slice(0, wildcard)
  return [{ pattern, literal, module: normal(line.slice(end + 1)) }]
}
