import { assert, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { spawnSync } from "node:child_process"
import * as Probe from "../../src/vm/Probe.ts"
import * as Qemu from "../../src/vm/Qemu.ts"
import { fakeHost, type Scenario } from "./fixtures/FakeQemu.ts"

const withProbe = <A, E>(
  scenario: Scenario,
  use: (probe: Probe.Probe, vm: Qemu.Qemu) => Effect.Effect<A, E>,
) =>
  Effect.gen(function* () {
    const host = yield* fakeHost(scenario)
    return yield* Effect.gen(function* () {
      const vm = yield* Qemu.start({ ...host.options, ports: ["kios-probe"] })
      return yield* use(yield* Probe.make({ path: vm.ports["kios-probe"] ?? "" }), vm)
    }).pipe(Effect.scoped, host.provide)
  })

for (const probe of ["honest", "noisy", "drops-first"] as const)
  it.live(`runs scripts, guest is ${probe}`, () =>
    withProbe({ probe }, (probe) =>
      Effect.gen(function* () {
        yield* probe.ready({ timeout: "5 seconds" })
        const result = yield* probe.exec("echo out; echo 'é' >&2; exit 3")
        assert.deepStrictEqual(result, { exitCode: 3, stdout: "out\n", stderr: "é\n", truncated: false })
        const many = yield* Effect.all([probe.exec("echo 1"), probe.exec("echo 2")], {
          concurrency: "unbounded",
        })
        assert.deepStrictEqual(
          many.map((one) => one.stdout),
          ["1\n", "2\n"],
        )
      }),
    ),
  )

it.live("says what is wrong with the guest", () =>
  Effect.gen(function* () {
    const mute = yield* Effect.flip(withProbe({ probe: "mute" }, (probe) => probe.ready({ timeout: 100 })))
    assert.include(mute.message, "does the pod with the probe run")
    const future = yield* Effect.flip(withProbe({ probe: "future" }, (probe) => probe.exec("true")))
    assert.include(future.message, "version 99")
    const loses = yield* Effect.flip(withProbe({ probe: "loses" }, (probe) => probe.exec("echo something")))
    assert.include(loses.message, "part of its answer was lost")
    const long = yield* Effect.flip(withProbe({}, (probe) => probe.exec("x".repeat(70_000))))
    assert.strictEqual((long as { reason: string }).reason, "too-long")
  }),
)

it.live("ends a script at its deadline and goes on; ends with the machine", () =>
  withProbe({}, (probe, vm) =>
    Effect.gen(function* () {
      const late = yield* Effect.flip(probe.exec("echo begun; exec sleep 60", { timeout: "1 second" }))
      assert.strictEqual(late.reason, "guest-timeout")
      assert.include(late.message, "begun")
      yield* Effect.timeout(probe.exec("sleep 0.2; echo late"), 50).pipe(Effect.ignore)
      assert.strictEqual((yield* probe.exec("echo on")).stdout, "on\n")
      yield* vm.qmp.quit
      yield* vm.exit
      assert.include(["closed", "connect"], (yield* Effect.flip(probe.ready({ timeout: 200 }))).reason)
    }),
  ),
)

it.prop(
  "noise never becomes an answer, cut anywhere",
  [Schema.Array(Schema.String), Schema.Natural],
  ([noise, cut]) => {
    const text = `${noise.join("\n").replaceAll("kios-probe", "")}\nkios-probe hello id 1\n`
    const lines = new Probe.ProbeLines()
    const at = cut % (text.length + 1)
    const found = [...lines.push(text.slice(0, at)), ...lines.push(text.slice(at))]
    assert.deepStrictEqual(found, [{ verb: "hello", id: "id", rest: ["1"] }])
  },
)

it("drops a line that never ends, and reads on", () => {
  const lines = new Probe.ProbeLines()
  assert.deepStrictEqual(lines.push("x".repeat(200_000)), [])
  assert.strictEqual(lines.push("kios-probe hello a 1\nkios-probe hello b 1\n").length, 1)
})

it("has a script that the shell parses, in a pod that the kubelet can read", () => {
  assert.strictEqual(spawnSync("/bin/sh", ["-n"], { input: Probe.probeScript, encoding: "utf8" }).stderr, "")
  const pod = JSON.parse(Probe.probeManifest({ image: "localhost/busybox:1" })) as {
    spec: { hostPID: boolean; hostNetwork: boolean; containers: Array<Record<string, unknown>> }
  }
  const [container] = pod.spec.containers
  assert.isTrue(pod.spec.hostPID && pod.spec.hostNetwork)
  assert.strictEqual(container?.["imagePullPolicy"], "Never")
  assert.deepStrictEqual(container?.["command"], ["/bin/sh", "-c", Probe.probeScript])
})
