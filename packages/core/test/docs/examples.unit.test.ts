/**
 * What the doc comments of the packages say: every public export is described
 * and has an example, every example type-checks, and those of the libraries
 * run. Each failure names the line of the comment.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { type Module, modulesOf, packageDirectories } from "../../../../scripts/DocComments.ts"

const root = fileURLToPath(new URL("../../../../", import.meta.url))
// Not below node_modules: Node.js runs no TypeScript there.
const directory = path.join(root, ".cache", `examples-${process.pid}`)

interface Snippet {
  /** `packages/core/src/Stage.ts:76` */
  readonly where: string
  readonly source: string
  readonly line: number
  readonly code: string
  readonly file: string
  /** Whether it is run, too. */
  readonly runs: boolean
}

const packages = packageDirectories(root).map((one) => ({ directory: one, ...modulesOf(one) }))

const snippets: ReadonlyArray<Snippet> = packages.flatMap((one) => {
  const library = one.directory.includes(`${path.sep}packages${path.sep}`)
  // Of the distro, what others may import; its examples build images and boot machines.
  const modules: ReadonlyArray<Module> = one.public
  return modules.flatMap((module) =>
    module.examples.map(({ code, line }) => {
      const source = path.relative(root, module.file)
      return {
        where: `${source}:${line}`,
        source,
        line,
        code,
        file: path.join(directory, `${source.replaceAll(/[/\\]/gu, "-").replace(/\.ts$/u, "")}-${line}.ts`),
        runs: library,
      }
    }),
  )
})

/** Errors of the compiler by snippet, with the lines of the comments. */
const typeErrors = new Map<string, Array<string>>()
/** What snippets threw. */
const thrown = new Map<string, string>()

const typeCheck = () => {
  const config = path.join(directory, "tsconfig.json")
  fs.writeFileSync(
    config,
    JSON.stringify({
      extends: path.join(root, "tsconfig.base.json"),
      compilerOptions: {
        composite: false,
        declaration: false,
        declarationMap: false,
        sourceMap: false,
        noEmit: true,
        // Examples end with what they made.
        noUnusedLocals: false,
        noUnusedParameters: false,
        rewriteRelativeImportExtensions: false,
        typeRoots: [path.join(root, "node_modules/@types")],
      },
      files: snippets.map((snippet) => snippet.file),
    }),
  )
  const tsc = spawnSync(
    path.join(root, "node_modules/.bin/tsc"),
    ["--project", config, "--pretty", "false"],
    {
      cwd: directory,
      encoding: "utf8",
    },
  )
  if (tsc.error !== undefined) throw tsc.error
  let of: Snippet | undefined
  for (const line of tsc.stdout.split("\n")) {
    const at = /^([^\s(][^(]*)\((\d+),\d+\): (.*)$/u.exec(line)
    if (at !== null) {
      const file = path.resolve(directory, at[1] ?? "")
      of = snippets.find((snippet) => snippet.file === file)
      // An error in a source is for the check of types to tell.
      if (of === undefined) continue
      const errors = typeErrors.get(of.where) ?? []
      typeErrors.set(of.where, errors)
      errors.push(`${of.source}:${of.line + Number(at[2]) - 1}: ${at[3]}`)
    } else if (of !== undefined && line.startsWith(" ")) typeErrors.get(of.where)?.push(line)
    else if (line.startsWith("error ")) throw new Error(line)
  }
}

const execute = () => {
  const run = snippets.filter((snippet) => snippet.runs)
  const node = spawnSync(
    process.execPath,
    ["--no-warnings", "--conditions=@kios/source", fileURLToPath(new URL("runner.mjs", import.meta.url))],
    {
      cwd: directory,
      input: run.map((snippet) => `${snippet.file}\n`).join(""),
      encoding: "utf8",
      timeout: 60_000,
    },
  )
  const answers = node.stdout.split("\n")
  for (const [index, { where }] of run.entries()) {
    const answer = answers[index] ?? ""
    if (answer === "ok") continue
    const why =
      answer === "" ? `it ended the process or did not end: ${node.stderr}` : (JSON.parse(answer) as string)
    thrown.set(where, why)
  }
}

beforeAll(() => {
  fs.rmSync(directory, { recursive: true, force: true })
  fs.mkdirSync(directory, { recursive: true })
  try {
    for (const { code, file } of snippets) fs.writeFileSync(file, `${code}\nexport {}\n`)
    typeCheck()
    execute()
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}, 120_000)

describe("examples in doc comments", () => {
  for (const { runs, where } of snippets)
    it(`${where} type-checks${runs ? " and runs" : ""}`, () => {
      assert.deepStrictEqual(typeErrors.get(where) ?? [], [])
      assert.isUndefined(thrown.get(where), `${where}: ${thrown.get(where)}`)
    })
})

describe("public exports", () => {
  const needsExample = new Set(["const", "function", "class"])
  for (const one of packages)
    for (const module of one.public)
      it(`${module.specifier} is documented`, () => {
        const source = path.relative(root, module.file)
        const flaws = module.exports.flatMap(({ doc, kind, line, name }) => {
          const where = `${source}:${line}: ${kind} ${name}`
          if (doc === undefined || doc.description === "") return [`${where} has no description`]
          return needsExample.has(kind) && doc.examples.length === 0
            ? [`${where} has no @example with a \`\`\`ts block`]
            : []
        })
        assert.deepStrictEqual(flaws, [])
      })
})
