import { Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { type ComponentError, SourceUnavailable } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { errnoOf, io } from "../Files.ts"

/** One archive that the machine's apt is configured for. */
export interface AptEntry {
  readonly uri: string
  readonly suites: ReadonlyArray<string>
  readonly components: ReadonlyArray<string>
  readonly signedBy: string
}

/** Suites of Debian's own archive; with `-updates` and the like, and never `-security`. */
const SUITE =
  /^(buster|bullseye|bookworm|trixie|forky|duke|sid|stable|oldstable|oldoldstable|testing|unstable)(-updates|-backports|-proposed-updates)?$/u

/** The entries of a one-line-style file (sources.list(5)). Source-only and commented lines are none. */
export const parseOneLine = (text: string): ReadonlyArray<AptEntry> =>
  text.split("\n").flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)/u.exec(line)
    if (match === null) return []
    const [, options = "", uri = "", suite = "", components = ""] = match
    const signedBy = /(?:^|\s)signed-by=(\S+)/iu.exec(options)?.[1] ?? ""
    return [{ uri, suites: [suite], components: components.split(/\s+/u).filter(Boolean), signedBy }]
  })

/** The entries of a deb822-style file (sources.list(5)). Stanzas with `Enabled: no` or without `deb` are none. */
export const parseDeb822 = (text: string): ReadonlyArray<AptEntry> =>
  text.split(/\n\s*\n/u).flatMap((stanza) => {
    const fields = new Map<string, string>()
    let last = ""
    for (const line of stanza.split("\n")) {
      if (line.startsWith("#")) continue
      const match = /^([\w-]+):\s*(.*)$/u.exec(line)
      if (match !== null) {
        last = match[1]!.toLowerCase()
        fields.set(last, match[2]!)
      } else if (/^\s/u.test(line) && last !== "") {
        fields.set(last, `${fields.get(last) ?? ""} ${line.trim()}`)
      }
    }
    const words = (name: string) => (fields.get(name) ?? "").split(/\s+/u).filter(Boolean)
    const enabled = (fields.get("enabled") ?? "yes").trim().toLowerCase()
    if (["no", "false", "0", "off", "without", "disable"].includes(enabled)) return []
    if (!words("types").includes("deb")) return []
    return words("uris").map((uri) => ({
      uri,
      suites: words("suites"),
      components: words("components"),
      signedBy: words("signed-by").join(" "),
    }))
  })

/**
 * The archive of Debian among a machine's apt sources. Other vendors use
 * Debian's suite names too: what is signed by Debian's keyring comes first,
 * then what ends in `/debian`.
 */
export const chooseMirror = (entries: ReadonlyArray<AptEntry>): string | undefined => {
  const rank = (entry: AptEntry): number =>
    /debian-archive|\/debian-.*-(stable|automatic)\./u.test(entry.signedBy)
      ? 0
      : /\/debian\/?$/u.test(entry.uri) || /^mirror\+file:.*\/debian\.list$/u.test(entry.uri)
        ? 1
        : 2
  const candidates = entries
    .filter((entry) => /^(https?|ftp|file|mirror(\+\w+)?|copy|tor(\+\w+)?):/u.test(entry.uri))
    .filter((entry) => entry.components.includes("main") && !/debian-security|snapshot/u.test(entry.uri))
    .filter((entry) => entry.suites.some((suite) => SUITE.test(suite)))
    .map((entry, index) => ({ entry, index, rank: rank(entry) }))
    // Without a sign that it is Debian's, an archive is not taken for it.
    .filter((candidate) => candidate.rank < 2)
    .sort((a, b) => a.rank - b.rank || a.index - b.index)
  return candidates[0]?.entry.uri
}

/** The entries of one file; none when it does not exist. */
const readEntries = async (file: string) => {
  try {
    const text = await fsp.readFile(file, "utf8")
    return file.endsWith(".sources") ? parseDeb822(text) : parseOneLine(text)
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return []
    throw cause
  }
}

/**
 * The URI of the Debian archive that this machine uses: `KIOS_DEBIAN_MIRROR`,
 * else from `/etc/apt/sources.list` and `/etc/apt/sources.list.d`.
 *
 * @param etcApt Directory of apt's configuration.
 */
export const debianMirror = (etcApt = "/etc/apt"): Effect.Effect<string, ComponentError> =>
  Effect.gen(function* () {
    const given = (yield* Environment)["KIOS_DEBIAN_MIRROR"]
    if (given) return given
    const entries = yield* io("reading apt's sources", etcApt, async () => {
      const parts = path.join(etcApt, "sources.list.d")
      const names = await fsp.readdir(parts).catch(() => [])
      const files = [
        path.join(etcApt, "sources.list"),
        ...names
          .filter((name) => /\.(list|sources)$/u.test(name))
          .sort()
          .map((name) => path.join(parts, name)),
      ]
      return (await Promise.all(files.map(readEntries))).flat()
    })
    const mirror = chooseMirror(entries)
    if (mirror !== undefined) return mirror
    return yield* new SourceUnavailable({
      source: "Debian",
      reason: `no Debian archive is among this machine's apt sources (${etcApt}). Set KIOS_DEBIAN_MIRROR to the URI of one`,
      offline: false,
    })
  })
