/** Power-off by SIGTERM to init: last, for the machine is gone then. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { assertClean } from "../../shutdown/Partition.ts"
import { Node, temporaryDirectory } from "../support.ts"

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
      const asked = "kios: shutting down action=POWER_OFF by=SIGTERM"
      assert.include(tail, asked)
      const said = tail.slice(tail.indexOf(asked))
      assert.deepStrictEqual(
        said.filter((line) => /^kios: (?:error|warn)/.test(line)),
        [],
      )

      const read = assertClean(data, directory)
      assert.strictEqual(read("meta/etc/machine-id").trim(), id)
    }),
  )
}
