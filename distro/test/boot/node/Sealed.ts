/** Nobody gets to run a program in init as it runs; sealed.vm.test.ts has what its executable does when it is started. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { hostProcesses, Node } from "../support.ts"

/** The sockets that listen for TCP, by port. */
const listening = Effect.gen(function* () {
  const { lines } = yield* Node
  const table = yield* lines("cat /proc/net/tcp /proc/net/tcp6")
  return table.flatMap((line) => {
    const [, local = "", , state] = line.trim().split(/\s+/u)
    return state === "0A" ? [Number.parseInt(local.split(":").at(-1) ?? "", 16)] : []
  })
})

export const sealed = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("SIGUSR1 opens no debugger in init", () =>
    Effect.gen(function* () {
      const { lines, machine } = yield* Node
      const before = yield* listening
      yield* lines("kill -USR1 1; kill -USR1 1")
      // Node would listen within milliseconds; it is given seconds.
      const during = yield* lines(
        "for i in $(seq 10); do cat /proc/net/tcp /proc/net/tcp6 | grep -ci ':240D .* 0A ' || true; sleep 0.3; done",
      )
      assert.deepStrictEqual([...new Set(during)], ["0"])
      assert.deepStrictEqual([...(yield* listening)].sort(), [...before].sort())
      assert.notInclude(yield* lines("cat /proc/1/task/*/comm"), "SignalInspector")
      assert.isTrue((yield* hostProcesses).some(({ exe, pid }) => pid === 1 && exe === "/init"))
      assert.isFalse(machine.vm.console.tail().some(({ text }) => text.includes("Debugger")))
    }),
  )
}
