// Where a process lives, as the kernel tells it; started by LinuxProcesses.kernel.test.ts in a mount namespace of its
// own, because a cgroup filesystem is mounted. Prints one line of JSON.
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"

const GROUP = `/sys/fs/cgroup/kios-test-${process.pid}`
const read = (file: string) => fs.readFileSync(file, "utf8").trim()
const field = (pid: number | "self", name: string) =>
  new RegExp(`^${name}:\\s+(.*)$`, "mu").exec(read(`/proc/${pid}/status`))?.[1] ?? "?"
const limit = (pid: number | "self", name: string) =>
  new RegExp(`^${name}\\s+(\\S+)\\s+(\\S+)`, "mu").exec(read(`/proc/${pid}/limits`))?.slice(1)
const mine = () => ({
  cgroup: read("/proc/self/cgroup"),
  oomScoreAdj: read("/proc/self/oom_score_adj"),
  openFiles: limit("self", "Max open files"),
  core: limit("self", "Max core file size"),
})

const main = Effect.gen(function* () {
  execFileSync("mount", ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])
  fs.mkdirSync(GROUP)
  const kernel = yield* Kernel
  // Things that must not be inherited: descriptors, dispositions, environment, directory.
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-placement-"))
  for (let n = 0; n < 5; n++) fs.openSync(path.join(directory, `file${n}`), "w")
  process.on("SIGUSR2", () => {})
  process.chdir(directory)
  process.env["SECRET"] = "x"
  const before = mine()
  const lines: Array<string> = []
  const output = yield* kernel.openOutput({
    onLine: (line) => lines.push(line),
    log: { path: path.join(directory, "log"), maxBytes: 1000 },
  })
  const where = { cgroup: GROUP, oomScoreAdj: 321, limits: { openFiles: 4096, core: 0 }, output } as const
  const child = yield* kernel.spawn({ ...where, command: "/bin/sleep", args: ["1000"], env: { ONE: "1" } })
  const { pid } = child
  // The name says that the exec is over.
  while (read(`/proc/${pid}/comm`) !== "sleep") yield* Effect.sleep(1)
  const stat = read(`/proc/${pid}/stat`).split(" ")
  const told = {
    cgroup: read(`/proc/${pid}/cgroup`)
      .split("\n")
      .includes(`0::/${path.basename(GROUP)}`),
    oomScoreAdj: read(`/proc/${pid}/oom_score_adj`),
    openFiles: limit(pid, "Max open files"),
    core: limit(pid, "Max core file size")?.[0],
    environment: fs.readFileSync(`/proc/${pid}/environ`, "utf8"),
    descriptors: fs.readdirSync(`/proc/${pid}/fd`).toSorted(),
    stdin: fs.readlinkSync(`/proc/${pid}/fd/0`),
    oneOutput: fs.readlinkSync(`/proc/${pid}/fd/1`) === fs.readlinkSync(`/proc/${pid}/fd/2`),
    stdout: fs.readlinkSync(`/proc/${pid}/fd/1`).replace(/\d+/u, "N"),
    directory: fs.readlinkSync(`/proc/${pid}/cwd`),
    umask: field(pid, "Umask"),
    blocked: BigInt(`0x${field(pid, "SigBlk")}`).toString(16),
    ignored: BigInt(`0x${field(pid, "SigIgn")}`).toString(16),
    session: Number(stat[5]) === pid,
    terminal: stat[6],
  }
  yield* kernel.kill(pid, "SIGKILL")
  yield* child.exit

  // From the first instruction: the first thing that a shell does is to look.
  const look = `read score </proc/self/oom_score_adj; while IFS= read -r line; do case $line in 0::*) group=$line;; esac; done </proc/self/cgroup; echo "$score $group $(ulimit -n) $(ulimit -c)"`
  lines.length = 0
  for (let n = 0; n < 50; n++) {
    const shell = yield* kernel.spawn({ ...where, command: "/bin/sh", args: ["-c", look], env: {} })
    yield* shell.exit
  }
  output.flush()
  const first = { count: lines.length, different: [...new Set(lines)] }

  // One that cannot be started changes nothing either.
  const refused = yield* Effect.flip(kernel.spawn({ ...where, command: "/bin/missing", args: [], env: {} }))
  const elsewhere = yield* Effect.flip(
    kernel.spawn({ ...where, cgroup: `${GROUP}/missing`, command: "/bin/sleep", args: ["0"], env: {} }),
  )
  const after = mine()
  fs.rmdirSync(GROUP)
  fs.rmSync(directory, { recursive: true })
  fs.writeSync(
    1,
    `${JSON.stringify({
      told,
      first: { ...first, group: path.basename(GROUP) },
      errors: [refused.errno, elsewhere.errno],
      unchanged: JSON.stringify(before) === JSON.stringify(after),
      after,
    })}\n`,
  )
})
const keepAlive = setInterval(() => {}, 1000)
Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(LinuxKernel.layer()))).finally(() =>
  clearInterval(keepAlive),
)
