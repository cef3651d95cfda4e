/**
 * What pipelines cost the compiler: the time that `tsc` takes for a module with
 * a pipeline of 0, 30 and 100 stages, each of which provides a service and
 * needs two earlier ones.
 *
 *   node --conditions=@kios/source bench/tsc-stages.ts [--json]
 *
 * Fails when 100 stages add more than 3 seconds to none. Each time is the
 * smallest of five runs: what else the machine does only adds.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../", import.meta.url))
const COUNTS = [0, 30, 100] as const
const RUNS = 5
export const MOST_SECONDS = 3

/** A module with a pipeline of that many stages, and the four ways to change it when there is one. */
export const moduleOf = (count: number): string => {
  const indexes = Array.from({ length: count }, (_, index) => index)
  const needs = (index: number) =>
    [...new Set([index - 1, Math.floor(index / 2)])].filter((at) => at >= 0 && at < index)
  return [
    'import * as Pipeline from "@kios/core/Pipeline"',
    'import * as Stage from "@kios/core/Stage"',
    'import * as Context from "effect/Context"',
    'import * as Layer from "effect/Layer"',
    ...indexes.flatMap((index) => [
      `export class S${index} extends Context.Service<S${index}, { readonly value: ${index} }>()("bench/S${index}") {}`,
      `export const s${index} = Stage.make({ name: "s${index}", description: "stage ${index}",`,
      `  requires: [${needs(index).map((at) => `S${at}`)}], provides: [S${index}],`,
      `  layer: Layer.succeed(S${index}, { value: ${index} }) })`,
    ]),
    `export const pipeline = Pipeline.make([${indexes.map((index) => `s${index}`)}])`,
    'const last = Stage.make({ name: "last", description: "be last", layer: Layer.empty })',
    "export const appended = Pipeline.append(pipeline, last)",
    ...(count === 0
      ? []
      : [
          `export const changed = Pipeline.insertAfter(Pipeline.replace(appended, "last", last), "s${count - 1}",`,
          '  Stage.make({ name: "more", description: "be more", layer: Layer.empty }))',
          'export const less = Pipeline.without(changed, "more")',
        ]),
    "",
  ].join("\n")
}

/** Runs `tsc --noEmit` on a project; gives its seconds. */
const compile = (project: string): number => {
  const started = process.hrtime.bigint()
  const tsc = spawnSync(path.join(root, "node_modules/.bin/tsc"), ["--project", project], {
    encoding: "utf8",
  })
  if (tsc.error !== undefined) throw tsc.error
  if (tsc.status !== 0) throw new Error(`${path.basename(project)} does not compile:\n${tsc.stdout}`)
  return Number(process.hrtime.bigint() - started) / 1e9
}

const projectFor = (stages: number, directory: string): string => {
  const file = path.join(directory, `stages-${stages}.ts`)
  const project = path.join(directory, `tsconfig-${stages}.json`)
  fs.writeFileSync(file, moduleOf(stages))
  fs.writeFileSync(
    project,
    JSON.stringify({
      extends: path.join(root, "tsconfig.base.json"),
      compilerOptions: {
        composite: false,
        declaration: false,
        declarationMap: false,
        sourceMap: false,
        noEmit: true,
        noUnusedLocals: false,
        typeRoots: [path.join(root, "node_modules/@types")],
      },
      files: [file],
    }),
  )
  return project
}

/** Seconds by number of stages: the smallest of `runs`, in turns, after one that fills the machine's caches. */
export const measure = (
  counts: ReadonlyArray<number> = COUNTS,
  runs: number = RUNS,
): ReadonlyArray<{ readonly stages: number; readonly seconds: number }> => {
  // In the repository, so that @kios/core and effect are found.
  const cache = path.join(root, ".cache")
  fs.mkdirSync(cache, { recursive: true })
  const directory = fs.mkdtempSync(path.join(cache, "tsc-stages-"))
  try {
    const projects = counts.map((stages) => ({ stages, project: projectFor(stages, directory) }))
    for (const { project } of projects) compile(project)
    const times = Array.from({ length: runs }, () => projects.map(({ project }) => compile(project)))
    return projects.map(({ stages }, index) => ({
      stages,
      seconds: Math.min(...times.map((row) => row[index] ?? Number.POSITIVE_INFINITY)),
    }))
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** Seconds that the last count adds to the first. */
export const addedBy = (measured: ReturnType<typeof measure>): number =>
  (measured.at(-1)?.seconds ?? 0) - (measured[0]?.seconds ?? 0)

if (import.meta.main) {
  const measured = measure()
  const none = measured[0]?.seconds ?? 0
  const added = addedBy(measured)
  if (process.argv.includes("--json")) console.log(JSON.stringify(measured))
  else
    for (const { seconds, stages } of measured)
      console.log(
        `${String(stages).padStart(3)} stages: ${seconds.toFixed(2)} s${stages === 0 ? "" : ` (${(seconds - none).toFixed(2)} s more)`}`,
      )
  if (added > MOST_SECONDS) {
    console.error(
      `${COUNTS.at(-1)} stages add ${added.toFixed(2)} s to tsc; at most ${MOST_SECONDS} s is allowed`,
    )
    process.exitCode = 1
  }
}
