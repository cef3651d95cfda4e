// PID 1 of a pid namespace with orphans and supervised children at once; started by Reaper.kernel.test.ts:
// `reaperStress.ts ORPHANS CHILDREN [reuse]`. With `reuse`, the kernel is told again and again which pid it gave out
// last, so that the same few are given out over and over. Prints one line of JSON.
import { Effect, Scope } from "effect"
import * as fs from "node:fs"
import { type ChildProcess, Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import * as Reaper from "@kios/core/Reaper"

const ORPHANS = Number(process.argv[2] ?? 300)
const CHILDREN = Number(process.argv[3] ?? 50)
const REUSE = process.argv[4] === "reuse"
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

const main = Effect.gen(function* () {
  const kernel = yield* Kernel
  yield* Scope.provide(Reaper.run, yield* Scope.make())
  const pids = new Map<number, number>()
  const sh = (script: string) =>
    Effect.gen(function* () {
      // proc_sys_kernel(5): the next pid is the first free one above it.
      if (REUSE) fs.writeFileSync("/proc/sys/kernel/ns_last_pid", "400")
      const child = yield* kernel.spawn({
        command: "/bin/sh",
        args: ["-c", script],
        env: { PATH: "/usr/bin:/bin" },
      })
      pids.set(child.pid, (pids.get(child.pid) ?? 0) + 1)
      // A turn of the loop, in which children may end.
      yield* Effect.yieldNow
      return child
    })
  // Leavers end at once and their children a moment later, in between the supervised ones.
  const leavers: Array<ChildProcess> = []
  const children: Array<readonly [ChildProcess, number]> = []
  const each = Math.ceil(CHILDREN / (ORPHANS / 10))
  for (let n = 0; n < ORPHANS / 10; n++) {
    leavers.push(yield* sh(`for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.0$i; exit $i) & done; exit 77`))
    for (let m = 0; m < each && children.length < CHILDREN; m++) {
      const code = (children.length % 250) + 1
      children.push([yield* sh(`sleep 0.0${code % 10}; exit ${code}`), code])
    }
    // No more at a time than a small machine has room for.
    if (n % 20 === 19) for (const leaver of leavers.slice(-20)) yield* leaver.exit
  }
  const wrong: Array<string> = []
  const expectCode = ({ exit }: ChildProcess, code: number) =>
    Effect.map(exit, (status) => {
      if (status._tag !== "Exited" || status.code !== code) wrong.push(`${code}: ${JSON.stringify(status)}`)
    })
  for (const [child, code] of children) yield* expectCode(child, code)
  for (const leaver of leavers) yield* expectCode(leaver, 77)
  // Until nobody is left but zombies that nobody reaps, which there must not be.
  const deadline = Date.now() + 60_000
  while (states().length > 0 && Date.now() < deadline) yield* Effect.sleep("10 millis")
  const left = states()
  fs.writeSync(
    1,
    `${JSON.stringify({
      statuses: children.length + leavers.length,
      wrong,
      zombies: left.filter((state) => state === "Z").length,
      left: left.length,
      reused: Math.max(...pids.values()),
    })}\n`,
  )
})
Effect.runPromise(main.pipe(Effect.provide(LinuxKernel.layer()))).finally(() => {
  clearInterval(keepAlive)
  process.exit(0)
})
