// What tells the next boot why this one ended, and what ends one that hangs.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PersistentStore } from "@kios/core/capabilities/PersistentStore"
import { PreviousBoot } from "@kios/core/capabilities/PreviousBoot"
import { WatchdogTimer } from "@kios/core/capabilities/WatchdogTimer"
import * as TestMachine from "@kios/core/testing/TestMachine"
import * as Store from "@kios/stages-runtime/PersistentStore"
import * as Previous from "@kios/stages-runtime/PreviousBoot"
import * as Watchdog from "@kios/stages-runtime/Watchdog"
import { earlier, outcome, up, withProc } from "./support.ts"

const log = (text: string, reason = "Panic") => ({ at: 0, reason, text, files: [] })

describe("a log that was kept", () => {
  const name = (seconds: number, part: number, count = 1) =>
    `dmesg-efi_pstore-${(BigInt(seconds) * 100n + BigInt(part)) * 1000n + BigInt(count)}`

  it("is put together from its parts, whose last lines are part 1, also over the turn of a second", () => {
    const logs = Store.join(
      new Map([
        [name(1_780_000_001, 3), "Panic#1 Part3\n<6>[    1.0] first\n"],
        [name(1_780_000_000, 1), "Panic#1 Part1\n<0>[    3.0] last"],
        [name(1_780_000_000, 2), "Panic#1 Part2\n<6>[    2.0] middle\n"],
      ]),
    )
    assert.deepStrictEqual(logs, [
      {
        at: 1_780_000_000_000,
        reason: "Panic",
        text: "<6>[    1.0] first\n<6>[    2.0] middle\n<0>[    3.0] last\n",
        files: [name(1_780_000_001, 3), name(1_780_000_000, 2), name(1_780_000_000, 1)]
          .toReversed()
          .map((file) => `/sys/fs/pstore/${file}`),
      },
    ])
  })

  it("is one of several, the oldest first, whatever the order of their files", () => {
    const logs = Store.join(
      new Map([
        [name(1_780_000_900, 2), "Shutdown#1 Part2\n<6>[    8.0] c\n"],
        [name(1_780_000_000, 1), "Oops#1 Part1\n<6>[    3.0] a\n"],
        [name(1_780_000_900, 1), "Shutdown#1 Part1\n<6>[    9.0] d\n"],
        [name(1_780_000_000, 1, 2), "Panic#2 Part1\n<6>[    4.0] b\n"],
        [name(1_780_000_950, 1), "Shutdown#1 Part1\n<6>[    7.0] e\n"],
      ]),
    )
    assert.deepStrictEqual(
      logs.map(({ reason, text }) => `${reason}: ${text.trimEnd().split("\n").join("|")}`),
      [
        "Oops: <6>[    3.0] a",
        "Panic: <6>[    4.0] b",
        "Shutdown: <6>[    8.0] c|<6>[    9.0] d",
        "Shutdown: <6>[    7.0] e",
      ],
    )
  })

  it("of an oops is not mixed with that of the panic which followed in the same second", () => {
    const logs = Store.join(
      new Map(
        [1, 2].flatMap((part) => [
          [name(1_780_000_000, part), `Oops#1 Part${part}\n<6>[    3.0] oops ${part}\n`] as const,
          [name(1_780_000_000, part, 2), `Panic#2 Part${part}\n<6>[    4.0] panic ${part}\n`] as const,
        ]),
      ),
    )
    assert.deepStrictEqual(
      logs.map(({ text }) => text),
      ["<6>[    3.0] oops 2\n<6>[    3.0] oops 1\n", "<6>[    4.0] panic 2\n<6>[    4.0] panic 1\n"],
    )
  })

  it("is none when the files are something else, or damaged", () => {
    assert.deepStrictEqual(
      Store.join(
        new Map([
          ["console-ramoops-0", "some text"],
          [name(1_780_000_000, 1), "no head"],
          [`${name(1_780_000_000, 2)}.enc.z`, "\u0000\u0001"],
        ]),
      ),
      [],
    )
  })
})

describe("why it ended", () => {
  const panic = (status: string, ...before: ReadonlyArray<string>) =>
    log(
      [
        ...before,
        `<0>[    5.123456] Kernel panic - not syncing: Attempted to kill init! exitcode=0x${status}`,
        "<4>[    5.2] CPU: 0 PID: 1",
      ].join("\n"),
    )
  const cases: ReadonlyArray<readonly [string, ReturnType<typeof log>]> = [
    ["init exited with code 7", panic("00000700")],
    ["init was killed by SIGSEGV", panic("0000000b")],
    ["init was killed by SIGKILL", panic("00000009")],
    // With a core dump.
    ["init was killed by SIGABRT", panic("00000086")],
    [
      "init was killed by SIGSEGV",
      panic(
        "0000000b",
        "<4>[    3.5] kios: warn previous-boot: the previous boot ended: init was killed by SIGSEGV (FATAL ERROR: Reached heap limit)",
      ),
    ],
    [
      "init was killed by SIGSEGV (segfault at 8 ip 00007f in libc.so.6[1655d9,7f000+163000])",
      panic(
        "0000000b",
        "<6>[    5.1] MainThread[1]: segfault at 8 ip 00007f in libc.so.6[1655d9,7f000+163000] likely on CPU 0",
      ),
    ],
    [
      "init was killed by SIGTRAP (FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory)",
      panic(
        "00000005",
        "<12>[    5.1] FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "<12>[    5.1] ----- Native stack trace -----",
      ),
    ],
    [
      "init was killed by SIGSEGV (it aborted; its log has the stack)",
      panic("0000000b", "<12>[    5.1] ----- Native stack trace -----"),
    ],
    [
      "kernel panic: VFS: Unable to mount root fs",
      log("<0>[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ],
    [
      'boot failed: stage=etc-overlay reason="no overlay"',
      log(
        '<26>[   13.4] kios: boot-failed stage=etc-overlay reason="no overlay"\n<0>[   14.0] reboot',
        "Shutdown",
      ),
    ],
    [
      "init went on after 2 faults: a: b; c: d",
      log("<26>[   13.4] kios: error init: went on after 2 faults: a: b; c: d", "Shutdown"),
    ],
    ["oops", log("<6>[    1.0] nothing that we know", "Oops")],
    // Quoted by a later boot, it is not that boot's own end.
    [
      "shutdown",
      log(
        "<28>[    5.0] kios: warn previous-boot: Kernel panic - not syncing: kios: boot-failed stage=x",
        "Shutdown",
      ),
    ],
  ]
  for (const [cause, kept] of cases) it(cause, () => assert.strictEqual(Previous.causeOf(kept), cause))
})

/** A machine with /proc, /sys and pstore, as its stages find it. */
const machineWith = (options: TestMachine.TestMachineOptions) =>
  Effect.gen(function* () {
    const machine = yield* withProc({
      ...options,
      files: { "/sys/": "", "/dev/": "", "/run/kios/": "", "/var/log/": "", ...options.files },
    })
    for (const [fstype, target] of [
      ["sysfs", "/sys"],
      ["pstore", "/sys/fs/pstore"],
      ["devtmpfs", "/dev"],
    ] as const)
      yield* Effect.orDie(machine.kernel.mount({ source: fstype, target, fstype, flags: [] }))
    return machine
  })

const part = "dmesg-efi_pstore-178000000001001"
const died = {
  [part]:
    "Panic#1 Part1\n<0>[    5.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
}

describe("persistent-store", () => {
  it.effect("loads what keeps the log, and reads what was kept", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ modules: { efi_pstore: { pstore: died } } })
      const store = Context.get(yield* up(Store.stage, machine), PersistentStore)
      assert.strictEqual(store.backend, "efi_pstore")
      assert.strictEqual(store.logs.length, 1)
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )
  it.effect(
    "says that nothing will tell why when the image or the machine has nothing to keep a log in",
    () =>
      Effect.gen(function* () {
        const without = yield* machineWith({ modules: { overlay: {} } })
        assert.isUndefined(Context.get(yield* up(Store.stage, without), PersistentStore).backend)
        assert.match(without.kmsg.join("\n"), /module efi_pstore is not in .*nothing to keep its log in/su)
        const refused = yield* machineWith({ modules: { efi_pstore: {} } })
        refused.failOn("loadModule", "ENODEV")
        assert.strictEqual(yield* outcome(Store.stage, refused), "ENODEV")
      }),
  )
})

describe("previous-boot", () => {
  const before = (logs: PersistentStore["Service"]["logs"]) =>
    Layer.mergeAll(
      earlier(),
      Layer.succeed(PersistentStore, { backend: "efi_pstore", logs }),
      Layer.succeed(DataPartition, { device: "/dev/vda2" }),
      Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    )

  it.effect("tells why, keeps the log, and then removes it from the firmware's store", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ modules: { efi_pstore: { pstore: died } } })
      const { logs } = Context.get(yield* up(Store.stage, machine), PersistentStore)
      const context = yield* up(Previous.stage, machine, before(logs))
      assert.deepStrictEqual(Context.get(context, PreviousBoot).ended, ["init was killed by SIGSEGV"])
      assert.deepStrictEqual(machine.kmsg, [
        "warning warn the previous boot ended: init was killed by SIGSEGV",
        'notice milestone previous-boot ended="init was killed by SIGSEGV"',
      ])
      const kept = "/var/log/kios/previous-boot-2026-05-28T20-26-40Z.txt"
      assert.strictEqual(machine.read(kept), `${died[part]?.split("\n").slice(1).join("\n")}`)
      assert.deepStrictEqual(JSON.parse(machine.read("/run/kios/previous-boot.json")), [
        { at: "2026-05-28T20:26:40.000Z", cause: "init was killed by SIGSEGV", log: kept },
      ])
      assert.isFalse(machine.exists(`/sys/fs/pstore/${part}`))
      const lines = machine.log()
      const written = lines.findIndex((line) => line.startsWith(`write("${kept}"`))
      assert.isAbove(written, -1)
      // The copy is on the disk before the original goes.
      assert.isAbove(lines.indexOf("sync()"), written)
      assert.isAbove(lines.indexOf(`unlink("/sys/fs/pstore/${part}")`), lines.indexOf("sync()"))
    }),
  )

  it.effect("keeps the log in the store when it cannot be kept elsewhere", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ modules: { efi_pstore: { pstore: died } } })
      machine.failOn("writeFile", "ENOSPC", { path: /^\/var\/log/u })
      const { logs } = Context.get(yield* up(Store.stage, machine), PersistentStore)
      assert.strictEqual(yield* outcome(Previous.stage, machine, before(logs)), "ENOSPC")
      assert.isTrue(machine.exists(`/sys/fs/pstore/${part}`))
      assert.include(machine.kmsg, "warning warn the previous boot ended: init was killed by SIGSEGV")
    }),
  )

  it.effect("keeps eight logs, the newest", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({})
      const logs = Array.from({ length: 30 }, (_, n) => ({
        ...log("<0>[    5.1] Kernel panic - not syncing: again"),
        at: 1_780_000_000_000 + n * 1000,
      }))
      yield* up(Previous.stage, machine, before(logs.slice(0, 6)))
      yield* up(Previous.stage, machine, before(logs.slice(6)))
      const names = yield* machine.kernel.readDirectory("/var/log/kios")
      assert.strictEqual(names.length, 8)
      assert.strictEqual(names.at(-1), "previous-boot-2026-05-28T20-27-09Z.txt")
    }),
  )

  it.effect("says nothing when there is nothing to say", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({})
      assert.deepStrictEqual(
        Context.get(yield* up(Previous.stage, machine, before([])), PreviousBoot).ended,
        [],
      )
      assert.deepStrictEqual(machine.kmsg, [])
      assert.deepStrictEqual(
        machine.log().filter((line) => /kios/u.test(line)),
        [],
      )
    }),
  )
})

describe("watchdog", () => {
  const hardware = { watchdog: { identity: "of hardware" }, modules: { softdog: { watchdog: {} } } }

  it.effect("opens the hardware's, sets its timeout, and feeds it while the loop turns", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith(hardware)
      const { identity, timeout } = Context.get(yield* up(Watchdog.stage, machine), WatchdogTimer)
      assert.deepStrictEqual([identity, timeout], ["of hardware", 120])
      assert.isFalse(machine.modules.has("softdog"))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(machine.watchdog(3600), {
        running: true,
        timeout: 120,
        feeds: 301,
        fired: false,
      })
      // The loop stands still.
      assert.isFalse(machine.watchdog(3600 + 119)?.fired)
      assert.isTrue(machine.watchdog(3600 + 121)?.fired)
    }),
  )

  it.effect("is still fed when its stage is released: the way down may hang as well", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith(hardware)
      yield* Effect.scoped(up(Watchdog.stage, machine))
      yield* TestClock.adjust("1 hour")
      assert.deepInclude(machine.watchdog(3600), { running: true, fired: false })
    }),
  )

  it.effect("takes the kernel's own timer, told to panic, where the hardware has none", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ modules: { softdog: { watchdog: { identity: "softdog" } } } })
      const { identity } = Context.get(yield* up(Watchdog.stage, machine), WatchdogTimer)
      assert.strictEqual(identity, "softdog")
      assert.strictEqual(machine.modules.get("softdog"), "soft_panic=1")
    }),
  )

  it.effect("is off, or has another timeout, as the command line says", () =>
    Effect.gen(function* () {
      const off = yield* machineWith(hardware)
      const timer = Context.get(yield* up(Watchdog.stage, off, earlier("kios.watchdog=off")), WatchdogTimer)
      assert.isUndefined(timer.identity)
      assert.isFalse(off.watchdog(0)?.running)
      const short = yield* machineWith(hardware)
      yield* up(Watchdog.stage, short, earlier("kios.watchdog=5"))
      assert.strictEqual(short.watchdog(0)?.timeout, 5)
      yield* TestClock.adjust("1 minute")
      assert.isFalse(short.watchdog(60)?.fired)
    }),
  )

  it.effect("takes a shorter timeout from hardware that counts no further, and says so", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ watchdog: { longestTimeout: 39 } })
      const { timeout } = Context.get(yield* up(Watchdog.stage, machine), WatchdogTimer)
      assert.strictEqual(timeout, 30)
      assert.match(machine.kmsg.join("\n"), /WDIOC_SETTIMEOUT.*EINVAL.*30 s instead/u)
    }),
  )

  it.effect("disarms what it cannot set: nobody would feed it", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith(hardware)
      machine.failOn("setWatchdogTimeout", "EOPNOTSUPP")
      assert.strictEqual(yield* outcome(Watchdog.stage, machine), "EOPNOTSUPP")
      assert.isFalse(machine.watchdog(0)?.running)
    }),
  )

  it.effect("goes on feeding after a meal that failed", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith(hardware)
      machine.failOn("feedWatchdog", "EIO", { times: 3 })
      yield* up(Watchdog.stage, machine)
      yield* TestClock.adjust("10 minutes")
      assert.isFalse(machine.watchdog(600)?.fired)
      assert.match(machine.kmsg[0] ?? "", /^warning warn feeding the watchdog: ioctl.*EIO/u)
    }),
  )

  it.effect("says that it reset the machine", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ watchdog: { identity: "a timer", resetThisMachine: true } })
      yield* up(Watchdog.stage, machine)
      const ended = "init hung, and the watchdog (a timer) reset the machine"
      assert.deepStrictEqual(machine.kmsg, [
        `warning warn the previous boot ended: ${ended}`,
        `notice milestone previous-boot ended="${ended}"`,
      ])
    }),
  )

  it.effect("is an optional stage: a machine without any goes on", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({ modules: { overlay: {} } })
      assert.strictEqual(yield* outcome(Watchdog.stage, machine), "ENOENT")
      assert.strictEqual(Watchdog.stage.criticality, "optional")
    }),
  )
})
