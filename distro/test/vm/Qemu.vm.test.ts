/**
 * QEMU, console, milestones and probe against a real kernel with a BusyBox
 * guest made here, both of them components of the reference distro.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"

const [kernel, busybox] = await Effect.runPromise(
  Effect.gen(function* () {
    const store = yield* ComponentStore
    const catalog = yield* components("x86_64")
    return [
      filePath(yield* store.resolve(catalog.kernel), "boot/vmlinuz"),
      filePath(yield* store.resolve(catalog.busybox), "bin/busybox"),
    ] as const
  }).pipe(Effect.provide(ComponentStore.live)),
)

const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo "kios: milestone init" >/dev/kmsg
sh /probe.sh &
echo "kios: milestone pod-running pod=default/hello" >/dev/kmsg
while :; do sleep 1000; done
`

const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])

/** A cpio archive in the format "newc": Documentation/driver-api/early-userspace/buffer-format.rst. */
const archive = (entries: ReadonlyArray<readonly [name: string, mode: number, data?: Buffer]>): Buffer => {
  const all = [...entries, ["TRAILER!!!", 0] as const]
  return Buffer.concat(
    all.flatMap(([name, mode, data = Buffer.alloc(0)], index) => {
      const fields = [index + 1, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length + 1, 0]
      const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`
      return [pad(Buffer.from(`${header}${name}\0`)), pad(data)]
    }),
  )
}

const guest = (ballast = 0) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-guest-"))
      const initrd = path.join(directory, "initrd")
      const folders = ["bin", "dev", "proc", "sys", "tmp"].map((name) => [name, 0o40755] as const)
      const entries = [
        ...folders,
        // first: an archive that breaks off after /init would still boot
        ["ballast", 0o100644, Buffer.alloc(ballast, 1)] as const,
        ["init", 0o100755, Buffer.from(init)] as const,
        ["probe.sh", 0o100644, Buffer.from(Probe.probeScript)] as const,
        ["bin/busybox", 0o100755, fs.readFileSync(busybox)] as const,
      ]
      fs.writeFileSync(initrd, archive(entries))
      return { directory, initrd }
    }),
    ({ directory }) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
  )

const machine = { efi: kernel, boot: "direct", cmdline: "console=ttyS0 panic=-1" } as const

it.live("boots, reports, runs scripts, powers off", () =>
  Effect.gen(function* () {
    const { initrd } = yield* guest()
    const booted = yield* VmRun.boot({
      ...machine,
      initrd,
      memoryMiB: 384,
      ports: ["x", "kios-probe"],
      noReboot: true,
    })
    const verdict = yield* booted.until(
      { milestones: ["init"], pods: ["default/hello"] },
      { timeout: "3 minutes" },
    )
    assert.isTrue(verdict.reached, verdict.reason)
    assert.isAbove(verdict.timeline.initSeconds ?? 0, 0)

    const probe = yield* Probe.make({ path: booted.vm.ports["kios-probe"] ?? "" })
    yield* probe.ready()
    assert.deepStrictEqual(yield* probe.exec("echo out; echo 'é' >&2; exit 3"), {
      exitCode: 3,
      stdout: "out\n",
      stderr: "é\n",
      truncated: false,
    })
    const many = yield* probe.exec("yes | head -c 2000000", { timeout: "60 seconds" })
    assert.deepStrictEqual([many.stdout.length, many.truncated], [1 << 20, true])
    const long = yield* probe.exec(`: ${"x".repeat(60_000)}\necho long`)
    assert.strictEqual(long.stdout, "long\n")
    const late = yield* Effect.flip(probe.exec("sleep 600 & sleep 500", { timeout: "2 seconds" }))
    assert.strictEqual(late.reason, "guest-timeout")
    assert.strictEqual((yield* probe.exec("ps | grep -c '[s]leep [56]00'")).stdout, "0\n")

    yield* probe.exec("(sleep 1; echo o >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    const off = yield* booted.until({ milestones: ["never"] }, { timeout: "1 minute" })
    assert.include(off.reason, "powered itself off")
    assert.strictEqual((yield* booted.vm.exit).shutdownReason, "guest-shutdown")
  }),
)

it.live("says that memory is short", () =>
  Effect.gen(function* () {
    const { initrd } = yield* guest(120 * 2 ** 20)
    const verdict = yield* VmRun.run({
      ...machine,
      initrd,
      memoryMiB: 224,
      until: { milestones: ["init"] },
      timeout: "3 minutes",
    })
    assert.isFalse(verdict.reached)
    assert.include(verdict.reason, "give the virtual machine more memory than 224 MiB")
  }),
)
