// Faults of starting processes on the real kernel, as the supervisor meets them over years.
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const kernel = LinuxKernel.make()
const openFiles = () => fs.readdirSync("/proc/self/fd").length

describe("processes of the live kernel", () => {
  it.live("a log is closed when its process has ended", () =>
    Effect.gen(function* () {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-log-"))
      const log = { path: path.join(directory, "log"), maxBytes: 64 }
      const once = Effect.gen(function* () {
        const child = yield* kernel.spawn({ command: "/bin/echo", args: ["hello"], env: {}, log })
        yield* child.exit
      })
      yield* once
      const before = openFiles()
      for (let round = 0; round < 40; round++) yield* once
      // The streams of the last child close a turn or two after its exit.
      yield* Effect.sleep("10 millis").pipe(
        Effect.repeat({ times: 200, until: () => openFiles() <= before + 2 }),
      )
      assert.isAtMost(openFiles(), before + 2)
      fs.rmSync(directory, { recursive: true })
    }),
  )

  it.live("what Node throws instead of telling is an error like any other", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        kernel.spawn({ command: "/bin/true", args: ["x".repeat(300_000)], env: {} }),
      )
      assert.deepStrictEqual([error.syscall, error.errno, error.path], ["spawn", "E2BIG", "/bin/true"])
    }),
  )

  it.live("only PID 1 may signal everybody", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(kernel.kill(-1, "SIGTERM"))
      assert.strictEqual(error.errno, "EPERM")
    }),
  )
})
