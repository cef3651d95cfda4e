/**
 * Images that lie as archives on the data partition: imported by the first
 * boot, found by the second, and a broken one is told and harms nobody.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import { filePath } from "../../src/components/Resolved.ts"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as OciArchive from "../../src/image/OciArchive.ts"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { busybox, leanEfi, staticPod, temporaryDirectory, unhardened } from "./support.ts"

const AGENT = "registry.example/site/agent:1"

/** Writes an image that is in no EFI. */
const writeImage = Effect.fnUntraced(
  function* (name: string, file: string) {
    const store = yield* ComponentStore
    const source = filePath(yield* store.resolve((yield* components("x86_64")).busybox), "bin/busybox")
    return yield* OciArchive.build(
      [
        {
          name,
          architecture: "amd64",
          // A layer of its own, or one that is damaged would be replaced by the other's.
          files: [
            { path: "bin/busybox", mode: 0o755, source },
            { path: "name", mode: 0o644, source: { bytes: Buffer.from(name) } },
          ],
          config: { entrypoint: ["/bin/busybox", "sleep", "100000"] },
        },
      ],
      file,
    )
  },
  Effect.provide(Layer.mergeAll(ComponentStore.live, CommandRunner.layer)),
)

const GOAL = {
  milestones: ["boot-complete", "images-ready", "data-images-ready"],
  pods: ["default/agent", "default/hello", "default/kios-probe"],
}

/** Boots until all pods run; gives what the milestones said of the images. */
const boot = Effect.fnUntraced(function* (disk: string) {
  const machine = yield* VmRun.boot({
    efi: yield* leanEfi,
    boot: "kernel",
    cmdline: unhardened,
    memoryMiB: 1536,
    ports: [Probe.defaultProbePort],
    disks: [{ path: disk, format: "raw" }],
    noReboot: true,
  })
  const verdict = yield* machine.until(GOAL, { timeout: "15 minutes" })
  assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
  const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready()
  const said = yield* probe.exec(
    "dmesg | grep -E 'milestone|skipped'; grep -E 'VmHWM|VmRSS' /proc/1/status; for p in /proc/[0-9]*; do " +
      '[ "$(readlink $p/exe)" = /bin/containerd ] && grep -E "VmHWM|VmRSS" $p/status; done; true',
  )
  yield* probe.exec("(sleep 1; kill -TERM 1) >/dev/null 2>&1 &", { timeout: "1 minute" })
  const exit = yield* Effect.timeout(machine.vm.exit, "3 minutes")
  assert.deepStrictEqual([exit.code, exit.shutdownReason], [0, "guest-shutdown"])
  // The figures of docs/images.md.
  if (process.env["KIOS_TEST_VERBOSE"] !== undefined) console.log(said.stdout)
  return said.stdout
}, Effect.scoped)

it.live(
  "archives of the data partition: imported once, a broken one by name, and nothing by the second boot",
  () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const archive = path.join(directory, "agent.tar")
      yield* writeImage(AGENT, archive)
      const other = path.join(directory, "other.tar")
      yield* writeImage("registry.example/site/other:1", other)
      const whole = fs.readFileSync(other)
      const flipped = Buffer.from(whole)
      // In the layer, which comes last.
      const at = whole.length - 500_000
      flipped.writeUInt8(whole.readUInt8(at) ^ 1, at)
      const image = path.join(directory, "data.img")
      const pod = staticPod("default", "agent", { image: AGENT })
      const probe = Probe.probeManifest({ image: busybox })
      yield* DiskImage.write({
        output: image,
        data: {
          sizeMiB: 384,
          files: [
            { path: "meta/etc/kubernetes/manifests/agent.json", bytes: Buffer.from(pod) },
            { path: "meta/etc/kubernetes/manifests/kios-probe.json", bytes: Buffer.from(probe) },
            { path: "data/images/agent.tar", sourcePath: archive },
            { path: "data/images/cut.tar", bytes: whole.subarray(0, 500_000) },
            { path: "data/images/flipped.tar", bytes: flipped },
          ],
        },
      })
      const first = yield* boot(image)
      assert.match(first, /milestone images-ready count=(\d+) imported=\1\b/u)
      assert.match(first, /milestone data-images-ready count=1 imported=1\b/u)
      assert.match(first, /image archive cut\.tar was skipped: .*(?:short read|unexpected EOF)/u)
      assert.match(first, /image archive flipped\.tar was skipped: .*it is damaged: layer sha256:/u)
      const second = yield* boot(image)
      assert.match(second, /milestone images-ready count=\d+ imported=0\b/u)
      assert.match(second, /milestone data-images-ready count=1 imported=0\b/u)
    }).pipe(Effect.scoped),
  { timeout: 2_400_000 },
)
