/**
 * `npm run soak`: the tests that get better the longer they run, at full
 * length; `npm test` runs about a tenth of each. docs/soak.md says what each
 * of them shows. Ends with a table and one line, `N passed, N failed`.
 *
 *   --only NAME   one of the runs below, by name
 *
 * Findings are written to dist/soak/, curves of memory to dist/soak/soak.svg.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import type { Finding } from "../packages/core/test/support/Scale.ts"
import { svg } from "./SoakPicture.ts"
import { check, type Count, root, suite } from "./Suite.ts"

interface Run {
  readonly name: string
  readonly what: string
  readonly project: "kernel" | "vm"
  /** Files and filters of vitest. */
  readonly tests: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  /** Names of its findings. */
  readonly findings: ReadonlyArray<string>
}

const runs: ReadonlyArray<Run> = [
  {
    name: "namespace",
    what: "init as PID 1 of a namespace: 2,000 kills, 20,000 crashes, 20,000 probes",
    project: "kernel",
    tests: ["distro/test/soak/soak.kernel.test.ts"],
    findings: ["namespace-kills", "crash-loops", "idle"],
  },
  {
    name: "reaper",
    what: "8,000 orphans and 1,000 supervised children at once, pids used again",
    project: "kernel",
    tests: ["packages/core/test/Reaper.kernel.test.ts"],
    findings: [],
  },
  {
    name: "output",
    what: "a process that writes as fast as it can for a minute, and nobody reads",
    project: "kernel",
    tests: ["packages/core/test/LinuxOutput.kernel.test.ts"],
    findings: [],
  },
  {
    name: "images",
    what: "1, 10 and 50 images imported, and again when they are there",
    project: "kernel",
    tests: ["packages/stages-runtime/test/containerd/imports.kernel.test.ts"],
    findings: ["image-imports"],
  },
  {
    name: "node",
    what: "a node in a virtual machine: containerd and the kubelet killed 200 times each",
    project: "vm",
    tests: ["distro/test/boot/node.vm.test.ts", "-t", "killed at random moments"],
    findings: ["node-kills"],
  },
  {
    name: "shutdown",
    what: "a node is shut down by each trigger, and 50 times on one disk, clean every time",
    project: "vm",
    tests: ["distro/test/shutdown"],
    findings: [],
  },
  {
    name: "power",
    what: "the power of a node that works is cut at 100 random moments",
    project: "vm",
    tests: ["distro/test/power/power.vm.test.ts"],
    env: { KIOS_POWER_CUTS: "100" },
    findings: [],
  },
  {
    name: "registry",
    what: "a node with a policy pulls from a registry of the test's",
    project: "vm",
    tests: ["distro/test/registry/registry.vm.test.ts"],
    findings: [],
  },
  {
    name: "outage",
    what: "a node of a cluster whose API server is away for five minutes",
    project: "vm",
    tests: ["distro/test/cluster/join.vm.test.ts"],
    findings: [],
  },
]

const at = process.argv.indexOf("--only")
const only = at < 0 ? undefined : process.argv[at + 1]
if (at >= 0 && !runs.some(({ name }) => name === only)) {
  console.error(`--only ${only ?? ""}: expected one of ${runs.map(({ name }) => name).join(", ")}`)
  process.exit(2)
}

const results = path.join(root, "dist/soak")
const chosen = runs.filter(({ name }) => only === undefined || name === only)
const clock = () => new Date().toTimeString().slice(0, 5)

const findingOf = (name: string): Finding | undefined => {
  try {
    return JSON.parse(fs.readFileSync(path.join(results, `${name}.json`), "utf8")) as Finding
  } catch {
    return undefined
  }
}

interface Row {
  readonly run: Run
  readonly count: Count
  readonly minutes: number
}

const line = (name: string, rest: string) => `${name.padEnd(12)}${rest}`

const summary = (rows: ReadonlyArray<Row>): string =>
  rows
    .flatMap(({ count, minutes, run }) => [
      line(
        run.name,
        `${`${count.passed} passed`.padEnd(12)}${`${count.failed} failed`.padEnd(12)}${minutes.toFixed(1).padStart(6)} min  ${run.what}`,
      ),
      ...run.findings.flatMap((name) =>
        Object.entries(findingOf(name)?.figures ?? {}).map(([key, value]) =>
          line("", `${name.padEnd(18)}${key.padEnd(40)}${value}`),
        ),
      ),
    ])
    .join("\n")

fs.mkdirSync(results, { recursive: true })
const rows: Array<Row> = []
const total = { passed: 0, failed: 0 }
const add = ({ failed, passed }: Count) => {
  total.passed += passed
  total.failed += failed
}

if (chosen.some(({ project }) => project !== "kernel"))
  add(await check("components and image", process.execPath, ["distro/bin/kios.mjs", "build"]))

for (const [index, each] of chosen.entries()) {
  console.log(`\n# ${clock()} ${each.name} (${index + 1} of ${chosen.length}): ${each.what}`)
  for (const name of each.findings) fs.rmSync(path.join(results, `${name}.json`), { force: true })
  const started = Date.now()
  const counted = await suite({
    name: `soak-${each.name}`,
    project: each.project,
    args: each.tests,
    env: { ...each.env, KIOS_SOAK: "1", KIOS_SOAK_RESULTS: results },
  })
  // Tests that were filtered out are skipped; that all of them were is a name that has changed.
  const count = counted.passed + counted.failed === 0 ? { ...counted, failed: 1 } : counted
  rows.push({ run: each, count, minutes: (Date.now() - started) / 60_000 })
  add(count)
}

const findings = chosen.flatMap(({ findings }) => findings.flatMap((name) => findingOf(name) ?? []))
const picture = path.join(results, "soak.svg")
fs.writeFileSync(picture, svg(findings.flatMap(({ curves }) => curves ?? [])))

console.log(`\n${summary(rows)}\n\n${picture}  memory over kills and crashes`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1)
