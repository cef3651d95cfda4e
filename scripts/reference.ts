/**
 * The API reference: a page for each public module, made from its doc comments
 * and from the declarations that the compiler derives.
 * `npm run docs` writes it; a test fails when it is out of date.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { type DocComment, type Export, type Module, modulesOf, packageDirectories } from "./DocComments.ts"

const root = fileURLToPath(new URL("../", import.meta.url))
const pages = path.join(root, "docs/reference")

/** Longer signatures (a whole pipeline's type, say) are cut: nobody reads them. */
const LONGEST_SIGNATURE = 2500

/** Has the compiler write the declarations of all packages into a directory, in the repository's layout. */
const emitDeclarations = (directory: string): void => {
  const config = path.join(directory, "tsconfig.json")
  fs.writeFileSync(
    config,
    JSON.stringify({
      extends: path.join(root, "tsconfig.base.json"),
      compilerOptions: {
        composite: false,
        declarationMap: false,
        sourceMap: false,
        emitDeclarationOnly: true,
        rootDir: root,
        outDir: path.join(directory, "out"),
        typeRoots: [path.join(root, "node_modules/@types")],
      },
      include: packageDirectories(root).map((one) => path.join(one, "src/**/*.ts")),
    }),
  )
  const tsc = spawnSync(
    path.join(root, "node_modules/.bin/tsc"),
    ["--project", config, "--pretty", "false"],
    {
      cwd: root,
      encoding: "utf8",
    },
  )
  if (tsc.error !== undefined) throw tsc.error
  if (tsc.status !== 0) throw new Error(`the packages do not type-check:\n${tsc.stdout.slice(0, 4000)}`)
}

/** Top-level statements of a declaration file, without the comments above them. */
const statements = (text: string): ReadonlyArray<string> => {
  const found: Array<Array<string>> = []
  let comment = false
  for (const line of text.split("\n")) {
    if (line.startsWith("/**")) comment = true
    if (comment) {
      if (line.trimEnd().endsWith("*/")) comment = false
      continue
    }
    if (/^(?:export|declare|import|type|interface|const|class|function)\b/u.test(line)) found.push([line])
    else if (!line.startsWith("//")) found.at(-1)?.push(line)
  }
  return found.map((lines) => lines.join("\n").trimEnd())
}

/** `import("./Kernel.ts").Kernel` is `Kernel` to a reader. */
const plain = (text: string): string =>
  text
    .replaceAll(/import\("[^"]+"\)\./gu, "")
    .replaceAll(/^export declare /gmu, "export ")
    .replaceAll(/^ {4,}/gmu, (indent) => " ".repeat(indent.length / 2))

/** The signature of an export: its declaration, with the base of a service or an error in its place. */
const signatureOf = (all: ReadonlyArray<string>, name: string): string => {
  const word = name.replaceAll("$", String.raw`\$`)
  const own = all.filter((one) =>
    new RegExp(
      String.raw`^export (?:declare )?(?:abstract )?(?:const|function\*?|class|interface|type) ${word}\b(?!\$)`,
      "u",
    ).test(one),
  )
  const base = all.find((one) => one.startsWith(`declare const ${name}_base: `))
  const text = own
    .map((one) =>
      base === undefined
        ? one
        : one.replace(`${name}_base`, () =>
            base.slice(`declare const ${name}_base: `.length).replace(/;$/u, ""),
          ),
    )
    .map(plain)
    .join("\n")
  return text.length <= LONGEST_SIGNATURE ? text : `${text.slice(0, LONGEST_SIGNATURE)} /* ... */`
}

const linked = (text: string): string =>
  text.replaceAll(/\{@link ([^}|]+)(?:\|([^}]+))?\}/gu, (_, target: string, label?: string) => {
    const shown = label ?? target.replace(/^import\("[^"]+"\)\./u, "").replaceAll('"', "")
    return `\`${shown.trim()}\``
  })

const documentation = (doc: DocComment | undefined): string => {
  if (doc === undefined) return ""
  const parts = [linked(doc.description)]
  const parameters = doc.tags.filter((one) => one.tag === "param")
  if (parameters.length > 0)
    parts.push(
      parameters
        .map(({ text }) => {
          const [name = "", ...rest] = text.split(/\s+/u)
          return `- \`${name}\`: ${linked(rest.join(" "))}`
        })
        .join("\n"),
    )
  for (const { tag, text } of doc.tags)
    if (tag === "throws" || tag === "returns" || tag === "deprecated")
      parts.push(`**${tag}** ${linked(text.replaceAll("\n", " "))}`)
  for (const { code } of doc.examples) parts.push(`\`\`\`ts\n${code}\n\`\`\``)
  return parts.filter((part) => part !== "").join("\n\n")
}

/** Where a module's page is, below docs/reference: `core/Stage.md`. */
const pageOf = (module: Module): string => `${module.specifier.replace(/^@kios\//u, "")}.md`

const section = (module: Module, declared: ReadonlyArray<string>, one: Export): string => {
  const source = path.relative(root, module.file)
  const up = "../".repeat(pageOf(module).split("/").length + 1)
  const signature = signatureOf(declared, one.name)
  return [
    `## ${one.name}`,
    `${one.kind} · [${source}](${up}${source})`,
    ...(signature === "" ? [] : [`\`\`\`ts\n${signature}\n\`\`\``]),
    documentation(one.doc),
  ]
    .filter((part) => part !== "")
    .join("\n\n")
}

/** The first sentence of a text. */
const summary = (doc: DocComment | undefined): string =>
  linked(/^[^]*?(?:[.:](?=\s|$)|$)/u.exec(doc?.description ?? "")?.[0] ?? "")
    .replaceAll(/\s+/gu, " ")
    .replaceAll("|", String.raw`\|`)

/** Every page by its path below docs/reference. */
export const makeReference = (): ReadonlyMap<string, string> => {
  fs.mkdirSync(path.join(root, ".cache"), { recursive: true })
  const directory = fs.mkdtempSync(path.join(root, ".cache/reference-"))
  try {
    emitDeclarations(directory)
    const found = new Map<string, string>()
    const index = [
      "# API reference",
      "Made by `npm run docs` from the doc comments; examples are run as tests.",
    ]
    for (const one of packageDirectories(root)) {
      const modules = modulesOf(one).public
      const rows = modules.map(
        (module) =>
          `| [${module.specifier}](${pageOf(module)}) | ${summary(module.doc ?? module.exports[0]?.doc)} |`,
      )
      index.push(
        `## ${modules[0]?.package ?? path.basename(one)}`,
        ["| module | what it is |", "|---|---|", ...rows].join("\n"),
      )
      for (const module of modules) {
        const declarations = (file: string) =>
          statements(
            fs.readFileSync(
              path.join(directory, "out", path.relative(root, file).replace(/\.ts$/u, ".d.ts")),
              "utf8",
            ),
          )
        const own = declarations(module.file)
        // What a module exports of another one is declared there.
        const others = [...fs.readFileSync(module.file, "utf8").matchAll(/^export .*? from "(\.[^"]+)"$/gmu)]
        const declared = [
          ...own,
          ...others.flatMap((match) => declarations(path.resolve(path.dirname(module.file), match[1] ?? ""))),
        ]
        const text = [
          `# ${module.specifier}`,
          documentation(module.doc),
          ...module.exports.map((each) => section(module, declared, each)),
        ]
        found.set(pageOf(module), `${text.filter((part) => part !== "").join("\n\n")}\n`)
      }
    }
    found.set("README.md", `${index.join("\n\n")}\n`)
    return found
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

const onDisk = (): ReadonlyArray<string> =>
  fs.existsSync(pages)
    ? fs
        .readdirSync(pages, { recursive: true, encoding: "utf8" })
        .filter((file) => file.endsWith(".md"))
        .sort()
    : []

/** What of docs/reference is not as it would be made now: missing, stale and superfluous pages. */
export const outOfDate = (made: ReadonlyMap<string, string>): ReadonlyArray<string> => [
  ...[...made]
    .filter(([page, text]) => {
      const file = path.join(pages, page)
      return !fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text
    })
    .map(([page]) => page),
  ...onDisk().filter((page) => !made.has(page)),
]

/** Writes what changed, removes what is superfluous, and returns the pages that it touched. */
export const writeReference = (): ReadonlyArray<string> => {
  const made = makeReference()
  const stale = outOfDate(made)
  for (const page of stale) {
    const text = made.get(page)
    const file = path.join(pages, page)
    if (text === undefined) fs.rmSync(file)
    else {
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, text)
    }
  }
  return stale
}
