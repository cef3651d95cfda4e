// A stage that listens, on a machine in memory, with a way down that the test drives.
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Peer } from "@kios/core/Kernel"
import { make } from "@kios/core/internal/ShutdownCoordinator"
import { Shutdown, type ShutdownRequest } from "@kios/core/Shutdown"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import type * as Stage from "@kios/core/Stage"
import * as TestMachine from "@kios/core/testing/TestMachine"

const before = Layer.mergeAll(
  Layer.succeed(EphemeralFilesystems, { mounted: [] }),
  Layer.succeed(PseudoFilesystems, { mounted: [] }),
)

// What runs, runs: a fiber of init's at a time, each until it waits.
export const settle = Effect.repeat(TestClock.adjust(0), { times: 20 })

/** The stage, up, and what its layer gave. */
export const up = <I, E>(
  layer: Layer.Layer<I, E, Stage.Platform | EphemeralFilesystems | PseudoFilesystems>,
  path: string,
) =>
  Effect.gen(function* () {
    const machine = TestMachine.make({ files: { "/run/": "" } })
    yield* machine.kernel.makeDirectory("/proc")
    yield* machine.kernel.mount({ source: "proc", target: "/proc", fstype: "proc", flags: [] })
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const platform = yield* Layer.build(TestMachine.platform(machine))
    const { drive, shutdown } = yield* Effect.provideContext(make, platform)
    const rebooted = yield* Deferred.make<void>()
    const reboot = () => Effect.asVoid(Deferred.succeed(rebooted, undefined))
    yield* Effect.forkScoped(Effect.provideContext(drive({ reboot }), platform), { startImmediately: true })
    const requests: Array<ShutdownRequest> = []
    const counted = Layer.succeed(Shutdown, {
      ...shutdown,
      request: (request) =>
        Effect.andThen(
          Effect.sync(() => requests.push(request)),
          shutdown.request(request),
        ),
    })
    const services = yield* Layer.build(
      Layer.provideMerge(
        layer,
        Layer.mergeAll(before, Layer.provideMerge(counted, Layer.succeedContext(platform))),
      ),
    ).pipe(Scope.provide(scope))
    return {
      machine,
      scope,
      services,
      requests,
      /** Over when what comes first, when the machine is asked to go down, is. */
      steps: Effect.forkChild(Deferred.await(rebooted), { startImmediately: true }),
      goDown: Effect.gen(function* () {
        yield* shutdown.request({ action: "POWER_OFF", by: "a test" })
        return yield* Effect.forkChild(Deferred.await(rebooted), { startImmediately: true })
      }),
      client: (peer?: Partial<Peer>) => machine.connect(path, peer),
    }
  })

export const isOver = (fiber: Fiber.Fiber<unknown>): boolean => fiber.pollUnsafe() !== undefined
