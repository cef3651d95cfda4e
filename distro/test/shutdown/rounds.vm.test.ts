/** One disk that is booted and shut down again and again: it is clean each time. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { soaking } from "../../../packages/core/test/support/Scale.ts"
import * as Machine from "./Machine.ts"
import { assertClean } from "./Partition.ts"

// A round is a boot under emulation: they are for the soak. npm test has the two of shutdown.vm.test.ts.
const ROUNDS = 50

/**
 * Every fifth round waits until the pods run, and one of them has a hook to finish. The others leave as soon as the
 * boot is complete, while pods are being started: that takes half the time and is the harder moment.
 */
const waitsForPods = (round: number) => round % 5 === 0

it.live.runIf(soaking)(
  `${ROUNDS} rounds of boot and shutdown leave the disk clean each time`,
  () =>
    Effect.gen(function* () {
      const disk = yield* Machine.disk({ hooked: Machine.hookedPod("hooked", 1) })
      const node = yield* Machine.boot(disk)
      const { qmp } = node.machine.vm
      const times: Array<number> = []
      for (let round = 1; round < ROUNDS; round++) {
        // The first boot waited for its pods, too.
        const withPods = waitsForPods(round - 1)
        yield* withPods ? node.ask(Machine.signal("INT")) : qmp.sendKey(["ctrl", "alt", "delete"])
        const took = yield* node.left("restart")
        times.push(took)
        // The firmware does not write; so that nobody else does while we look.
        yield* qmp.stop
        assertClean(disk, disk.directory)
        yield* qmp.cont
        yield* node.up(waitsForPods(round) ? "pods" : "boot-complete")
        console.log(
          `round ${round} of ${ROUNDS}: down in ${took.toFixed(1)} s${withPods ? " with its pods" : ""}, the disk is clean, up again`,
        )
      }
      yield* qmp.systemPowerdown
      const { read, took } = yield* node.poweredOff()
      times.push(took)
      // A pod that did not run had no hook; one that began was given its time.
      const hooks = read(`${Machine.FOUND}/hooked`)
      assert.match(hooks, /^(?:begun\ndone\n)+$/)
      assert.isAtLeast(hooks.length / "begun\ndone\n".length, ROUNDS / 5)
      console.log(
        `shutdown rounds: ${ROUNDS}, clean every time; ${Math.min(...times).toFixed(1)} to ${Math.max(...times).toFixed(1)} s each`,
      )
    }).pipe(Effect.scoped),
  600 * 60_000,
)
