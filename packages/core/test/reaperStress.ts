// PID 1 of a pid namespace with orphans and supervised children at once; started by Reaper.kernel.test.ts.
// Prints one line of JSON: { reaped, wrong, zombies, left }.
import { Effect, Scope } from "effect"
import * as fs from "node:fs"
import { Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import * as Reaper from "@kios/core/Reaper"

const ORPHANS = 300
const CHILDREN = 50
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
  const sh = (script: string) =>
    kernel.spawn({ command: "/bin/sh", args: ["-c", script], env: { PATH: "/usr/bin:/bin" } })
  // Leavers end at once and their children a moment later, in between the supervised ones.
  const leavers = yield* Effect.forEach(
    Array.from({ length: ORPHANS / 10 }, (_, n) => n),
    () => sh(`for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.0$i; exit $i) & done; exit 77`),
    { concurrency: 1 },
  )
  const codes = Array.from({ length: CHILDREN }, (_, n) => n + 1)
  const children = yield* Effect.forEach(codes, (code) => sh(`sleep 0.0${code % 10}; exit ${code}`), {
    concurrency: 1,
  })
  const wrong: Array<string> = []
  const expectCode = (exit: (typeof children)[number]["exit"], code: number) =>
    Effect.map(exit, (status) => {
      if (status._tag !== "Exited" || status.code !== code) wrong.push(`${code}: ${JSON.stringify(status)}`)
    })
  for (const [index, child] of children.entries()) yield* expectCode(child.exit, codes[index] ?? -1)
  for (const leaver of leavers) yield* expectCode(leaver.exit, 77)
  // Until nobody is left but zombies that nobody reaps, which there must not be.
  const deadline = Date.now() + 20_000
  while (states().length > 0 && Date.now() < deadline) yield* Effect.sleep("10 millis")
  const left = states()
  fs.writeSync(
    1,
    `${JSON.stringify({ statuses: children.length + leavers.length, wrong, zombies: left.filter((s) => s === "Z").length, left: left.length })}\n`,
  )
})
Effect.runPromise(main.pipe(Effect.provide(LinuxKernel.layer()))).finally(() => {
  clearInterval(keepAlive)
  process.exit(0)
})
