/** containerd and the kubelet die; the pods do not. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { eventually, eventuallyAssert, hello, hostProcesses, Node, processes, shellPod } from "../support.ts"

const late = "/host/etc/kubernetes/manifests/late.json"

/** Pid and start time of the sample pod's httpd. */
const httpd = Effect.map(processes, (all) =>
  all.filter(({ name }) => name === "httpd").map(({ pid, start }) => ({ pid, start })),
)

const shims = Effect.map(
  hostProcesses,
  (list) => list.filter(({ exe }) => exe === "/bin/containerd-shim-runc-v2").length,
)

const one = (exe: string) =>
  Effect.flatMap(hostProcesses, (list) => {
    const found = list.filter((process) => process.exe === exe)
    const [process] = found
    return process !== undefined && found.length === 1
      ? Effect.succeed(process)
      : Effect.fail(new Error(`${found.length} processes of ${exe}`))
  })

/** SIGKILL, then a new process in its place; returns that. */
const killAndWait = Effect.fnUntraced(function* (name: string) {
  const { lines, machine } = yield* Node
  const exe = `/bin/${name}`
  const before = yield* one(exe)
  yield* lines(`kill -KILL ${before.pid}`)
  const after = yield* eventuallyAssert(`a new ${name}`, one(exe), ({ parent, pid, start }) => {
    assert.notDeepEqual([pid, start], [before.pid, before.start])
    assert.strictEqual(parent, 1)
  })
  const told = machine
    .events()
    .some(
      (event) => event._tag === "KiosError" && event.message.startsWith(`${name}: ended with signal SIGKILL`),
    )
  assert.isTrue(told, `the console tells of the end of ${name}`)
  return after
})

export const crashes = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("containerd and the kubelet come back from SIGKILL, and the pod keeps running", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const served = yield* httpd
      assert.strictEqual(served.length, 1)

      const containerd = yield* killAndWait("containerd")
      yield* hello
      // It may be started more than once: it ends by itself while containerd is not back.
      yield* killAndWait("kubelet")
      yield* hello
      yield* eventually("the kubelet's health", lines("wget -qO- http://127.0.0.1:10248/healthz"))

      assert.deepStrictEqual(yield* httpd, served, "the sample pod's process is the same one")
      assert.strictEqual((yield* one("/bin/containerd")).start, containerd.start, "containerd died once")
    }),
  )

  it.effect("what came back runs new pods, and init still tells of them", () =>
    Effect.gen(function* () {
      const { lines, machine } = yield* Node
      const before = yield* shims
      yield* lines(`cat >${late} <<'END'\n${shellPod("default", "late", "exec sleep 1000000")}\nEND`)
      const verdict = yield* machine.until({ pods: ["default/late"] }, { timeout: "90 seconds" })
      assert.isTrue(verdict.reached, verdict.reason)
      yield* lines(`rm ${late}`)
      yield* eventuallyAssert("the pod's shim is gone", shims, (count) => assert.strictEqual(count, before))
    }),
  )

  it.effect("no zombies stay", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      yield* eventuallyAssert(
        "processes that nobody waits for",
        lines("grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null || true"),
        (zombies) => assert.deepStrictEqual(zombies, []),
      )
    }),
  )
}
