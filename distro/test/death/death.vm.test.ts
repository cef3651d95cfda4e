/**
 * Each death of init on the kernel that we ship, under UEFI: what the console
 * shows, that the machine starts again, and what the next boot says of it. One
 * machine goes through all of them, a boot each; docs/death-of-init.md is the
 * table of what this test asserts.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import * as path from "node:path"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as EmulatorFault from "../../src/vm/EmulatorFault.ts"
import * as Qemu from "../../src/vm/Qemu.ts"
import { temporaryDirectory } from "../boot/support.ts"
import { type Fatal, fatal, survived } from "./faults.ts"
import { image } from "./image.ts"

// What the machine needs is a tenth of this; it is shared with other tests.
const DEADLINE = "12 minutes"

interface BootText {
  /** The console's lines, without the kernel's times. */
  readonly lines: ReadonlyArray<string>
}

/** Every boot of the machine, in order: the first one survives, each of the others but the last dies. */
class Boots extends Context.Service<
  Boots,
  { readonly boots: ReadonlyArray<BootText>; readonly exit: Qemu.QemuExit }
>()("kios/test/Boots") {}

/** Such a boot is none of the guest's: `EmulatorFault` has started the machine again. */
const brokenByEmulator = (lines: ReadonlyArray<string>): boolean =>
  lines.some(EmulatorFault.isFault) &&
  !lines.some((line) => /^kios: milestone (?:boot-complete|fault) ?/u.test(line))

const BootsLive = Layer.effect(
  Boots,
  Effect.gen(function* () {
    const directory = yield* temporaryDirectory
    const efi = yield* image(directory)
    const data = path.join(directory, "data.img")
    yield* DiskImage.write({ output: data, data: { sizeMiB: 64 } })
    const vm = yield* Qemu.start({
      efi,
      boot: "kernel",
      memoryMiB: 768,
      // Long enough for an init that is busy, on a host that is busy too.
      cmdline: "panic=1 kios.watchdog=30",
      disks: [{ path: data, format: "raw" }],
      extraArgs: ["-device", "i6300esb", "-action", "watchdog=reset"],
    })
    const boots: Array<{ lines: Array<string> }> = []
    yield* vm.console.lines.pipe(
      Stream.takeUntil((line) => line.message.startsWith("reboot: Power down")),
      Stream.runForEach((line) =>
        Effect.sync(() => {
          if (line.message.startsWith("Linux version ")) {
            if (brokenByEmulator(boots.at(-1)?.lines ?? [])) boots.pop()
            boots.push({ lines: [] })
          }
          boots.at(-1)?.lines.push(line.message)
        }),
      ),
      Effect.timeoutOrElse({
        duration: DEADLINE,
        orElse: () =>
          Effect.die(
            new Error(
              `not done within ${DEADLINE}: ${boots.length} boots; the last one's end:\n${boots.at(-1)?.lines.slice(-40).join("\n")}`,
            ),
          ),
      }),
    )
    return { boots, exit: yield* vm.exit }
  }),
)

/** The boot that went through `name`, from that moment on, and the whole of the one after it. */
const around = (name: string) =>
  Effect.gen(function* () {
    const { boots } = yield* Boots
    const mark = `kios: milestone fault name=${name}`
    const index = boots.findIndex(({ lines }) => lines.includes(mark))
    assert.isAtLeast(index, 0, `${name} did not happen`)
    const lines = boots[index]?.lines ?? []
    return { console: lines.slice(lines.indexOf(mark) + 1), next: boots[index + 1]?.lines ?? [] }
  })

const has = (lines: ReadonlyArray<string>, pattern: RegExp): void =>
  assert.isTrue(
    lines.some((line) => pattern.test(line)),
    `nothing like ${pattern} in:\n${lines.join("\n")}`,
  )
const hasNot = (lines: ReadonlyArray<string>, pattern: RegExp): void =>
  assert.deepStrictEqual(
    lines.filter((line) => pattern.test(line)),
    [],
  )

/** What the console shows, and what the next boot says, of each death. */
const deaths: Record<Fatal, { readonly console: ReadonlyArray<RegExp>; readonly next: RegExp }> = {
  exit: {
    console: [
      /^kios: error init: exits with code 7: the kernel panics, and panic= decides$/u,
      /^Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700$/u,
      /^Rebooting in 1 seconds/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: init exited with code 7$/u,
  },
  "heap-exhaustion": {
    console: [
      /FATAL ERROR: .*heap out of memory/u,
      /^Kernel panic - not syncing: Attempted to kill init! exitcode=0x/u,
      /^Rebooting in 1 seconds/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: init was killed by SIG\w+ \(FATAL ERROR: .*heap out of memory\)$/u,
  },
  "segmentation-fault": {
    console: [
      /\[1\]: segfault at 8 ip /u,
      /^Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b$/u,
      /^Rebooting in 1 seconds/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: init was killed by SIGSEGV \(segfault at 8 .* in libc\.so\.6.*\)$/u,
  },
  abort: {
    console: [
      /^-+ Native stack trace -+$/u,
      /^Kernel panic - not syncing: Attempted to kill init! exitcode=0x/u,
      /^Rebooting in 1 seconds/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: init was killed by SIG\w+ \(it aborted; its log has the stack\)$/u,
  },
  "boot-failure": {
    console: [
      /^kios: stage failing failed ms=\S+ criticality=required reason="the disk of this test is on fire"$/u,
      /^kios: boot-failed stage=failing reason="the disk of this test is on fire"$/u,
      /^kios: error boot failed: rebooting in 1 s \(panic=1\)$/u,
      /^reboot: Restarting system$/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: boot failed: stage=failing reason="the disk of this test is on fire"$/u,
  },
  "blocked-loop": {
    // Nobody is there to say anything: the hardware resets the machine.
    console: [],
    next: /^kios: warn watchdog: the previous boot ended: init hung, and the watchdog \(i6300ESB timer\) reset the machine$/u,
  },
  "blocked-loop-soft": {
    console: [
      /^softdog: Initiating panic$/u,
      /^Kernel panic - not syncing: Software Watchdog Timer expired$/u,
      /^Rebooting in 1 seconds/u,
    ],
    next: /^kios: warn previous-boot: the previous boot ended: kernel panic: Software Watchdog Timer expired$/u,
  },
}

layer(BootsLive, { excludeTestServices: true, timeout: "15 minutes" })("init dies", (it) => {
  it.effect("an exception, a rejection, a defect and an empty loop are told, and init goes on", () =>
    Effect.gen(function* () {
      const { console: lines } = yield* around(survived[0])
      has(lines, /^kios: error init: uncaught exception, going on: Error: thrown in a callback \|/u)
      has(lines, /^kios: error init: unhandled rejection, going on: Error: rejected in a callback \|/u)
      has(lines, /^kios: error init: defect in a fiber, going on: Error: died in a fiber \|/u)
      has(lines, /^kios: error init: empty event loop, going on: init had nothing left to wait for$/u)
      for (const name of survived.slice(1)) assert.include(lines, `kios: milestone fault name=${name}`)
      // It still hears a request to stop, and goes down in order.
      has(lines, /^kios: shutting down action=RESTART by=SIGINT$/u)
      hasNot(lines, /Kernel panic/u)
      hasNot(lines, /^kios: error shutdown/u)
      has(lines, /^reboot: Restarting system$/u)
    }),
  )
  it.effect("the next boot says what init went on after", () =>
    Effect.gen(function* () {
      const { next } = yield* around(survived[0])
      has(
        next,
        /^kios: warn previous-boot: the previous boot ended: init went on after 4 faults: uncaught exception: thrown in a callback; unhandled rejection: rejected in a callback; defect in a fiber: died in a fiber; empty event loop: init had nothing left to wait for$/u,
      )
    }),
  )
  for (const name of fatal) {
    it.effect(`${name}: the console tells it, the machine starts again, and the next boot says why`, () =>
      Effect.gen(function* () {
        const { console: lines, next } = yield* around(name)
        for (const pattern of deaths[name].console) has(lines, pattern)
        has(next, /^kios: milestone boot-complete$|^kios: milestone fault name=boot-failure$/u)
        has(next, deaths[name].next)
        // One end is told of each boot: what was told is not kept for a second time.
        assert.strictEqual(next.filter((line) => line.includes("the previous boot ended")).length, 1)
        has(next, /^kios: milestone previous-boot ended=/u)
      }),
    )
  }
  it.effect("the console tells nothing of a hung init, which the watchdog ends", () =>
    Effect.gen(function* () {
      const { console: lines } = yield* around("blocked-loop")
      hasNot(lines, /^kios: |^reboot: |Kernel panic/u)
    }),
  )
  it.effect("every boot but the last ended by itself, and the last by a request", () =>
    Effect.gen(function* () {
      const { boots, exit } = yield* Boots
      assert.strictEqual(boots.length, 1 + fatal.length + 1)
      const last = boots.at(-1)?.lines ?? []
      has(last, /^kios: milestone faults-done$/u)
      has(last, /^kios: shutting down action=POWER_OFF by=SIGTERM$/u)
      assert.strictEqual(exit.shutdownReason, "guest-shutdown")
    }),
  )
})
