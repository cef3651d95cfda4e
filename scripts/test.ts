/**
 * `npm test`: every check and test, in the order in which they fail fastest.
 * Ends with one line, `N passed, N failed`, in which each check counts as one.
 *
 *   --only NAME   check, image, unit, kernel or vm
 */
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..")
const bin = (name: string) => path.join(root, "node_modules/.bin", name)
const cache = path.join(root, "node_modules/.cache/kios-test")
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : undefined

interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const run = (command: string, args: ReadonlyArray<string>): Promise<number> =>
  new Promise((resolve) => {
    const child = spawn(command, [...args], { cwd: root, stdio: "inherit" })
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
const check = async (name: string, command: string, args: ReadonlyArray<string>): Promise<Count> => {
  console.log(`\n# ${name}`)
  const passed = (await run(command, args)) === 0
  console.log(`${name}: ${passed ? "passed" : "FAILED"}`)
  return passed ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 }
}

interface VitestReport {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numFailedTestSuites: number
  readonly success: boolean
}

/** One project of vitest; counts its tests. */
const suite = async (project: string): Promise<Count> => {
  console.log(`\n# ${project} tests`)
  const report = path.join(cache, `${project}.json`)
  fs.rmSync(report, { force: true })
  const vitest = path.join(root, "node_modules/vitest/vitest.mjs")
  const code = await run(process.execPath, [
    vitest,
    "run",
    "--project",
    project,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ])
  if (!fs.existsSync(report)) {
    console.error(`${project}: vitest wrote no report (exit code ${code})`)
    return { passed: 0, failed: 1, skipped: 0 }
  }
  const counted = JSON.parse(fs.readFileSync(report, "utf8")) as VitestReport
  // A suite that could not even be loaded has no tests that could fail.
  const failed = Math.max(counted.numFailedTests, code === 0 ? 0 : Math.max(1, counted.numFailedTests))
  return { passed: counted.numPassedTests, failed, skipped: counted.numPendingTests }
}

const groups: Readonly<Record<string, ReadonlyArray<() => Promise<Count>>>> = {
  check: [
    () => check("format", bin("oxfmt"), ["--check", "."]),
    () => check("lint", bin("oxlint"), ["--deny-warnings"]),
    () => check("build of the packages", bin("tsc"), ["--build"]),
    () => check("types of everything", bin("tsc"), ["--project", "tsconfig.test.json"]),
    () =>
      check("Effect diagnostics", bin("effect-tsgo"), [
        "diagnostics",
        "--project",
        "tsconfig.src.json",
        "--strict",
      ]),
  ],
  // Before the tests: some of them look at what was built.
  image: [() => check("components and image", process.execPath, ["distro/bin/kios.mjs", "build"])],
  unit: [() => suite("unit")],
  kernel: [() => suite("kernel")],
  vm: [() => suite("vm")],
}

if (only !== undefined && !Object.hasOwn(groups, only)) {
  console.error(`--only ${only}: expected one of ${Object.keys(groups).join(", ")}`)
  process.exit(2)
}

fs.mkdirSync(cache, { recursive: true })
const started = Date.now()
const total = { passed: 0, failed: 0, skipped: 0 }
for (const [name, steps] of Object.entries(groups)) {
  if (only !== undefined && only !== name) continue
  for (const step of steps) {
    const count = await step()
    total.passed += count.passed
    total.failed += count.failed
    total.skipped += count.skipped
  }
}
const minutes = ((Date.now() - started) / 60_000).toFixed(1)
console.log(`\n${minutes} minutes${total.skipped > 0 ? `, ${total.skipped} skipped` : ""}`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1)
