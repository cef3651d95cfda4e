import { Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { type DiskFull, FileFailure, FileMissing } from "./ComponentError.ts"
import { io } from "./Files.ts"

/**
 * One thing to take out of a package. `from` is a path in the package, a file
 * or a directory (then everything below it); `to` is its path in the component.
 * A symlink is followed inside the package, so a component has regular files
 * only: `{ from: "usr/lib/libfoo.so.1", to: "lib/libfoo.so.1" }` takes what
 * the link points to.
 */
export interface FileRule {
  readonly from: string
  readonly to: string
}

/** The directory of an unpacked package as its own root: absolute links stay inside, and none leads out of it. */
const resolveInside = async (root: string, file: string): Promise<string> => {
  let at = root
  const todo = file.split("/").filter((part) => part !== "" && part !== ".")
  for (let hops = 0; todo.length > 0;) {
    const part = todo.shift()!
    if (part === "..") {
      at = at === root ? root : path.dirname(at)
      continue
    }
    const next = path.join(at, part)
    const stat = await fsp.lstat(next)
    if (!stat.isSymbolicLink()) {
      at = next
      continue
    }
    if (++hops > 40) throw Object.assign(new Error("ELOOP"), { code: "ELOOP" })
    const target = await fsp.readlink(next)
    if (target.startsWith("/")) at = root
    todo.unshift(...target.split("/").filter((name) => name !== "" && name !== "."))
  }
  return at
}

const copyTree = async (root: string, from: string, to: string): Promise<void> => {
  const source = await resolveInside(root, from)
  const stat = await fsp.stat(source)
  if (!stat.isDirectory()) {
    await fsp.mkdir(path.dirname(to), { recursive: true })
    await fsp.copyFile(source, to)
    await fsp.chmod(to, (stat.mode & 0o111) === 0 ? 0o644 : 0o755)
    return
  }
  const inside = path.relative(root, source)
  for (const name of (await fsp.readdir(source)).sort()) {
    await copyTree(root, path.join(inside, name), path.join(to, name))
  }
}

/**
 * Copy what the rules name from an unpacked package into a component.
 *
 * @param options.root The directory where the package was unpacked.
 * @param options.into The component's directory.
 */
export const selectFiles = (options: {
  readonly component: string
  readonly source: string
  readonly root: string
  readonly into: string
  readonly rules: ReadonlyArray<FileRule>
}): Effect.Effect<void, DiskFull | FileFailure | FileMissing> =>
  Effect.forEach(
    options.rules,
    (rule) =>
      io(`copying ${rule.from} of ${options.component}`, path.join(options.into, rule.to), () =>
        copyTree(options.root, rule.from, path.join(options.into, rule.to)),
      ).pipe(
        Effect.catchIf(
          (error): error is FileFailure => error._tag === "FileFailure" && error.errno === "ENOENT",
          () =>
            Effect.fail(
              new FileMissing({ component: options.component, source: options.source, file: rule.from }),
            ),
        ),
      ),
    { discard: true },
  )
