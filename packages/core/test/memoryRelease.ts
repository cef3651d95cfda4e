// Makes garbage, lets go of it, has it collected, and prints its anonymous memory (KiB) at each moment; started by LinuxMemory.kernel.test.ts.
import { Effect } from "effect"
import * as fs from "node:fs"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"

const kernel = LinuxKernel.make()
const anonymous = () =>
  Number(/^RssAnon:\s+(\d+) kB$/m.exec(fs.readFileSync("/proc/self/status", "utf8"))?.[1])

// The first time loads the addon and makes a context.
Effect.runSync(kernel.releaseMemory)
const before = anonymous()
let kept: Array<unknown> = Array.from({ length: 400_000 }, (_, n) => ({ n }))
// Below malloc's threshold for mappings of their own, which would go back at once.
kept.push(Array.from({ length: 32 * 16 }, () => Buffer.alloc(65_536, 1)))
const full = anonymous()
kept = []
Effect.runSync(kernel.releaseMemory)
console.log(JSON.stringify({ before, full, after: anonymous() }))
