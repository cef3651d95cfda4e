/** Boots of the real EFI that differ from the usual one: from a disk, with little memory, with a stage that fails. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { efi } from "./support.ts"

it.live("boots as EFI/BOOT/BOOTX64.EFI, in RAM, and names what is wrong on its command line", () =>
  Effect.gen(function* () {
    const machine = yield* VmRun.boot({
      efi: yield* efi,
      boot: "disk",
      makeEspDisk: ({ disk, efi: file }) => DiskImage.write({ output: disk, esp: { efi: file } }),
      memoryMiB: 1536,
      cmdline: "kios.log=chatty kios.nosuch=1",
      noReboot: true,
    })
    const verdict = yield* machine.until(
      { milestones: ["boot-complete"], pods: ["default/hello"] },
      { timeout: "6 minutes" },
    )
    assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
    const warnings = verdict.events.flatMap((event) => (event._tag === "KiosWarning" ? [event.message] : []))
    const about = (text: string) => warnings.filter((message) => message.includes(text))
    assert.strictEqual(about("kios.log=chatty").length, 1, warnings.join("\n"))
    assert.match(about("kios.log=chatty")[0] ?? "", /debug.*info.*warn.*error/)
    assert.strictEqual(about("kios.nosuch=1").length, 1, warnings.join("\n"))
    assert.include(about("kios.nosuch=1")[0], "no such key")
    assert.strictEqual(about("no data partition").length, 1, warnings.join("\n"))
    assert.isFalse(
      machine.vm.console.tail(10_000).some(({ text }) => text.includes("Initramfs unpacking failed")),
      "the kernel found fault with the initramfs",
    )
    // The ESP's disk is there and is not taken for a data partition.
    assert.isFalse(verdict.events.some((event) => event._tag === "KiosError" || event._tag === "StageFailed"))
  }),
)

it.live("ends at once and in one sentence when there is too little memory", () =>
  Effect.gen(function* () {
    const verdict = yield* VmRun.run({
      efi: yield* efi,
      boot: "kernel",
      // Less than the unpacked image takes.
      memoryMiB: 256,
      until: { milestones: ["boot-complete"] },
      timeout: "5 minutes",
    })
    assert.isFalse(verdict.reached)
    assert.match(
      verdict.reason ?? "",
      /^[^\n]*give the virtual machine more memory than 256 MiB, e\.g\. \d+ MiB$/,
    )
    assert.isBelow(verdict.seconds, 120, "it waited for its timeout")
  }),
)

it.live(
  "a required stage that fails is named with its reason, and the machine reboots after panic= seconds",
  () =>
    Effect.gen(function* () {
      const machine = yield* VmRun.boot({
        efi: yield* efi,
        boot: "kernel",
        memoryMiB: 1536,
        // Without overlayfs there is no /etc.
        cmdline: "panic=3 module_blacklist=overlay",
        noReboot: true,
      })
      const verdict = yield* machine.until({ milestones: ["boot-complete"] }, { timeout: "4 minutes" })
      assert.isFalse(verdict.reached)
      assert.match(
        verdict.reason ?? "",
        /^stage etc-overlay failed and init gave up the boot: mount\("\/etc".*fstype=overlay.*ENODEV \(/,
      )
      const exit = yield* Effect.timeout(machine.vm.exit, "2 minutes")
      assert.strictEqual(exit.shutdownReason, "guest-reset")
      const events = machine.events()
      const told = events.find((event) => event._tag === "BootFailed")
      const stopped = events.find((event) => event._tag === "SystemStopping")
      assert.strictEqual(told?.stage, "etc-overlay")
      assert.strictEqual(stopped?.action, "restart")
      const waited = (stopped?.kernelSeconds ?? 0) - (told?.kernelSeconds ?? 0)
      assert.isAbove(waited, 2.9)
      assert.isBelow(waited, 60)
      assert.isTrue(
        events.some(
          (event) => event._tag === "KiosError" && event.message.includes("rebooting in 3 s (panic=3)"),
        ),
      )
    }),
)
