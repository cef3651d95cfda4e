/**
 * The words of `kios image`'s command line, and the files that they name.
 */
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import type { DataFile } from "../image/DiskImage.ts"
import { normalisePath } from "../image/internal/Tree.ts"
import { BadInput } from "./BadInput.ts"

const MIB = 2 ** 20

/** Reads `512M`, `2G` or `1T` (powers of 1024, as qemu-img has them) into whole MiB. */
export const parseSize = (text: string): number | undefined => {
  const match = /^(\d{1,9})(M|G|T)(?:iB)?$/u.exec(text)
  if (match === null) return undefined
  const mib = Number(match[1]) * { M: 1, G: 1024, T: MIB }[match[2] as "M" | "G" | "T"]
  return mib > 0 && mib <= 16 * MIB ? mib : undefined
}

/** A file or directory of this machine, and a path on the data partition. */
export interface Placed {
  readonly source: string
  readonly destination: string
}

/** Reads `SOURCE:DESTINATION`; the source may have colons, the destination none. */
export const parsePlaced = (text: string): Placed | undefined => {
  const colon = text.lastIndexOf(":")
  const [source, destination] = [text.slice(0, colon), text.slice(colon + 1)]
  return colon < 1 || destination === "" ? undefined : { source, destination }
}

/** Reads `DIRECTORY` or `DIRECTORY:DESTINATION`. */
export const parseDirectory = (text: string): Placed | undefined =>
  text === "" ? undefined : text.includes(":") ? parsePlaced(text) : { source: text, destination: "/" }

/** Where the node looks for manifests of static pods. */
export const MANIFESTS = "meta/etc/kubernetes/manifests"

/** What of the data partition the node uses: the boot contract's directories, and `/meta/etc` is laid over /etc. */
const used = ["meta/etc", "meta/log", "data/oci", "data/images", "data/pods", "data/cni", "modules"]

/** Whether the node looks at this path of the data partition. */
export const isUsed = (destination: string): boolean => {
  const at = normalisePath(destination) ?? ""
  return used.some((directory) => at === directory || at.startsWith(`${directory}/`))
}

const refused = (file: string, cause: unknown) =>
  new BadInput({
    file,
    reason: `cannot be read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
  })

const attempt = <A>(file: string, run: () => A) =>
  Effect.try({ try: run, catch: (cause) => refused(file, cause) })

const inside = (option: string, { destination }: Placed) => {
  const at = destination === "/" ? "" : normalisePath(destination)
  return at === undefined
    ? Effect.fail(
        new BadInput({
          file: option,
          reason: `"${destination}" is no path on the data partition: it is relative to its root, without ".." or "//"`,
        }),
      )
    : Effect.succeed(at)
}

/** A `--file`: its permission bits come along, its owner and time do not. Fails with {@link BadInput}. */
export const fileOf = Effect.fnUntraced(function* (placed: Placed) {
  const stat = yield* attempt(placed.source, () => fs.statSync(placed.source))
  if (!stat.isFile()) {
    return yield* new BadInput({
      file: placed.source,
      reason: stat.isDirectory() ? "is a directory: use --directory" : "is no regular file",
    })
  }
  yield* attempt(placed.source, () => fs.accessSync(placed.source, fs.constants.R_OK))
  const at = yield* inside("--file", placed)
  // A destination that ends with a slash is a directory, as for cp(1).
  const named = at === "" || placed.destination.endsWith("/") ? path.basename(placed.source) : ""
  return {
    path: path.posix.join(at, named),
    mode: stat.mode & 0o777,
    sourcePath: path.resolve(placed.source),
  } satisfies DataFile
})

/** What is below a `--directory`: files, directories and links as they are. Fails with {@link BadInput}. */
export const filesOf = Effect.fnUntraced(function* (placed: Placed) {
  const root = path.resolve(placed.source)
  const base = yield* inside("--directory", placed)
  const stat = yield* attempt(placed.source, () => fs.statSync(root))
  if (!stat.isDirectory()) {
    return yield* new BadInput({ file: placed.source, reason: "is no directory: use --file" })
  }
  const found: Array<DataFile> = []
  const pending = [""]
  for (let below = pending.pop(); below !== undefined; below = pending.pop()) {
    const directory = path.join(root, below)
    for (const name of (yield* attempt(directory, () => fs.readdirSync(directory))).toSorted()) {
      const relative = path.posix.join(below, name)
      const source = path.join(root, relative)
      const target = path.posix.join(base, relative)
      const entry = yield* attempt(source, () => fs.lstatSync(source))
      const mode = entry.mode & 0o777
      if (entry.isDirectory()) {
        found.push({ path: target, mode, directory: true })
        pending.push(relative)
      } else if (entry.isSymbolicLink()) {
        found.push({ path: target, symlink: yield* attempt(source, () => fs.readlinkSync(source)) })
      } else if (entry.isFile()) {
        yield* attempt(source, () => fs.accessSync(source, fs.constants.R_OK))
        found.push({ path: target, mode, sourcePath: source })
      } else {
        return yield* new BadInput({
          file: source,
          reason: "is no file, directory or symbolic link; leave it out",
        })
      }
    }
  }
  return found
})
