/**
 * What outlives a reboot, and a power cut at any moment. A disk of `kios image`
 * is booted as it is; the writes of a node that works are recorded, and replayed
 * up to random points, where the power is taken to have gone.
 *
 * KIOS_POWER_CUTS  how many cut points (default 20; two states of each are looked at)
 * KIOS_POWER_SEED  chooses them; the one of a run is printed
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Probe from "../../src/vm/Probe.ts"
import { DATA_TYPE } from "../../src/image/DiskImage.ts"
import { busybox, leanEfi, unhardened } from "../boot/support.ts"
import * as Node from "./Node.ts"
import { Partition, random } from "./PowerCut.ts"
import * as Replay from "./Replay.ts"
import { behindTheFirst } from "./Sandboxes.ts"
import * as Workload from "./Workload.ts"
import * as WriteLog from "./WriteLog.ts"

const numberOf = (name: string, standard: number) => {
  const text = process.env[name] ?? ""
  return text === "" ? standard : Number(text)
}
const cuts = numberOf("KIOS_POWER_CUTS", 20)
const seed = numberOf("KIOS_POWER_SEED", Date.now() % 1_000_000)

// So much is synced, and after so many transactions a pod is stopped and another one started.
const TRANSACTIONS = 30
const CHURN_EVERY = 10
// KubeletConfig's fileCheckFrequency: what the kubelet does not find when it starts, it finds then.
const FILE_CHECK_SECONDS = 20

const manifests = "/host/etc/kubernetes/manifests"
const writeManifest = (name: string) =>
  `cat > ${manifests}/${name}.json <<'end'\n${Node.sleepingPod(name)}\nend\n`

let directory = ""
let kept: string | undefined
beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-power-"))
})
afterAll(() => {
  if (kept === undefined) fs.rmSync(directory, { recursive: true, force: true })
})

const at = (name: string) => path.join(directory, name)
const run = (program: string, ...args: ReadonlyArray<string>) =>
  execFileSync(program, [...args], { encoding: "utf8", stdio: "pipe" })

let partition: { readonly start: number; readonly size: number } | undefined
let recording: Replay.Recording | undefined
const earlier = <A>(value: A | undefined): A => {
  if (value === undefined) return assert.fail("a test before this one failed")
  return value
}

describe("a disk of kios image", () => {
  it.live("boots as qcow2 by firmware and with nothing else; a pod writes a manifest, and reboots", () =>
    Effect.gen(function* () {
      fs.writeFileSync(at("kios-probe.json"), Probe.probeManifest({ image: busybox }))
      const sizes = ["--size", "512M", "--esp-size", "264M"]
      const words = ["--cmdline", `kios.hostname=on-disk ${unhardened}`, "--efi", yield* leanEfi]
      const manifest = ["--manifest", at("kios-probe.json")]
      const image = Node.image(["-o", at("disk.qcow2"), ...sizes, ...words, ...manifest])
      partition = image.partitions.find(({ type }) => type === DATA_TYPE)
      const { machine, shell } = yield* Node.boot(directory, { path: at("disk.qcow2"), format: "qcow2" }, [
        "default/hello",
      ])
      // The words of --cmdline, which lie beside the EFI on the ESP.
      assert.strictEqual(yield* shell("cat /proc/sys/kernel/hostname"), "on-disk\n")
      yield* shell(writeManifest("kept"))
      const verdict = yield* machine.until({ pods: ["default/kept"] }, { timeout: "3 minutes" })
      assert.isTrue(verdict.reached, verdict.reason)
      yield* shell("(sleep 1; kill -INT 1) >/dev/null 2>&1 &")
      const exit = yield* Effect.timeout(machine.vm.exit, "3 minutes")
      assert.deepStrictEqual([exit.code, exit.shutdownReason], [0, "guest-reset"])
    }).pipe(Effect.scoped),
  )

  it.live("boots as raw after that: the pod of the manifest runs at once. Then its power is cut", () =>
    Effect.gen(function* () {
      const { size, start } = earlier(partition)
      run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", at("disk.qcow2"), at("base.img"))
      run("cp", "--sparse=always", at("base.img"), at("disk.img"))
      const { machine, shell } = yield* Node.boot(
        directory,
        { path: at("disk.img"), format: "raw", writeLog: at("log") },
        ["default/hello", "default/kept"],
      )
      const log = yield* shell("grep RunPodSandbox /host/run/kios/log/containerd.log")
      assert.isBelow(
        behindTheFirst(log, "kept"),
        FILE_CHECK_SECONDS,
        `not with the image's own pods:\n${log}`,
      )
      yield* shell(Workload.prepare)
      const logBytes = [0]
      const checksums = [""]
      const started = Effect.fnUntraced(function* (number: number) {
        const verdict = yield* machine.until({ pods: [`default/churn-${number}`] }, { timeout: "3 minutes" })
        assert.isTrue(verdict.reached, verdict.reason)
      })
      for (let number = 1; number <= TRANSACTIONS; number++) {
        // Pods start and stop meanwhile: the runtime's and the kubelet's own writes.
        if (number % CHURN_EVERY === 1) {
          const before = number - CHURN_EVERY
          if (before > 0) {
            yield* started(before)
            yield* shell(`rm ${manifests}/churn-${before}.json`)
          }
          yield* shell(writeManifest(`churn-${number}`))
        }
        checksums[number] = (yield* shell(Workload.transaction(number))).trim()
        logBytes[number] = fs.statSync(at("log")).size
      }
      recording = { base: at("base.img"), log: at("log"), start, size, logBytes, checksums }
      if (machine.vm.exited() === undefined) process.kill(machine.vm.pid, "SIGKILL")
      yield* Effect.timeout(machine.vm.exit, "1 minute")
    }).pipe(Effect.scoped),
  )

  it.live(
    `mounts after a power cut at each of ${cuts} points, and has all that was synced (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const { entries, flushes, verdicts } = yield* Replay.replay(earlier(recording), { cuts, seed })
        const wrong = verdicts.filter(({ violations }) => violations.length > 0)
        if (wrong.length > 0) kept = directory
        assert.deepStrictEqual(wrong, [], `seed ${seed}; the recording is kept in ${directory}`)
        assert.strictEqual(verdicts.length, 2 * cuts)
        // The log is that of a disk with a cache, and cuts fell where something was at stake.
        assert.isAbove(flushes, TRANSACTIONS)
        assert.isAbove(Math.max(...verdicts.map(({ synced }) => synced)), 0)
        console.log(
          `power cuts: ${verdicts.length} states of ${cuts} cut points in ${entries} entries (${flushes} flushes), seed ${seed}: ${wrong.length} with a loss`,
        )
      }),
  )

  it.live("boots from what a power cut left of it, with its pods and with all that was synced", () =>
    Effect.gen(function* () {
      const recorded = earlier(recording)
      const entries = WriteLog.read(recorded.log)
      const count = Math.ceil(entries.length * 0.9)
      const synced = Replay.syncedAt(recorded, entries, count)
      const log = yield* Effect.acquireRelease(
        Effect.sync(() => fs.openSync(recorded.log, "r")),
        (handle) => Effect.sync(() => fs.closeSync(handle)),
      )
      run("cp", "--sparse=always", recorded.base, at("cut.img"))
      const disk = fs.openSync(at("cut.img"), "r+")
      new Partition(Replay.content(recorded), recorded.start, entries, log).at(
        count,
        "any",
        random(seed),
        (bytes) => fs.writeSync(disk, bytes, 0, bytes.length, recorded.start),
      )
      fs.closeSync(disk)
      const { shell } = yield* Node.boot(directory, { path: at("cut.img"), format: "raw" }, [
        "default/hello",
        "default/kept",
      ])
      const found = Workload.parse((yield* shell(Workload.report("/host/run/kios/data"))).split("\n"))
      assert.isAbove(synced, 0)
      assert.deepStrictEqual(Workload.violations(found, synced, recorded.checksums), [], `seed ${seed}`)
    }).pipe(Effect.scoped),
  )
})
