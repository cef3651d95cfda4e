import { assert, it } from "@effect/vitest"
import { Schema } from "effect"
import { missingOf, parseFields } from "../../src/vm/Milestones.ts"
import { eventsOf } from "./fixtures/events.ts"

const bare = (...lines: ReadonlyArray<string>) =>
  eventsOf(...lines).map(({ at: _at, kernelSeconds: _k, line: _l, ...meaning }) => meaning)
const started = "[    0.000000] Linux version 6.12.107 (x)"
const after = (...lines: ReadonlyArray<string>) =>
  bare(started, ...lines.map((line) => `[    1.500000] ${line}`)).slice(1)

it("reads key=value pairs, JSON strings too", () => {
  assert.deepStrictEqual(parseFields(' ms=12 reason="no \\"such\\" device" pod=a/b empty= x'), {
    ms: "12",
    reason: 'no "such" device',
    pod: "a/b",
    empty: "",
  })
  assert.deepStrictEqual(parseFields('__proto__=1 bad="unterminated'), {})
  assert.deepStrictEqual(parseFields(""), {})
})

it("knows init's words", () => {
  assert.deepStrictEqual(
    after(
      "kios: milestone pod-running pod=default/hello",
      "kios: stage cgroups up ms=12",
      'kios: stage containerd failed ms=30000.5 reason="no answer: timeout"',
      'kios: stage kubelet skipped reason="containerd is not up"',
      'kios: boot-failed stage=containerd reason="timeout after 30s"',
      'kios: manifest-error file=hello.yaml reason="yaml: line 3: mapping values"',
      'kios: error kubelet: manifest-error file=/m/a.yaml reason="yaml: line 4"',
      "kios: error no data partition",
      "kios: warn clock is at 1970",
      "kios: hello there",
      "kios: milestone NotKebab",
    ),
    [
      { _tag: "Milestone", name: "pod-running", fields: { pod: "default/hello" } },
      { _tag: "StageUp", stage: "cgroups", ms: 12 },
      { _tag: "StageFailed", stage: "containerd", ms: 30000.5, reason: "no answer: timeout" },
      { _tag: "StageSkipped", stage: "kubelet", reason: "containerd is not up" },
      { _tag: "BootFailed", stage: "containerd", reason: "timeout after 30s" },
      { _tag: "ManifestError", file: "hello.yaml", reason: "yaml: line 3: mapping values" },
      { _tag: "ManifestError", file: "/m/a.yaml", reason: "yaml: line 4" },
      { _tag: "KiosError", message: "no data partition" },
      { _tag: "KiosWarning", message: "clock is at 1970" },
      { _tag: "KiosMessage", message: "hello there" },
      { _tag: "KiosMessage", message: "milestone NotKebab" },
    ],
  )
})

it("knows the kernel's words", () => {
  assert.deepStrictEqual(
    after(
      "Run /init as init process",
      "Initramfs unpacking failed: write error",
      "Out of memory: Killed process 312 (kubelet) total-vm:1kB",
      "Memory cgroup out of memory: Killed process 9 (a (b)) total-vm",
      "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
      "---[ end Kernel panic - not syncing: VFS ]---",
      "BUG: kernel NULL pointer dereference, address: 0",
      "nothing of interest",
      "reboot: Power down",
    ),
    [
      { _tag: "InitStarted", path: "/init" },
      { _tag: "InitramfsFailed", reason: "write error" },
      { _tag: "OutOfMemory", pid: 312, process: "kubelet" },
      { _tag: "OutOfMemory", pid: 9, process: "a (b)" },
      { _tag: "KernelPanic", reason: "VFS: Unable to mount root fs on unknown-block(0,0)" },
      { _tag: "KernelFault", message: "BUG: kernel NULL pointer dereference, address: 0" },
      { _tag: "SystemStopping", action: "power-off" },
    ],
  )
})

it("knows the firmware's and the stub's words, as long as no kernel runs", () => {
  const errors = bare(
    'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from X: Out of Resources',
    "systemd-boot: Assertion 'BS->AllocatePages(type, memory_type, n_pages, &addr) == EFI_SUCCESS' failed at util.c:5@f, halting.",
    "../src/boot/efi/stub.c:710@run: Error starting kernel image: Load error",
    "EFI stub: ERROR: Failed to allocate memory for initrd",
    "x.c:3@f: Failed to acquire RNG data, proceeding without: Not found",
  )
  assert.deepStrictEqual(
    errors.map((event) => [event._tag, "memory" in event && event.memory]),
    [
      ["FirmwareError", true],
      ["FirmwareError", true],
      ["FirmwareError", false],
      ["FirmwareError", true],
      ["Firmware", false],
    ],
  )
  assert.deepStrictEqual(after("Failed to find module", "EFI stub: ERROR: x"), [])
  // The shell repaints itself; once is enough.
  assert.deepStrictEqual(bare("UEFI Interactive Shell v2.2", "Shell>", "Shell>").length, 1)
})

it("starts anew when the guest restarts, and takes any first kernel line", () => {
  assert.deepStrictEqual(
    bare(started, "[    9.000000] reboot: Restarting system", "BdsDxe: loading Boot0001", started).map(
      (e) => e._tag,
    ),
    ["KernelStarted", "SystemStopping", "Firmware", "KernelStarted"],
  )
  assert.deepStrictEqual(
    bare("[    2.000000] kios: milestone init").map((e) => e._tag),
    ["KernelStarted", "Milestone"],
  )
})

it("says what is missing of a goal", () => {
  const events = eventsOf(started, "[ 1.0] kios: milestone pod-running pod=default/a")
  assert.deepStrictEqual(
    missingOf({ milestones: ["pod-running", "x"], pods: ["default/a", "default/b"] }, events),
    ["milestone x", "pod default/b running"],
  )
})

it.prop("no text makes it throw", [Schema.Array(Schema.String), Schema.String], ([lines, tail]) => {
  eventsOf(
    ...lines,
    `kios: ${tail}`,
    started,
    `[ 1.0] kios: stage ${tail}`,
    `[ 1.0] kios: milestone a ${tail}`,
  )
})

it.prop("whatever init quotes comes back", [Schema.String], ([value]) => {
  const quoted = JSON.stringify(value)
  assert.strictEqual(parseFields(`a=1 reason=${quoted} b=2`)["reason"], value)
})
