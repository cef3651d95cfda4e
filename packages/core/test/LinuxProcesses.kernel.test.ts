// Faults of starting processes on the real kernel, as the supervisor meets them over years.
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

const kernel = LinuxKernel.make()

describe("processes of the live kernel", () => {
  it.live(
    "a process lives where it was told to, from its first instruction on, and inherits nothing else",
    () =>
      Effect.gen(function* () {
        const script = fileURLToPath(new URL("placement.ts", import.meta.url))
        const output = yield* Effect.callback<string>((resume) => {
          execFile(
            "unshare",
            ["--mount", "--propagation=private", process.execPath, "--conditions=@kios/source", script],
            { timeout: 60_000, killSignal: "SIGKILL" },
            (_error, stdout, stderr) => resume(Effect.succeed(stdout === "" ? stderr : stdout)),
          )
        })
        assert.match(output, /^\{/u, output)
        const { errors, first, told, unchanged } = JSON.parse(output)
        const { openFiles, ...rest } = told
        assert.deepStrictEqual(rest, {
          cgroup: true,
          oomScoreAdj: "321",
          core: "0",
          environment: "ONE=1\0",
          descriptors: ["0", "1", "2"],
          stdin: "/dev/null",
          oneOutput: true,
          stdout: "pipe:[N]",
          directory: "/",
          umask: "0022",
          blocked: "0",
          ignored: "0",
          session: true,
          terminal: "0",
        })
        assert.strictEqual(openFiles[0], "4096")
        assert.deepStrictEqual(first, {
          count: 50,
          different: [`321 0::/${first.group} 4096 0`],
          group: first.group,
        })
        assert.deepStrictEqual(errors, ["ENOENT", "ENOENT"])
        assert.isTrue(unchanged, "init is where it was, with what it had")
      }),
    90_000,
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
