/**
 * Every way in which a node is asked to go down, with a pod that takes 10
 * seconds to end well: it is given them, the data partition is clean, and the
 * machine leaves by itself. Each takes a boot or two: npm test has the power
 * button and SIGPWR here, SIGTERM in boot/node and a failed boot in boot.vm;
 * the soak has all of them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { soaking } from "../../../packages/core/test/support/Scale.ts"
import { eventually, eventuallyAssert } from "../boot/support.ts"
import * as Machine from "./Machine.ts"

// Deadlines of the steps after what the kubelet waits for: see docs/shutdown.md.
const MARGIN = 120
const HOOK_SECONDS = 10
const GRACE_SECONDS = 8
// Several boots, on a machine that is shared.
const DEADLINE = 90 * 60_000

describe.runIf(soaking)("a node that has only just booted", () => {
  it.live(
    "restarts by Ctrl-Alt-Del and powers off by its button, in order; each boot keeps how it went down",
    () =>
      Effect.gen(function* () {
        const disk = yield* Machine.disk({})
        const node = yield* Machine.boot(disk, "boot-complete")
        yield* node.machine.vm.qmp.sendKey(["ctrl", "alt", "delete"])
        const restarted = yield* node.left("restart")
        assert.include(node.said()[0], "action=RESTART by=SIGINT")
        yield* node.up()
        const milestones = node.machine
          .events()
          .flatMap((event) =>
            event._tag === "Milestone" && event.name === "previous-shutdown" ? [event.fields["how"]] : [],
          )
        assert.lengthOf(milestones, 1)
        assert.match(milestones[0] ?? "", /^RESTART asked by SIGINT, which took \d+\.\d s/)
        yield* node.machine.vm.qmp.systemPowerdown
        const { read, took } = yield* node.poweredOff()
        assert.include(node.said()[0], 'action=POWER_OFF by="power button"')
        const kept = JSON.parse(read("meta/log/kios/shutdown.json")) as {
          readonly kept: string
          readonly shutdown: {
            readonly steps: ReadonlyArray<{ readonly name: string; readonly outcome: string }>
          }
        }
        assert.strictEqual(kept.kept, "released")
        const steps = kept.shutdown.steps.map(({ name, outcome }) => `${name} ${outcome}`)
        assert.includeMembers(steps, ["before/log done", "before/inhibitors done"])
        console.log(
          `restart after ${restarted.toFixed(1)} s, power-off after ${took.toFixed(1)} s\n${node
            .said()
            .filter((line) => line.startsWith("kios: "))
            .join("\n")}`,
        )
      }).pipe(Effect.scoped),
    DEADLINE,
  )
})

describe("the power button", () => {
  it.live(
    "is pressed: the pod's hook is waited for, one that ignores SIGTERM is not, and the next boot says so",
    () =>
      Effect.gen(function* () {
        const disk = yield* Machine.disk({
          hooked: Machine.hookedPod("hooked", HOOK_SECONDS),
          stubborn: Machine.stubbornPod("stubborn", GRACE_SECONDS),
        })
        yield* Effect.gen(function* () {
          const node = yield* Machine.boot(disk)
          // The log is in RAM: what the kubelet says while it ends pods has to be taken to the disk as it says it.
          yield* node.lines(
            `tail -n +1 -F /host/run/kios/log/kubelet.log > /host/run/kios/data/${Machine.FOUND}/kubelet.log 2>/dev/null &`,
          )
          yield* node.machine.vm.qmp.systemPowerdown
          const { read, took } = yield* node.poweredOff()
          assert.include(node.said()[0], 'action=POWER_OFF by="power button"')
          assert.strictEqual(read(`${Machine.FOUND}/hooked`), "begun\ndone\n")
          assert.isBelow(took, HOOK_SECONDS + MARGIN)
          const kubelet = read(`${Machine.FOUND}/kubelet.log`)
          assert.match(kubelet, /Creating node shutdown manager/)
          assert.match(kubelet, /Shutdown manager detected new shutdown event/)
          console.log(
            `power button: down after ${took.toFixed(1)} s\n${node
              .said()
              .filter((line) => line.startsWith("kios: "))
              .join("\n")}`,
          )
        }).pipe(Effect.scoped)
        // What is kept of it.
        const again = yield* Machine.boot(disk)
        const previous = (yield* again.lines("cat /host/run/kios/boot.json")).join("\n")
        assert.match(previous, /"how": "POWER_OFF asked by power button, which took \d+\.\d s/)
        const kept = (yield* again.lines("cat /host/var/log/kios/previous-shutdown-*.json")).join("\n")
        assert.match(kept, /"name": "before\/\w+",/)
        yield* again.ask(Machine.signal("PWR"))
        const { read } = yield* again.poweredOff()
        assert.include(again.said()[0], "action=POWER_OFF by=SIGPWR")
        assert.strictEqual(read(`${Machine.FOUND}/hooked`), "begun\ndone\n".repeat(2))
      }).pipe(Effect.scoped),
    DEADLINE,
  )
})

describe.runIf(soaking)("one machine", () => {
  it.live(
    "restarts by Ctrl-Alt-Del and by SIGINT, and powers off by SIGTERM, its pods ended well each time",
    () =>
      Effect.gen(function* () {
        const disk = yield* Machine.disk({ hooked: Machine.hookedPod("hooked", HOOK_SECONDS) })
        const node = yield* Machine.boot(disk)
        yield* node.machine.vm.qmp.sendKey(["ctrl", "alt", "delete"])
        yield* node.left("restart")
        assert.include(node.said()[0], "action=RESTART by=SIGINT")
        yield* node.up()
        yield* node.ask(Machine.signal("INT"))
        yield* node.left("restart")
        yield* node.up()
        yield* node.ask(Machine.signal("TERM"))
        const { read } = yield* node.poweredOff()
        assert.strictEqual(read(`${Machine.FOUND}/hooked`), "begun\ndone\n".repeat(3))
      }).pipe(Effect.scoped),
    DEADLINE,
  )
})

describe.runIf(soaking)("a client of the original's, on the host", () => {
  it.live(
    "restarts the kubelet and the runtime, and powers off with the pods' grace",
    () =>
      Effect.gen(function* () {
        const disk = yield* Machine.disk({ hooked: Machine.hookedPod("hooked", HOOK_SECONDS) })
        const node = yield* Machine.boot(disk)
        for (const [byte, daemon] of [
          [0x03, "kubelet"],
          [0x04, "containerd"],
        ] as const) {
          const pid = node.lines(
            `for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" = /bin/${daemon} ] && echo $p; done; true`,
          )
          const before = yield* pid
          assert.lengthOf(before, 1)
          yield* node.lines(Machine.say(byte))
          yield* eventuallyAssert(`a new ${daemon}`, pid, (after) => {
            assert.lengthOf(after, 1)
            assert.notDeepEqual(after, before)
          })
        }
        yield* eventually("the kubelet's health", node.lines("wget -qO- http://127.0.0.1:10248/healthz"))
        yield* node.ask(Machine.say(0x01))
        const { read } = yield* node.poweredOff()
        assert.match(node.said()[0] ?? "", /action=POWER_OFF by="the system socket, pid=\d+"/)
        assert.strictEqual(read(`${Machine.FOUND}/hooked`), "begun\ndone\n")
      }).pipe(Effect.scoped),
    DEADLINE,
  )
})
