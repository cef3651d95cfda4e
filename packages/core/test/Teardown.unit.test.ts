// What a node does with the processes and mounts that its stages left behind.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Kernel, type KernelShape, type Signal } from "@kios/core/Kernel"
import { KernelError } from "@kios/core/KernelError"
import * as Teardown from "@kios/core/Teardown"
import * as TestMachine from "@kios/core/testing/TestMachine"

const stat = (
  pid: number,
  options: { readonly name?: string; readonly state?: string; readonly flags?: number } = {},
) =>
  `${pid} (${options.name ?? "sleep"}) ${options.state ?? "S"} 1 ${pid} ${pid} 0 -1 ${options.flags ?? 0x40_0040} 1 0 0`

/** A machine of processes only: each ends by the signals that it does not ignore. */
const crowd = (
  processes: Readonly<Record<number, { readonly stat: string; readonly survives?: ReadonlyArray<Signal> }>>,
) => {
  const alive = new Map(Object.entries(processes))
  const signals: Array<readonly [number, Signal]> = []
  const kernel = {
    readDirectory: () => Effect.sync(() => ["1", ...alive.keys(), "self", "meminfo"]),
    readText: (path: string) =>
      Effect.suspend(() => {
        const found = alive.get(path.split("/")[2] ?? "")
        return found === undefined
          ? Effect.fail(new KernelError({ syscall: "read", errno: "ENOENT", path }))
          : Effect.succeed(found.stat)
      }),
    kill: (pid: number, signal: Signal) =>
      Effect.sync(() => {
        signals.push([pid, signal])
        for (const [name, { stat: line, survives = [] }] of alive)
          if (Teardown.isLiveProcess(line) && !survives.includes(signal)) alive.delete(name)
      }),
  } as unknown as KernelShape
  return { kernel, signals, pids: () => [...alive.keys()].map(Number) }
}

describe("processes", () => {
  it("neither kernel threads nor zombies are live, whatever their names", () => {
    assert.isTrue(Teardown.isLiveProcess(stat(7)))
    assert.isTrue(Teardown.isLiveProcess(stat(7, { name: "a) Z 1 (b" })))
    assert.isFalse(Teardown.isLiveProcess(stat(7, { state: "Z" })))
    assert.isFalse(Teardown.isLiveProcess(stat(7, { name: "kthreadd", flags: 0x20_8040 })))
    assert.isFalse(Teardown.isLiveProcess(""))
  })

  it.effect("those that obey SIGTERM are not killed, and nobody is waited for longer than needed", () =>
    Effect.gen(function* () {
      const machine = crowd({ 2: { stat: stat(2, { flags: 0x20_8040 }) }, 30: { stat: stat(30) } })
      const left = yield* Effect.provideService(
        Teardown.endProcesses("10 seconds"),
        Kernel,
        machine.kernel,
      ).pipe(Effect.forkChild, Effect.tap(TestClock.adjust("50 millis")), Effect.flatMap(Fiber.join))
      assert.deepStrictEqual(left, [])
      assert.deepStrictEqual(machine.signals, [[-1, "SIGTERM"]])
      assert.deepStrictEqual(machine.pids(), [2])
    }),
  )

  it.effect("SIGKILL comes after the grace, and what even that does not end is returned", () =>
    Effect.gen(function* () {
      const machine = crowd({
        30: { stat: stat(30), survives: ["SIGTERM"] },
        40: { stat: stat(40, { state: "D" }), survives: ["SIGTERM", "SIGKILL"] },
      })
      const ending = yield* Effect.forkChild(
        Effect.provideService(Teardown.endProcesses("10 seconds"), Kernel, machine.kernel),
      )
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(machine.signals, [[-1, "SIGTERM"]])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(machine.signals, [
        [-1, "SIGTERM"],
        [-1, "SIGKILL"],
      ])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(ending), [40])
    }),
  )

  it.effect("a machine with nobody left is sent no signal", () =>
    Effect.gen(function* () {
      const machine = crowd({ 2: { stat: stat(2, { flags: 0x20_8040 }) } })
      assert.deepStrictEqual(
        yield* Effect.provideService(Teardown.endProcesses(), Kernel, machine.kernel),
        [],
      )
      assert.deepStrictEqual(machine.signals, [])
    }),
  )
})

describe("mounts", () => {
  it("mountinfo is read with its escapes, and noise is left out", () => {
    assert.deepStrictEqual(
      Teardown.parseMountinfo(
        "41 29 254:1 / /run/a\\040b rw,nosuid shared:18 - ext4 /dev/vda1 rw\nnoise\n24 1 0:2 / / ro - rootfs rootfs rw\n",
      ),
      [
        { target: "/run/a b", fstype: "ext4", source: "/dev/vda1" },
        { target: "/", fstype: "rootfs", source: "rootfs" },
      ],
    )
  })

  const mounted = Effect.gen(function* () {
    const machine = TestMachine.make({ filesystems: [...TestMachine.builtinFilesystems, "overlay"] })
    const { kernel } = machine
    for (const [fstype, target] of [
      ["proc", "/proc"],
      ["tmpfs", "/run"],
      ["tmpfs", "/run/inner"],
    ] as const) {
      yield* kernel.makeDirectory(target)
      yield* kernel.mount({ source: fstype, target, fstype, flags: [] })
    }
    return machine
  })

  it.effect("go, the last made first, and the kernel's own stay", () =>
    Effect.gen(function* () {
      const machine = yield* mounted
      yield* Effect.provide(Teardown.unmountAll, machine.layer)
      assert.deepStrictEqual(
        machine.log({ only: ["umount"] }).map((line) => /"([^"]+)"/.exec(line)?.[1]),
        ["/run/inner", "/run"],
      )
      assert.isUndefined(machine.mountAt("/run"))
      assert.isDefined(machine.mountAt("/proc"))
    }),
  )

  it.effect("one that is busy does not keep the others", () =>
    Effect.gen(function* () {
      const machine = yield* mounted
      machine.failOn("umount", "EBUSY", { path: "/run/inner" })
      yield* Effect.provide(Teardown.unmountAll, machine.layer)
      assert.isDefined(machine.mountAt("/run/inner"))
      assert.isDefined(machine.mountAt("/proc"))
    }),
  )

  it.effect("a disk that stays busy becomes read-only", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const kernel = {
        readText: () =>
          Effect.succeed("24 1 0:2 / / ro - rootfs rootfs rw\n41 24 254:1 / /data rw - ext4 /dev/vda1 rw\n"),
        umount: (target: string) =>
          Effect.suspend(() =>
            Effect.fail(new KernelError({ syscall: "umount2", errno: "EBUSY", path: target })),
          ),
        mount: (call: { readonly target: string; readonly flags: ReadonlyArray<string> }) =>
          Effect.sync(() => void calls.push(`${call.target} ${call.flags.join("|")}`)),
      } as unknown as KernelShape
      yield* Effect.provideService(Teardown.unmountAll, Kernel, kernel)
      assert.deepStrictEqual(calls, ["/data MS_REMOUNT|MS_RDONLY"])
    }),
  )
})
