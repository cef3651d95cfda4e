/**
 * `npm test`: every check and test, in the order in which they fail fastest.
 * Ends with one line, `N passed, N failed`, in which each check counts as one.
 *
 *   --only NAME   check, image, unit, kernel or vm
 */
import * as path from "node:path"
import { check, type Count, root, suite as suiteOf } from "./Suite.ts"

const bin = (name: string) => path.join(root, "node_modules/.bin", name)
const only = process.argv.includes("--only") ? process.argv[process.argv.indexOf("--only") + 1] : undefined

const suite = (project: string): Promise<Count> => {
  console.log(`\n# ${project} tests`)
  return suiteOf({ name: project, project })
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
