/** Runs commands and test suites for `npm test` and `npm run soak`, and counts what passed. */
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { leanFile } from "../distro/test/boot/lean.ts"

/** The repository. */
export const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..")

const cache = path.join(root, "node_modules/.cache/kios-test")

export interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

/** Runs a command with this process's terminal; gives its exit code. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
): Promise<number> =>
  new Promise((resolve) => {
    const child = spawn(command, [...args], { cwd: root, stdio: "inherit", env: { ...process.env, ...env } })
    // Ctrl-C reaches the child by the terminal; a SIGTERM would only end this process.
    const forward = () => {
      child.once("exit", () => process.exit(143))
      child.kill("SIGTERM")
    }
    process.once("SIGTERM", forward)
    child.on("exit", () => process.off("SIGTERM", forward))
    child.on("error", (error) => {
      console.error(`${command}: ${error.message}`)
      resolve(1)
    })
    child.on("exit", (code) => resolve(code ?? 1))
  })

/** One command that passes or fails as a whole. */
export const check = async (name: string, command: string, args: ReadonlyArray<string>): Promise<Count> => {
  console.log(`\n# ${name}`)
  const passed = (await run(command, args)) === 0
  console.log(`${name}: ${passed ? "passed" : "FAILED"}`)
  return passed ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 }
}

interface VitestReport {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
}

/** What {@link suite} takes. */
export interface SuiteOptions {
  /** Names the report's file. */
  readonly name: string
  readonly project: string
  /** Further arguments of vitest: files, `-t` and a pattern. */
  readonly args?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}

/** Tests of one project of vitest; counts them. */
export const suite = async (options: SuiteOptions): Promise<Count> => {
  fs.mkdirSync(cache, { recursive: true })
  // The first test that wants it builds it, of today's sources.
  if (options.project === "vm") fs.rmSync(path.join(root, "dist", leanFile), { force: true })
  const report = path.join(cache, `${options.name}.json`)
  fs.rmSync(report, { force: true })
  const vitest = path.join(root, "node_modules/vitest/vitest.mjs")
  const code = await run(
    process.execPath,
    [
      vitest,
      "run",
      "--project",
      options.project,
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...(options.args ?? []),
    ],
    options.env,
  )
  if (!fs.existsSync(report)) {
    console.error(`${options.name}: vitest wrote no report (exit code ${code})`)
    return { passed: 0, failed: 1, skipped: 0 }
  }
  const counted = JSON.parse(fs.readFileSync(report, "utf8")) as VitestReport
  // A suite that could not even be loaded has no tests that could fail.
  const failed = Math.max(counted.numFailedTests, code === 0 ? 0 : Math.max(1, counted.numFailedTests))
  return { passed: counted.numPassedTests, failed, skipped: counted.numPendingTests }
}
