/**
 * The Kernel door's contract on the kernel that we ship: every case that
 * TestMachine passes runs as the init of a virtual machine, so that the fake
 * cannot drift from what a node has.
 */
import { assert, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { all } from "../../../packages/core/test/contract/cases.ts"
import { runInMemory } from "../../../packages/core/test/contract/memory.ts"
import { devices } from "../../src/Build.ts"
import { components } from "../../src/components/catalog.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { CacheLocation } from "../../src/components/Environment.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as Initramfs from "../../src/image/Initramfs.ts"
import * as ModuleSet from "../../src/image/ModuleSet.ts"
import * as Seal from "../../src/image/Seal.ts"
import * as VmRun from "../../src/vm/VmRun.ts"

const scratch = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-contract-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
)

const image = Effect.fnUntraced(function* (directory: string) {
  const store = yield* ComponentStore
  const catalog = yield* components("x86_64")
  const kernel = yield* store.resolve(catalog.kernel)
  const script = path.join(directory, "contract.cjs")
  yield* Seal.bundle(fileURLToPath(new URL("init.ts", import.meta.url)), script)
  const from = Effect.fnUntraced(function* (
    name: "node" | "busybox" | "koffi" | "glibc" | "gcc-libs",
    file: string,
    target = `/${file}`,
  ) {
    const source = filePath(yield* store.resolve(catalog[name]), file)
    return { _tag: "File", path: target, mode: 0o755, content: { path: source } } as const
  })
  // Where a build keeps them too: reading a whole kernel's dependencies takes seconds.
  const work = path.join((yield* CacheLocation).root, "modules", kernel.key)
  fs.mkdirSync(work, { recursive: true })
  const modules = yield* ModuleSet.entries({
    root: kernel.directory,
    release: kernel.attributes["release"] ?? "",
    modules: ["overlay", "erofs", "br_netfilter", "vxlan", "softdog"],
    work,
  })
  const initrd = path.join(directory, "initrd")
  yield* Initramfs.write(
    [
      ...devices,
      { _tag: "Directory", path: "/tmp", mode: 0o755 },
      { _tag: "File", path: "/contract.cjs", mode: 0o644, content: { path: script } },
      yield* from("node", "bin/node"),
      yield* from("busybox", "bin/busybox"),
      ...["sh", "sleep", "seq"].map(
        (name) => ({ _tag: "Symlink", path: `/bin/${name}`, target: "busybox" }) as const,
      ),
      yield* from("koffi", "lib/koffi.node", "/lib/kios/koffi.node"),
      yield* from("glibc", "lib64/ld-linux-x86-64.so.2"),
      ...(yield* Effect.forEach(["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"], (name) =>
        from("glibc", `lib/${name}`),
      )),
      ...(yield* Effect.forEach(["libstdc++.so.6", "libgcc_s.so.1"], (name) =>
        from("gcc-libs", `lib/${name}`),
      )),
      ...modules,
    ],
    { output: initrd, compression: "none" },
  )
  return { initrd, kernel: filePath(kernel, "boot/vmlinuz") }
})

/** What a case came to: `ok`, or why it failed. */
type Outcomes = ReadonlyMap<string, string>

const inVm = Effect.gen(function* () {
  const { initrd, kernel } = yield* image(yield* scratch)
  const machine = yield* VmRun.boot({
    efi: kernel,
    boot: "direct",
    initrd,
    // Node is the init and the script its argument. Unlike a node's, this kernel takes modules that nobody signed:
    // what it says of a damaged one is the loader's word and not the signature's.
    cmdline:
      "console=ttyS0 loglevel=6 printk.devkmsg=on panic=-1 rootfstype=ramfs rdinit=/bin/node -- /contract.cjs",
    memoryMiB: 768,
    noReboot: true,
  })
  const verdict = yield* machine.until({ milestones: ["contract-done"] }, { timeout: "5 minutes" })
  assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
  assert.strictEqual((yield* machine.vm.exit).shutdownReason, "guest-shutdown")
  const events = machine.events()
  const outcomes: Outcomes = new Map(
    events.flatMap((event) => {
      const line = event._tag === "KiosMessage" ? event.message : ""
      const [, name, outcome] = /^case (.*?) (ok|failed reason=.*)$/u.exec(line) ?? []
      return name === undefined || outcome === undefined ? [] : [[name, outcome] as const]
    }),
  )
  const done = events.find((event) => event._tag === "Milestone" && event.name === "contract-done")
  return { outcomes, done }
}).pipe(Effect.scoped, Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)))

const inMemory: Effect.Effect<Outcomes> = Effect.map(
  Effect.forEach(all, (one) =>
    Effect.map(
      Effect.exit(runInMemory(one)),
      (exit) => [one.name, Exit.isSuccess(exit) ? "ok" : Cause.pretty(exit.cause)] as const,
    ),
  ),
  (outcomes) => new Map(outcomes),
)

it.live("every case of the contract holds on the shipped kernel as it does on TestMachine", () =>
  Effect.gen(function* () {
    const { done, outcomes } = yield* inVm
    const names = all.map((one) => one.name)
    const expected = names.map((name) => `${name}: ok`)
    assert.deepStrictEqual(
      [...(yield* inMemory)].map(([name, outcome]) => `${name}: ${outcome}`),
      expected,
    )
    assert.deepStrictEqual(
      [...outcomes].map(([name, outcome]) => `${name}: ${outcome}`),
      expected,
    )
    assert.deepInclude(done, { fields: { passed: String(names.length), failed: "0" } })
  }),
)
