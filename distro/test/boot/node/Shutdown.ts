/** Power-off by SIGTERM to init: last, for the machine is gone then. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { Node, temporaryDirectory } from "../support.ts"

const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }

export const shutdown = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("SIGTERM to init powers off and leaves a clean filesystem", () =>
    Effect.gen(function* () {
      const { data, lines, machine } = yield* Node
      const directory = yield* temporaryDirectory
      const id = (yield* lines("cat /host/etc/machine-id"))[0]
      yield* lines("(sleep 1; kill -TERM 1) >/dev/null 2>&1 &")
      const exit = yield* Effect.timeout(machine.vm.exit, "2 minutes")
      assert.deepStrictEqual([exit.code, exit.shutdownReason], [0, "guest-shutdown"])
      const stopping = machine.events().filter((event) => event._tag === "SystemStopping")
      assert.deepStrictEqual(
        stopping.map(({ action }) => action),
        ["power-off"],
      )
      const tail = machine.vm.console.tail().map(({ message }) => message)
      assert.include(tail, "kios: shutting down action=POWER_OFF")
      const said = tail.slice(tail.indexOf("kios: shutting down action=POWER_OFF"))
      assert.deepStrictEqual(
        said.filter((line) => /^kios: (?:error|warn)/.test(line)),
        [],
      )

      const file = path.join(directory, "partition")
      const { size, start } = data.partition
      const from = fs.openSync(data.path, "r")
      const to = fs.openSync(file, "w")
      const chunk = Buffer.alloc(1 << 20)
      for (let at = 0; at < size; at += chunk.length) {
        const read = fs.readSync(from, chunk, 0, Math.min(chunk.length, size - at), start + at)
        fs.writeSync(to, chunk, 0, read)
      }
      fs.closeSync(from)
      fs.closeSync(to)
      const run = (program: string, args: ReadonlyArray<string>) =>
        execFileSync(program, [...args, file], { env: environment, encoding: "utf8", stdio: "pipe" })
      // Exit code 0: nothing to mend, and not even a journal to replay.
      const checked = run("e2fsck", ["-fn"])
      assert.notInclude(checked, "Fix?")
      const header = run("dumpe2fs", ["-h"])
      assert.match(header, /^Filesystem state: +clean$/m)
      assert.notInclude(header, "needs_recovery")
      assert.strictEqual(run("debugfs", ["-R", "cat meta/etc/machine-id"]).trim(), id)
    }),
  )
}
