import { assert, it } from "@effect/vitest"
import { explain, type ExplainContext, type RunEnd } from "../../src/vm/Explain.ts"
import { eventsOf } from "./fixtures/events.ts"

const started = "[    0.000000] Linux version 6.12.107 (x)"
const halted: RunEnd = { _tag: "Halted" }
const why = (
  lines: ReadonlyArray<string>,
  end: RunEnd = halted,
  context: ExplainContext = { memoryMiB: 512 },
) => explain(eventsOf(...lines), end, context)

const panic = (reason: string) => why([started, `[ 1.0] Kernel panic - not syncing: ${reason}`])
const exited = (fields: object): RunEnd => ({
  _tag: "Exited",
  code: 0,
  signal: null,
  stderr: "",
  ...fields,
})

it("recognises too little memory in all its forms", () => {
  const forms = [
    [started, "[ 1.0] Initramfs unpacking failed: write error"],
    [
      started,
      "[ 1.0] Initramfs unpacking failed: write error",
      "[ 2.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    ],
    [started, "[ 1.0] Kernel panic - not syncing: System is deadlocked on memory"],
    [started, "[ 9.0] Out of memory: Killed process 80 (containerd) total-vm:1kB"],
    [
      started,
      "[ 9.0] Out of memory: Killed process 1 (init) total-vm:1kB",
      "[ 9.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
    ],
    ["EFI stub: ERROR: Failed to allocate memory for initrd"],
    ['BdsDxe: failed to load Boot0001 "x" from y: Out of Resources'],
  ]
  for (const lines of forms) {
    const text = why(lines)
    assert.include(text, "give the virtual machine more memory than 512 MiB, e.g. 1024 MiB", lines.at(-1))
  }
})

it("blames memory for the firmware's shell when the EFI is large for it, else the image", () => {
  const shell = ["UEFI Interactive Shell v2.2"]
  assert.include(
    why(shell, halted, { memoryMiB: 448, efiBytes: 164e6 }),
    "448 MiB of memory are the likely cause",
  )
  assert.include(why(shell, halted, { memoryMiB: 2048, efiBytes: 164e6 }), "/EFI/BOOT/BOOTX64.EFI")
})

it("prefers what init said to how QEMU ended", () => {
  const reset: RunEnd = { _tag: "Exited", code: 0, signal: null, stderr: "", shutdownReason: "guest-reset" }
  assert.strictEqual(
    why([started, '[ 3.0] kios: boot-failed stage=data reason="no such device"'], reset),
    "stage data failed and init gave up the boot: no such device",
  )
  assert.include(
    why([started, "[ 3.0] kios: stage a failed ms=5 reason=x"], reset, { missing: ["milestone b"] }),
    "stage a failed after 5 ms: x; still missing: milestone b",
  )
  assert.notInclude(
    why([started, "[ 3.0] kios: stage a failed ms=5 reason=x", "[ 4.0] kios: stage a up ms=9"], reset),
    "stage a",
  )
  assert.include(
    why([started, "[ 3.0] kios: manifest-error file=h.yaml reason=bad"], reset, {
      missing: ["pod default/h running"],
    }),
    "h.yaml: bad",
  )
})

it("explains panics", () => {
  assert.include(panic("Attempted to kill init! exitcode=0x00000100"), "exit code 1")
  assert.include(panic("Attempted to kill init! exitcode=0x0000000b"), "killed by signal 11")
  assert.include(panic("No working init found.  Try passing init= option"), "/init in the initramfs")
  assert.include(panic("Fatal exception"), "panicked: Fatal exception")
})

it("explains the ends of QEMU", () => {
  assert.include(
    why([started], exited({ code: 1, stderr: "no space\n" })),
    "QEMU ended with exit code 1: no space",
  )
  assert.include(why([started], exited({ code: null, signal: "SIGKILL" })), "by signal SIGKILL")
  assert.include(why([started], exited({ shutdownReason: "guest-reset" })), "triple fault")
  assert.include(why([started, "[ 5.0] reboot: Power down"], exited({})), "powered itself off")
  assert.include(why([started], { _tag: "Stopped", status: "internal-error" }), "tcg")
  assert.include(why([], { _tag: "TimedOut", seconds: 60 }), "console=ttyS0")
  assert.strictEqual(
    why([started], { _tag: "TimedOut", seconds: 60 }, { missing: ["milestone x"], lastLine: "[ 5.0] idle" }),
    'not reached within 60 s; still missing: milestone x; the last line is "[ 5.0] idle"',
  )
  assert.include(why(["Access Denied"]), "Secure Boot")
})
