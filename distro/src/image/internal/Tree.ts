/**
 * The tree rules that the cpio and the tar writer share: one spelling of each
 * path, parents first, missing parents made, no name twice, nothing below
 * something that is not a directory.
 */

export interface TreeEntry {
  readonly _tag: string
  readonly path: string
}

export type TreeProblem = "InvalidPath" | "DuplicatePath" | "ParentNotDirectory"

/**
 * `a/b`, `/a/b`, `./a/b` and `a/b/` are one path, spelt `a/b`. `undefined` for
 * what is no path inside an archive: "", "/", "..", a NUL or an empty segment.
 */
export const normalisePath = (path: string): string | undefined => {
  const trimmed = path.replace(/^(\.?\/)+/u, "").replace(/\/$/u, "")
  if (trimmed === "" || trimmed.includes("\0")) return undefined
  const segments = trimmed.split("/")
  return segments.some((s) => s === "" || s === "." || s === "..") ? undefined : trimmed
}

/**
 * Sorted by the bytes of the path, which puts every directory before what is
 * in it. `fail` throws.
 */
export const arrange = <E extends TreeEntry>(
  entries: Iterable<E>,
  makeDirectory: (path: string) => E,
  fail: (reason: TreeProblem, path: string, detail: string) => never,
): Array<E> => {
  const tree = new Map<string, E>()
  for (const entry of entries) {
    const path =
      normalisePath(entry.path) ??
      fail("InvalidPath", entry.path, "not a path inside an archive (empty, with .., // or a NUL byte)")
    if (tree.has(path)) fail("DuplicatePath", path, "is listed twice; remove one of the entries")
    tree.set(path, { ...entry, path })
  }
  // Parents that are added here are visited too: a Map's iterator sees them.
  for (const path of tree.keys()) {
    for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
      const parent = path.slice(0, slash)
      const found = tree.get(parent)
      if (found === undefined) tree.set(parent, makeDirectory(parent))
      else if (found._tag !== "Directory") {
        fail("ParentNotDirectory", path, `its parent ${parent} is a ${found._tag}, not a Directory`)
      }
    }
  }
  return [...tree.values()]
    .map((entry) => ({ entry, key: Buffer.from(entry.path) }))
    .sort((a, b) => Buffer.compare(a.key, b.key))
    .map(({ entry }) => entry)
}
