import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, inTurn, prints, type Program } from "@kios/core/testing/TestPrograms"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { Etc } from "@kios/core/capabilities/Etc"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Images } from "@kios/core/capabilities/Images"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"
import { Shutdown } from "@kios/core/Shutdown"
import type { Supervised } from "@kios/core/Supervisor"
import * as Kubelet from "@kios/stages-kubelet/Kubelet"
import { KubeletConfigFile } from "@kios/stages-kubelet/KubeletConfigFile"

const cgroups = {
  root: "/cg",
  controllers: [],
  init: "/cg/init",
  runtime: "/cg/runtime",
  kubelet: "/cg/kubelet",
  memoryMin: { init: 0, runtime: 0, kubelet: 0 },
}
const runtime = (awaitUp: Effect.Effect<void>) =>
  Layer.succeed(ContainerRuntime, {
    endpoint: "unix:///run/x.sock",
    process: { awaitUp: () => awaitUp } as Partial<Supervised> as Supervised,
  })
const before = Layer.mergeAll(
  Layer.succeed(KubeletConfigFile, {
    write: () => Effect.succeed(["--config=/run/kios/kubelet/config.json"]),
  }),
  Layer.succeed(Cgroups, cgroups),
  Layer.succeed(Etc, { persistent: false }),
  Layer.succeed(Hostname, { name: "node-7" }),
  Layer.succeed(Images, { names: [] }),
  Layer.succeed(Loopback, { interface: "lo" }),
  Layer.succeed(Modules, { loaded: [] }),
  Layer.succeed(Sysctls, { missing: [] }),
)

const start = (program: Program, runtimeUp: Effect.Effect<void> = Effect.void) =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      programs: { "/bin/kubelet": program },
      files: { "/cg/": "", "/run/kios/log/": "" },
    })
    yield* machine.kernel.mount({ source: "cgroup2", target: "/cg", fstype: "cgroup2", flags: [] })
    yield* machine.kernel.makeDirectory("/cg/kubelet")
    const scope = yield* Scope.make()
    const services = yield* Scope.provide(Layer.build(TestMachine.platform(machine)), scope)
    const fiber = yield* Layer.build(Kubelet.stage.layer).pipe(
      Scope.provide(scope),
      Effect.provide(Layer.mergeAll(before, runtime(runtimeUp), Layer.succeedContext(services))),
      Effect.forkChild({ startImmediately: true }),
    )
    yield* TestClock.adjust(0)
    return { fiber, machine: { ...machine, services }, scope }
  })

describe("kubelet", () => {
  it.effect("is started with its configuration, in its group, where the OOM killer looks late", () =>
    Effect.gen(function* () {
      const { machine, scope } = yield* start(forever)
      assert.deepStrictEqual(machine.log({ only: ["spawn"] }), [
        'spawn("/bin/kubelet", "--config=/run/kios/kubelet/config.json")',
      ])
      const [kubelet] = machine.processes()
      assert.deepInclude(kubelet, { env: { PATH: "/bin" }, cgroup: "/kubelet", oomScoreAdj: -999 })
      assert.include(machine.kmsg, "notice milestone kubelet-exec")
      yield* Scope.close(scope, Exit.void)
      assert.match(machine.log({ only: ["kill"] }).join(), /^kill\(\d+, SIGTERM\)$/u)
    }),
  )

  it.effect("one that dies again and again fails the boot, with its last words", () =>
    Effect.gen(function* () {
      const { fiber, machine } = yield* start(prints(["E1122 run.go:72] no cgroup for me"], exits(1)))
      yield* TestClock.adjust("190 seconds")
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.match(
        error.message,
        /^kubelet was not up within 3m 10s: it last ended with exit code 1 after \d+ ms, saying: E1122 run\.go:72\] no cgroup for me$/u,
      )
      assert.isFalse(machine.kmsg.some((line) => line.includes("kubelet-healthy")))
    }),
  )

  for (const errno of ["ENOENT", "EACCES", "ENOMEM"])
    it.effect(`spawn: ${errno} is tried again until the time is over, and told`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make({
          files: { "/cg/kubelet/cgroup.procs": "" },
          programs: { "/bin/kubelet": forever },
        })
        machine.failOn("spawn", errno)
        const fiber = yield* Effect.scoped(Layer.build(Kubelet.stage.layer)).pipe(
          Effect.provide(Layer.mergeAll(before, runtime(Effect.void), TestMachine.platform(machine))),
          Effect.forkChild({ startImmediately: true }),
        )
        yield* TestClock.adjust("190 seconds")
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.include(error.message, `could not be started: spawn("/bin/kubelet"): ${errno}`)
        assert.isAbove(machine.log({ only: ["spawn"] }).length, 3)
      }),
    )

  it.effect("a manifest's error is told on the console, once for as long as it is the same", () =>
    Effect.gen(function* () {
      const line = (err: string) =>
        `E1122 file.go:186] "Could not process manifest file" err="${err}" path="/m/a.yaml"`
      const { machine, scope } = yield* start(
        prints([line("one"), line("one"), line("two"), "other", line("one")], forever),
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        machine.kmsg
          .filter((record) => record.includes("manifest-error"))
          .map((record) => record.replace(/^.*manifest-error /u, "")),
        ["file=/m/a.yaml reason=one", "file=/m/a.yaml reason=two", "file=/m/a.yaml reason=one"],
      )
      assert.include(machine.read("/run/kios/log/kubelet.log"), 'err="two"')
      yield* Scope.close(scope, Exit.void)
    }),
  )

  it.effect("is started again when the runtime is up, without which it would only die", () =>
    Effect.gen(function* () {
      const up = yield* Deferred.make<void>()
      const { machine, scope } = yield* start(inTurn(exits(1), forever), Deferred.await(up))
      const spawned = () => machine.log({ only: ["spawn"] }).length
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(spawned(), 1)
      yield* Deferred.succeed(up, undefined)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(spawned(), 2)
      yield* Scope.close(scope, Exit.void)
    }),
  )

  it.effect("one that dies while the machine goes down is not started again, and stops in order", () =>
    Effect.gen(function* () {
      const { fiber, machine, scope } = yield* start(exits(1, "10 seconds"))
      yield* Effect.provide(
        Shutdown.use(({ request }) => request({ action: "POWER_OFF", by: "a test" })),
        machine.services,
      )
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(machine.log({ only: ["spawn"] }), 1)
      yield* Fiber.interrupt(fiber)
      yield* Scope.close(scope, Exit.void)
    }),
  )

  it.effect("errors of manifests are remembered of some hundred files, not of all there ever were", () =>
    Effect.gen(function* () {
      const line = (n: number) =>
        `E1122 file.go:186] "Could not process manifest file" err="bad" path="/m/${n}.yaml"`
      const files = Array.from({ length: 300 }, (_, n) => n)
      const { machine, scope } = yield* start(prints([...files, 299, 0].map(line), forever))
      yield* TestClock.adjust("1 second")
      const told = machine.kmsg.filter((record) => record.includes("manifest-error"))
      // The last one is still remembered, the first one is not.
      assert.strictEqual(told.length, files.length + 1)
      assert.include(told.at(-1), "/m/0.yaml")
      yield* Scope.close(scope, Exit.void)
    }),
  )

  it.effect("one that does not listen to SIGTERM is killed at shutdown", () =>
    Effect.gen(function* () {
      const { machine, scope } = yield* start(ignoring(["SIGTERM"]))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(closing)
      assert.match(
        machine.log({ only: ["kill"] }).join(),
        /^kill\((\d+), SIGTERM\),kill\(\1, SIGCONT\),kill\(\1, SIGKILL\)$/u,
      )
      assert.deepStrictEqual(machine.processes(), [])
    }),
  )
})
