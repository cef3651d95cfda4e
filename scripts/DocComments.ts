/**
 * What the doc comments of public modules say: read from the sources as oxfmt
 * leaves them, where an exported declaration begins its line.
 */
import * as fs from "node:fs"
import * as path from "node:path"

/** A ```ts block of a doc comment. */
export interface Example {
  readonly code: string
  /** Line of its first line of code, counted from 1. */
  readonly line: number
}

/** A doc comment. */
export interface DocComment {
  /** Everything before the first tag, without fences' contents taken out. */
  readonly description: string
  /** Tags in order: `["@param policy", "what it is"]` is `{ tag: "param", text: "policy what it is" }`. */
  readonly tags: ReadonlyArray<{ readonly tag: string; readonly text: string }>
  readonly examples: ReadonlyArray<Example>
}

export type Kind = "const" | "function" | "class" | "interface" | "type"

/** One exported declaration. */
export interface Export {
  readonly name: string
  readonly kind: Kind
  /** Line that it begins on, counted from 1. */
  readonly line: number
  readonly doc?: DocComment
}

/** A public module: what its package's exports map lets others import. */
export interface Module {
  /** `@kios/core/Stage` */
  readonly specifier: string
  /** Name of the package. */
  readonly package: string
  /** Absolute path of the source. */
  readonly file: string
  /** Absolute path of the declarations that `tsc --build` makes of it. */
  readonly declarations: string
  /** The comment above the imports. */
  readonly doc?: DocComment
  readonly exports: ReadonlyArray<Export>
  /** Every ```ts block of the file, whatever its comment belongs to. */
  readonly examples: ReadonlyArray<Example>
}

const declaration =
  /^export (?:declare )?(?:abstract )?(const|function\*?|async function\*?|class|interface|type) ([A-Za-z_$][\w$]*)/u

/** Reads the text of a comment whose first line has the number `line`. */
const parseComment = (lines: ReadonlyArray<string>, line: number): DocComment => {
  const text = lines.map((one) =>
    one
      .replace(/^\s*\/\*\* ?/u, "")
      .replace(/ ?\*\/\s*$/u, "")
      .replace(/^\s*\* ?/u, ""),
  )
  const description: Array<string> = []
  const tags: Array<{ tag: string; text: Array<string> }> = []
  const examples: Array<Example> = []
  let fence: { readonly at: number; readonly ts: boolean } | undefined
  for (const [index, one] of text.entries()) {
    const mark = /^\s*```(\w*)/u.exec(one)
    if (mark !== null && fence === undefined) fence = { at: index + 1, ts: mark[1] === "ts" }
    else if (mark !== null && fence !== undefined) {
      if (fence.ts) examples.push({ code: text.slice(fence.at, index).join("\n"), line: line + fence.at })
      fence = undefined
    } else if (fence === undefined) {
      const tag = /^@(\w+)\s*(.*)$/u.exec(one)
      if (tag !== null) {
        tags.push({ tag: tag[1] ?? "", text: [tag[2] ?? ""] })
        continue
      }
    }
    const last = tags.at(-1)
    if (last === undefined) description.push(one)
    else last.text.push(one)
  }
  return {
    description: description.join("\n").trim(),
    tags: tags.map((one) => ({ tag: one.tag, text: one.text.join("\n").trim() })),
    examples,
  }
}

/** Reads a module's text; `read` gives the text of a module that it exports something of. */
export const parseModule = (
  text: string,
  read: (specifier: string) => string,
): Pick<Module, "doc" | "exports" | "examples"> => {
  const lines = text.split("\n")
  const exports: Array<Export> = []
  const examples: Array<Example> = []
  let doc: DocComment | undefined
  let pending: DocComment | undefined
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? ""
    if (/^\s*\/\*\*/u.test(line)) {
      const end = lines.findIndex((one, index) => index >= at && one.includes("*/"))
      const comment = parseComment(lines.slice(at, end + 1), at + 1)
      examples.push(...comment.examples)
      if (line.startsWith("/**")) pending = comment
      at = end
      continue
    }
    if (line.startsWith("//") || line.trim() === "") {
      // A lint directive stands between a comment and what it is about; a blank line ends the module's.
      if (line.trim() === "" && doc === undefined && exports.length === 0) {
        doc = pending
        pending = undefined
      }
      continue
    }
    if (line.startsWith("import ") && doc === undefined && exports.length === 0) {
      doc = pending
      pending = undefined
    } else if (line.startsWith("export ")) {
      const found = declaration.exec(line)
      const all = /^export \* from "(\.[^"]+)"$/u.exec(line)
      if (all !== null) {
        for (const one of parseModule(read(all[1] ?? ""), () => "").exports)
          exports.push({ ...one, line: at + 1 })
        pending = undefined
        continue
      }
      const again = /^export (?:type )?\{ (.+) \}(?: from "(\.[^"]+)")?$/u.exec(line)
      if (again !== null) {
        const [, list = "", from] = again
        const origin = from === undefined ? [] : parseModule(read(from), () => "").exports
        for (const one of list.split(", ")) {
          const name = one.replace(/^type /u, "")
          const kind: Kind =
            /^(?:export )?type /u.test(one) || line.startsWith("export type") ? "type" : "const"
          const declared = origin.find((other) => other.name === name)
          const doc = declared?.doc ?? pending
          exports.push({
            name,
            kind: declared?.kind ?? kind,
            line: at + 1,
            ...(doc === undefined ? {} : { doc }),
          })
        }
        pending = undefined
        continue
      }
      if (found === null)
        throw new Error(`line ${at + 1}: an export that the documentation cannot name: ${line}`)
      const [, kind = "", name = ""] = found
      // An overload or a type and a value of the same name are one export.
      const word = kind.includes("function") ? "function" : kind
      exports.push({
        name,
        kind: word as Kind,
        line: at + 1,
        ...(pending === undefined ? {} : { doc: pending }),
      })
      pending = undefined
    } else if (/^\S/u.test(line)) pending = undefined
  }
  return { ...(doc === undefined ? {} : { doc }), exports, examples }
}

type Target = string | null | Readonly<Record<string, string>>

/** Modules below `directory`, relative and without their extension. */
const sources = (directory: string): ReadonlyArray<string> =>
  fs
    .readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => file.slice(0, -".ts".length))
    .sort()

/** Which key of an exports map a subpath falls under, as Node.js decides it. */
const keyOf = (subpath: string, keys: ReadonlyArray<string>): string | undefined => {
  if (keys.includes(subpath)) return subpath
  return keys
    .filter((key) => {
      const [before = "", after] = key.split("*")
      return after !== undefined && subpath.startsWith(before) && subpath.endsWith(after)
    })
    .sort((a, b) => b.indexOf("*") - a.indexOf("*") || b.length - a.length)[0]
}

/** The modules of a package: `public` are those that its exports map gives to everybody. */
export const modulesOf = (
  directory: string,
): { readonly public: ReadonlyArray<Module>; readonly internal: ReadonlyArray<Module> } => {
  const manifest = JSON.parse(fs.readFileSync(path.join(directory, "package.json"), "utf8")) as {
    readonly name: string
    readonly exports: Readonly<Record<string, Target>>
  }
  const keys = Object.keys(manifest.exports)
  const found = { public: [] as Array<Module>, internal: [] as Array<Module> }
  for (const name of sources(path.join(directory, "src"))) {
    const key = keyOf(`./${name}`, keys)
    const target = key === undefined ? undefined : manifest.exports[key]
    const isPublic = typeof target === "object" && target !== null && "default" in target
    const file = path.join(directory, "src", `${name}.ts`)
    const beside = (other: string) => fs.readFileSync(path.resolve(path.dirname(file), other), "utf8")
    try {
      found[isPublic ? "public" : "internal"].push({
        specifier: `${manifest.name}/${name}`,
        package: manifest.name,
        file,
        declarations: path.join(directory, "dist", `${name}.d.ts`),
        ...parseModule(beside(file), beside),
      })
    } catch (cause) {
      throw new Error(`${file}: ${(cause as Error).message}`, { cause })
    }
  }
  return found
}

/** The repository's packages. */
export const packageDirectories = (root: string): ReadonlyArray<string> => [
  ...["core", "stages-mount", "stages-runtime", "stages-kubelet"].map((name) =>
    path.join(root, "packages", name),
  ),
  path.join(root, "distro"),
]
