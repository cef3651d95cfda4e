// What a node does with the processes and mounts that its stages left behind.
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Kernel, type KernelShape, type Signal } from "@kios/core/Kernel"
import { KernelError } from "@kios/core/KernelError"
import { Shutdown } from "@kios/core/Shutdown"
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

/** A way down on which nobody is in a hurry. */
const noting = (remarks: Array<string>): Shutdown["Service"] => ({
  request: () => Effect.void,
  before: () => Effect.void,
  requested: Effect.succeed(true),
  grace: (period) => Effect.interruptible(Effect.sleep(period)),
  remark: (text) => Effect.sync(() => void remarks.push(text)),
})

/** As PID 1 of the machine, where resources are released: nothing but waiting for time can be interrupted. */
const ending = (
  machine: { readonly kernel: KernelShape },
  grace: Duration.Input,
  remarks: Array<string> = [],
) =>
  Teardown.endProcesses(grace).pipe(
    Effect.provideService(Kernel, machine.kernel),
    Effect.provideService(Shutdown, noting(remarks)),
    Effect.uninterruptible,
    Effect.forkChild,
  )

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
      const fiber = yield* ending(machine, "10 seconds")
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(yield* Fiber.join(fiber), [])
      assert.deepStrictEqual(machine.signals, [[-1, "SIGTERM"]])
      assert.deepStrictEqual(machine.pids(), [2])
    }),
  )

  it.effect("SIGKILL comes after the grace; who gets it, and whom even that does not end, is told", () =>
    Effect.gen(function* () {
      const machine = crowd({
        30: { stat: stat(30, { name: "stubborn" }), survives: ["SIGTERM"] },
        40: { stat: stat(40, { state: "D" }), survives: ["SIGTERM", "SIGKILL"] },
      })
      const remarks: Array<string> = []
      const fiber = yield* ending(machine, "10 seconds", remarks)
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(machine.signals, [[-1, "SIGTERM"]])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(machine.signals, [
        [-1, "SIGTERM"],
        [-1, "SIGKILL"],
      ])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ pid: 40, name: "sleep" }])
      assert.deepStrictEqual(remarks, [
        "killing stubborn (30), sleep (40)",
        "not even SIGKILL ends sleep (40)",
      ])
    }),
  )

  it.effect("a machine with nobody left is sent no signal", () =>
    Effect.gen(function* () {
      const machine = crowd({ 2: { stat: stat(2, { flags: 0x20_8040 }) } })
      assert.deepStrictEqual(yield* Fiber.join(yield* ending(machine, "10 seconds")), [])
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
        {
          id: "41",
          parent: "29",
          device: "254:1",
          target: "/run/a b",
          fstype: "ext4",
          source: "/dev/vda1",
          options: "rw",
        },
        {
          id: "24",
          parent: "1",
          device: "0:2",
          target: "/",
          fstype: "rootfs",
          source: "rootfs",
          options: "rw",
        },
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
      yield* Effect.provide(Teardown.unmountAll, TestMachine.platform(machine))
      assert.deepStrictEqual(
        machine.log({ only: ["umount"] }).map((line) => /"([^"]+)"/.exec(line)?.[1]),
        ["/run/inner", "/run"],
      )
      assert.isUndefined(machine.mountAt("/run"))
      assert.isDefined(machine.mountAt("/proc"))
    }),
  )

  it.effect("one in memory that cannot go does not keep the others, and is nothing to tell", () =>
    Effect.gen(function* () {
      const machine = yield* mounted
      machine.failOn("umount", "EBUSY", { path: "/run/inner" })
      yield* Effect.provide(Teardown.unmountAll, TestMachine.platform(machine))
      // Detached, with what is on it.
      assert.isUndefined(machine.mountAt("/run"))
      assert.isDefined(machine.mountAt("/proc"))
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )

  /** A node whose data partition is held in every way there is; what is asked of the kernel. */
  const held = (busy: boolean) => {
    const calls: Array<string> = []
    const files: Record<string, string> = {
      "/proc/self/mountinfo": [
        "24 1 0:2 / / ro - rootfs rootfs rw",
        "41 24 254:1 / /data rw - ext4 /dev/vda1 rw",
        "50 41 0:9 / /data/inner rw - tmpfs tmpfs rw",
        "51 24 0:10 / /etc rw - overlay overlay rw,lowerdir=/etc,upperdir=/data/meta/etc,workdir=/data/work",
      ].join("\n"),
      "/proc/7/comm": "database\n",
      "/proc/7/maps": "7f00-7f01 r--p 00000000 fe:01 42   /data/db/index\n",
      "/proc/8/comm": "shim\n",
      "/proc/8/mountinfo": "90 80 254:1 / /mnt rw - ext4 /dev/vda1 rw",
    }
    const links: Record<string, string> = {
      "/proc/self/ns/mnt": "mnt:[1]",
      "/proc/7/ns/mnt": "mnt:[1]",
      "/proc/8/ns/mnt": "mnt:[2]",
      "/proc/7/cwd": "/data/db",
      "/proc/7/exe": "/datafile",
      "/proc/7/fd/3": "/data",
    }
    const directories: Record<string, ReadonlyArray<string>> = {
      "/proc": ["7", "8", "self"],
      "/proc/7/fd": ["3"],
    }
    const at =
      <A>(table: Readonly<Record<string, A>>) =>
      (path: string) =>
        Effect.suspend(() =>
          table[path] === undefined
            ? Effect.fail(new KernelError({ syscall: "open", errno: "ENOENT", path }))
            : Effect.succeed(table[path]),
        )
    const kernel = {
      monotonic: Effect.succeed(0n),
      readText: at(files),
      readLink: at(links),
      readDirectory: at(directories),
      umount: (target: string, flags: ReadonlyArray<string> = []) =>
        Effect.suspend(() => {
          if (flags.length > 0) calls.push(`${target} ${flags.join()}`)
          return busy && flags.length === 0
            ? Effect.fail(new KernelError({ syscall: "umount2", errno: "EBUSY", path: target }))
            : Effect.void
        }),
      mount: (call: { readonly target: string; readonly flags: ReadonlyArray<string> }) =>
        Effect.sync(() => void calls.push(`${call.target} ${call.flags.join("|")}`)),
    } as unknown as KernelShape
    return { kernel, calls }
  }

  it.effect("a disk that stays busy becomes read-only and is detached, and it is told who holds it", () =>
    Effect.gen(function* () {
      const { calls, kernel } = held(true)
      const remarks: Array<string> = []
      yield* Teardown.unmountAll.pipe(
        Effect.provideService(Kernel, kernel),
        Effect.provideService(Shutdown, noting(remarks)),
      )
      assert.deepStrictEqual(calls, [
        "/etc MNT_DETACH",
        "/data/inner MNT_DETACH",
        "/data MS_REMOUNT|MS_RDONLY",
        "/data MNT_DETACH",
      ])
      assert.strictEqual(
        remarks.at(-1),
        "/data is busy, held by the mount at /data/inner, the overlay at /etc, database (7) by cwd /data/db, database (7) by its map of /data/db/index, database (7) by fd 3 /data, the mount namespace of shim (8), at /mnt: making /dev/vda1 read-only",
      )
    }),
  )
})
