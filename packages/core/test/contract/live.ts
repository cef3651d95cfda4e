// Runs the contract on LinuxKernel, as PID 1 of namespaces of its own; started by LinuxKernel.kernel.test.ts.
// A line of JSON a case: { name, error? }, or { name, needs } for one that needs more than namespaces.
import { Cause, Effect, Exit } from "effect"
import * as fs from "node:fs"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { all } from "./cases.ts"
import { run } from "./harness.ts"
import { shellPrograms } from "./programs.ts"

const base = fs.mkdtempSync("/tmp/kios-contract-")
process.stdin.resume()
const keepAlive = setInterval(() => {}, 1000)

const main = Effect.gen(function* () {
  for (const one of all) {
    if (one.needs !== undefined) {
      fs.writeSync(1, `${JSON.stringify({ name: one.name, needs: one.needs })}\n`)
      continue
    }
    const exit = yield* Effect.exit(
      Effect.scoped(run(one, base, shellPrograms({ command: "/bin/sleep", args: ["1000"] }))),
    )
    const error = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : undefined
    fs.writeSync(1, `${JSON.stringify({ name: one.name, ...(error === undefined ? {} : { error }) })}\n`)
  }
})
Effect.runPromise(main.pipe(Effect.provide(LinuxKernel.layer()))).finally(() => {
  clearInterval(keepAlive)
  // Empty: what was in them were mounts of this namespace.
  for (const name of fs.readdirSync(base)) fs.rmdirSync(`${base}/${name}`)
  fs.rmdirSync(base)
  process.exit(0)
})
