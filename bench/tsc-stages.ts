/**
 * What pipelines cost the compiler: the time that `tsc` takes for a module with
 * a pipeline of 0, 30 and 100 stages, each of which provides a service and
 * needs two earlier ones.
 *
 *   node --conditions=@kios/source bench/tsc-stages.ts [--json]
 *
 * Each time is the smallest of five runs: what else the machine does only adds.
 * Fails when 100 stages have the compiler instantiate more types than
 * {@link MOST_INSTANTIATIONS}, a count that no machine changes.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../", import.meta.url))
const COUNTS = [0, 30, 100] as const
const RUNS = 5
/** Of types, by TypeScript 7 for 100 stages: 1,049,638 when this was written; 25,926 for none. */
export const MOST_INSTANTIATIONS = 1_200_000

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

interface Compiled {
  readonly seconds: number
  readonly instantiations: number
}

/** Runs `tsc --noEmit` on a project. */
const compile = (project: string): Compiled => {
  const started = process.hrtime.bigint()
  const tsc = spawnSync(
    path.join(root, "node_modules/.bin/tsc"),
    ["--project", project, "--extendedDiagnostics"],
    { encoding: "utf8" },
  )
  if (tsc.error !== undefined) throw tsc.error
  if (tsc.status !== 0) throw new Error(`${path.basename(project)} does not compile:\n${tsc.stdout}`)
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  const instantiations = Number(/^Instantiations:\s+(\d+)$/mu.exec(tsc.stdout)?.[1])
  if (!Number.isInteger(instantiations))
    throw new Error(`tsc counts no instantiations any more:\n${tsc.stdout}`)
  return { seconds, instantiations }
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

/** By number of stages, the least of `runs` in turns, after one that fills the machine's caches. */
export const measure = (
  counts: ReadonlyArray<number> = COUNTS,
  runs: number = RUNS,
): ReadonlyArray<Compiled & { readonly stages: number }> => {
  // In the repository, so that @kios/core and effect are found.
  const cache = path.join(root, ".cache")
  fs.mkdirSync(cache, { recursive: true })
  const directory = fs.mkdtempSync(path.join(cache, "tsc-stages-"))
  try {
    const projects = counts.map((stages) => ({ stages, project: projectFor(stages, directory) }))
    const first = projects.map(({ project }) => compile(project))
    const runsOf = Array.from({ length: runs }, () => projects.map(({ project }) => compile(project)))
    return projects.map(({ stages }, index) => ({
      stages,
      seconds: Math.min(...runsOf.map((row) => row[index]?.seconds ?? Number.POSITIVE_INFINITY)),
      instantiations: first[index]?.instantiations ?? Number.NaN,
    }))
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

if (import.meta.main) {
  const measured = measure()
  const none = measured[0]?.seconds ?? 0
  if (process.argv.includes("--json")) console.log(JSON.stringify(measured))
  else
    for (const { instantiations, seconds, stages } of measured)
      console.log(
        `${String(stages).padStart(3)} stages: ${seconds.toFixed(2)} s${stages === 0 ? "" : ` (${(seconds - none).toFixed(2)} s more)`}, ${instantiations} instantiations`,
      )
  const most = measured.at(-1)
  if (most === undefined || most.instantiations > MOST_INSTANTIATIONS) {
    console.error(
      `${most?.stages} stages take ${most?.instantiations} instantiations; at most ${MOST_INSTANTIATIONS} are allowed`,
    )
    process.exitCode = 1
  }
}
