// PID 1 of a pid namespace with orphans and supervised children at once; started by Reaper.kernel.test.ts.
// Each round uses the pids of the one before again, an orphan's for a supervised child and the other way round.
// Prints one line of JSON: a Result.
import { Effect, Scope } from "effect"
import * as fs from "node:fs"
import { Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import * as Reaper from "@kios/core/Reaper"

export interface Options {
  readonly rounds: number
  /** Of each round; ten orphans for each leaver, which is supervised as well. */
  readonly leavers: number
  readonly children: number
}

export interface Result {
  /** Exit statuses that came. */
  readonly statuses: number
  readonly wrong: ReadonlyArray<string>
  readonly zombies: number
  readonly left: number
  /** Supervised processes whose pid another one had had. */
  readonly reused: number
}

const options = JSON.parse(process.argv[2] ?? "") as Options
const keepAlive = setInterval(() => {}, 1000)

const states = () =>
  fs
    .readdirSync("/proc")
    .filter((name) => /^\d+$/u.test(name) && name !== "1")
    .flatMap((pid) => {
      try {
        return [/^State:\s+(\w)/mu.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "?"]
      } catch {
        return []
      }
    })

/** The next process gets a low pid again (proc_sys_kernel(5)); not every kernel has the file. */
const usePidsAgain = Effect.sync(() => {
  try {
    fs.writeFileSync("/proc/sys/kernel/ns_last_pid", "300")
  } catch {
    // Then they are not used again, and `reused` says so.
  }
})

const main = Effect.gen(function* () {
  const kernel = yield* Kernel
  yield* Scope.provide(Reaper.run, yield* Scope.make())
  const sh = (script: string) =>
    kernel.spawn({ command: "/bin/sh", args: ["-c", script], env: { PATH: "/usr/bin:/bin" } })
  const wrong: Array<string> = []
  const pids = new Set<number>()
  let statuses = 0
  let reused = 0

  const round = Effect.fnUntraced(function* (number: number) {
    yield* usePidsAgain
    // Leavers end at once and their children a moment later, in between the supervised ones.
    const leavers = Array.from({ length: options.leavers }, () => ({
      script: `for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.0$i; exit $i) & done; exit 77`,
      code: 77,
    }))
    const children = Array.from({ length: options.children }, (_, n) => {
      const code = (n % 250) + 1
      return { script: `sleep 0.0${code % 10}; exit ${code}`, code }
    })
    const all = number % 2 === 0 ? [...leavers, ...children] : [...children, ...leavers]
    const started = yield* Effect.forEach(all, ({ code, script }) =>
      Effect.map(sh(script), (child) => ({ code, child })),
    )
    for (const { child, code } of started) {
      if (pids.has(child.pid)) reused++
      pids.add(child.pid)
      const status = yield* child.exit
      statuses++
      if (status._tag !== "Exited" || status.code !== code) wrong.push(`${code}: ${JSON.stringify(status)}`)
    }
    // Until nobody is left but zombies that nobody reaps, which there must not be.
    const deadline = Date.now() + 60_000
    while (states().length > 0 && Date.now() < deadline) yield* Effect.sleep("10 millis")
  })

  for (let number = 0; number < options.rounds; number++) yield* round(number)
  const left = states()
  const zombies = left.filter((state) => state === "Z").length
  const result: Result = { statuses, wrong, zombies, left: left.length, reused }
  fs.writeSync(1, `${JSON.stringify(result)}\n`)
})
Effect.runPromise(main.pipe(Effect.provide(LinuxKernel.layer()))).finally(() => {
  clearInterval(keepAlive)
  process.exit(0)
})
