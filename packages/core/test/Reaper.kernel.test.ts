// The reaper as PID 1: orphans and supervised children at once, with pids that are used again.
import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import type { Options, Result } from "./reaperStress.ts"
import { record, scaled } from "./support/Scale.ts"

// In the soak 2,000 orphans and 200 other children at a time.
const options = scaled<Options>(
  { rounds: 2, leavers: 20, children: 40 },
  { rounds: 6, leavers: 200, children: 200 },
)
const minutes = scaled(5, 30)

it(
  "no zombie stays and no exit status is lost",
  async () => {
    const stress = fileURLToPath(new URL("reaperStress.ts", import.meta.url))
    const started = Date.now()
    const output = await new Promise<string>((resolve) => {
      execFile(
        "unshare",
        [
          "--mount",
          "--pid",
          "--fork",
          "--kill-child",
          "--mount-proc",
          process.execPath,
          "--conditions=@kios/source",
          stress,
          JSON.stringify(options),
        ],
        { timeout: minutes * 55_000, killSignal: "SIGKILL" },
        (_error, stdout, stderr) => resolve(stdout === "" ? stderr : stdout),
      )
    })
    const { reused, ...found } = JSON.parse(output) as Result
    const supervised = options.rounds * (options.leavers + options.children)
    assert.deepStrictEqual(found, { statuses: supervised, wrong: [], zombies: 0, left: 0 })
    if (fs.existsSync("/proc/sys/kernel/ns_last_pid")) assert.isAbove(reused, 0, "pids used again")
    record("reaper", {
      figures: {
        orphans: options.rounds * options.leavers * 10,
        supervised,
        "pids used again": reused,
        "wrong statuses": found.wrong.length,
        zombies: found.zombies,
        seconds: Math.round((Date.now() - started) / 1000),
      },
    })
  },
  minutes * 60_000,
)
