/**
 * modprobe.d(5) and modules-load.d(5): what people say of modules, in files
 * and on the kernel command line.
 */
import { nameOf } from "./ModulesDep.ts"

/** Modules to load before and after another. */
export interface Softdep {
  readonly pre: ReadonlyArray<string>
  readonly post: ReadonlyArray<string>
}

/** What the files and the command line say. Names have underscores. */
export interface ModprobeConfig {
  /** Parameters by module, in order: the last of a name counts. */
  readonly options: ReadonlyMap<string, ReadonlyArray<string>>
  /** Modules that no device loads; by name they can be loaded. */
  readonly blacklist: ReadonlySet<string>
  /** Modules that are never loaded, with what says so. */
  readonly never: ReadonlyMap<string, string>
  /** `alias` lines, in the form of modules.alias. */
  readonly aliases: string
  readonly softdeps: ReadonlyMap<string, Softdep>
  /** Lines that are not followed, with the reason. */
  readonly problems: ReadonlyArray<string>
}

/** One configuration file. */
export interface ConfigFile {
  readonly path: string
  readonly text: string
}

const softdepOf = (words: ReadonlyArray<string>): Softdep => {
  const found = { pre: [] as Array<string>, post: [] as Array<string> }
  let into: Array<string> | undefined
  for (const word of words) {
    if (word === "pre:") into = found.pre
    else if (word === "post:") into = found.post
    else into?.push(word.replaceAll("-", "_"))
  }
  return found
}

/**
 * Reads files of modprobe.d(5) and what the kernel command line says of modules:
 * `MODULE.PARAMETER=VALUE`, `modprobe.blacklist=` and `module_blacklist=`.
 *
 * `options`, `blacklist`, `alias` and `softdep` are followed. `install MODULE
 * /bin/false` (or `/bin/true`) means never; no other `install`, and no `remove`,
 * can be: there is nothing on a node that could run the command.
 *
 * @param files in the order in which they count
 * @param parameters of the command line, as `Cmdline` splits them
 *
 * @example
 * ```ts
 * import * as ModprobeConfig from "@kios/stages-runtime/ModprobeConfig"
 *
 * const config = ModprobeConfig.parse(
 *   [{ path: "/etc/modprobe.d/net.conf", text: "options dummy numdummies=0\nblacklist e1000e\n" }],
 *   [["dummy.numdummies", "2"]],
 * )
 * config.options.get("dummy") // ["numdummies=0", "numdummies=2"]
 * ```
 */
export const parse = (
  files: ReadonlyArray<ConfigFile>,
  parameters: ReadonlyArray<readonly [string, string]> = [],
): ModprobeConfig => {
  const options = new Map<string, Array<string>>()
  const blacklist = new Set<string>()
  const never = new Map<string, string>()
  const softdeps = new Map<string, Softdep>()
  const problems: Array<string> = []
  let aliases = ""
  const option = (name: string, values: ReadonlyArray<string>) =>
    options.set(name, [...(options.get(name) ?? []), ...values])
  for (const { path, text } of files) {
    for (const line of text.replaceAll("\\\n", " ").split("\n")) {
      const [keyword = "", module = "", ...rest] = line.trim().split(/\s+/u)
      if (keyword === "" || keyword.startsWith("#")) continue
      const name = module.replaceAll("-", "_")
      const problem = (reason: string) => problems.push(`${path}: ${JSON.stringify(line.trim())}: ${reason}`)
      if (name === "") problem("it names no module")
      else if (keyword === "options") option(name, rest)
      else if (keyword === "blacklist") blacklist.add(name)
      else if (keyword === "softdep") softdeps.set(name, softdepOf(rest))
      else if (keyword === "alias" && rest[0] !== undefined) aliases += `alias ${module} ${rest[0]}\n`
      else if (keyword === "install" && /^(\/usr)?\/bin\/(false|true)$/u.test(rest.join(" ")))
        never.set(name, path)
      else
        problem(
          keyword === "install" || keyword === "remove"
            ? "no command can be run on this node"
            : "options, blacklist, alias, softdep and install /bin/false are known",
        )
    }
  }
  for (const [key, value] of parameters) {
    if (key === "modprobe.blacklist") for (const name of value.split(",")) blacklist.add(nameOf(name))
    // The kernel itself refuses these, with EPERM; asking it would only look like a fault.
    else if (key === "module_blacklist") for (const name of value.split(",")) never.set(nameOf(name), key)
    else {
      const dot = key.indexOf(".")
      if (dot > 0)
        option(key.slice(0, dot).replaceAll("-", "_"), [
          `${key.slice(dot + 1)}${value === "" ? "" : `=${/\s/u.test(value) ? `"${value}"` : value}`}`,
        ])
    }
  }
  return { options, blacklist, never, aliases, softdeps, problems }
}

/**
 * The names in a file of modules-load.d(5): one a line, `#` and `;` begin comments.
 *
 * @example
 * ```ts
 * import * as ModprobeConfig from "@kios/stages-runtime/ModprobeConfig"
 *
 * ModprobeConfig.parseLoadList("# Calico\nipip\nwireguard\n") // ["ipip", "wireguard"]
 * ```
 */
export const parseLoadList = (text: string): ReadonlyArray<string> =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !/^[#;]/u.test(line))

/**
 * The lines of modules.softdep, as depmod(8) writes it.
 *
 * @example
 * ```ts
 * import * as ModprobeConfig from "@kios/stages-runtime/ModprobeConfig"
 *
 * ModprobeConfig.parseSoftdeps("softdep ext4 pre: crc32c\n").get("ext4")?.pre // ["crc32c"]
 * ```
 */
export const parseSoftdeps = (text: string): ReadonlyMap<string, Softdep> =>
  parse([{ path: "modules.softdep", text }]).softdeps
