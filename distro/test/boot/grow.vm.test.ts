/**
 * A data partition whose disk was enlarged: grown by `datapart.grow` while the
 * node uses it, left as it is by the next boot, and found by the backup of its
 * partition table when the primary is lost.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { busybox, leanEfi, temporaryDirectory, unhardened } from "./support.ts"

const MIB = 2 ** 20
const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }
const run = (program: string, args: ReadonlyArray<string>) =>
  execFileSync(program, args, { env: environment, encoding: "utf8", stdio: "pipe", maxBuffer: 1 << 28 })

/** Bytes that no other file has, the same in each run. */
const content = (index: number): Buffer => {
  const bytes = Buffer.alloc(index * index * 997)
  for (let at = 0; at < bytes.length; at += 32)
    createHash("sha256").update(`${index} ${at}`).digest().copy(bytes, at)
  return bytes
}
const files = Array.from({ length: 40 }, (_, index) => ({
  path: `keep/${index % 4}/file-${index}`,
  bytes: content(index),
}))

/** The sectors of both partition tables, with the protective MBR. */
const tables = (image: string): Buffer => {
  const file = fs.openSync(image, "r")
  const { size } = fs.fstatSync(file)
  const both = Buffer.alloc(34 * 512 + 33 * 512)
  fs.readSync(file, both, 0, 34 * 512, 0)
  fs.readSync(file, both, 34 * 512, 33 * 512, size - 33 * 512)
  fs.closeSync(file)
  return both
}

/** The filesystem's size, as its superblock has it, in bytes. */
const filesystemBytes = (image: string, offset: number): number => {
  const superblock = Buffer.alloc(1024)
  const file = fs.openSync(image, "r")
  fs.readSync(file, superblock, 0, 1024, offset + 1024)
  fs.closeSync(file)
  return superblock.readUInt32LE(4) * 1024 * 2 ** superblock.readUInt32LE(24)
}

const boot = Effect.fnUntraced(function* (image: string, cmdline: string) {
  return yield* VmRun.boot({
    efi: yield* leanEfi,
    boot: "kernel",
    memoryMiB: 1536,
    // What is told at level info, too.
    cmdline: `${unhardened} loglevel=7 ${cmdline}`,
    ports: [Probe.defaultProbePort],
    disks: [{ path: image, format: "raw" }],
    noReboot: true,
  })
})

const up = Effect.fnUntraced(function* (machine: VmRun.Machine, goal: Parameters<VmRun.Machine["until"]>[0]) {
  const verdict = yield* machine.until(goal, { timeout: "6 minutes" })
  assert.isTrue(verdict.reached, `${verdict.reason}\n${verdict.tail.join("\n")}`)
})

const lines = (machine: VmRun.Machine) => machine.vm.console.tail().map(({ message }) => message)

it.live(
  "a disk of 1 GiB that is 4 GiB now: everything grows, every file is kept, and the next boot changes nothing",
  () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const image = path.join(directory, "data.img")
      const made = yield* DiskImage.write({
        output: image,
        data: {
          sizeMiB: 1022,
          files: [
            ...files,
            {
              path: "meta/etc/kubernetes/manifests/kios-probe.json",
              bytes: Buffer.from(Probe.probeManifest({ image: busybox })),
            },
          ],
        },
      })
      assert.strictEqual(made.bytes, 1024 * MIB)
      const start = made.partitions[0]?.start ?? 0
      fs.truncateSync(image, 4096 * MIB)

      yield* Effect.scoped(
        Effect.gen(function* () {
          const machine = yield* boot(image, "datapart.grow")
          yield* up(machine, { milestones: ["boot-complete"], pods: ["default/kios-probe"] })
          const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
          yield* probe.ready()
          const seen = yield* probe.exec(
            "dmesg | grep -o '/dev/vda1.*grown.*'; df -k /host/run/kios/data | tail -n 1; sha256sum /host/run/kios/data/keep/*/*",
            { timeout: "2 minutes" },
          )
          assert.strictEqual(seen.exitCode, 0, seen.stderr)
          const [partition, filesystem, df = "", ...sums] = seen.stdout.trim().split("\n")
          assert.strictEqual(partition, "/dev/vda1 has grown to 4094 MiB, the end of /dev/vda")
          assert.match(filesystem ?? "", /^\/dev\/vda1 has grown from 1022 MiB to 4094 MiB$/u)
          assert.isAbove(Number(df.trim().split(/\s+/u)[1]), 3900 * 1024, df)
          assert.sameMembers(
            sums.map((line) => line.replace("/host/run/kios/data/", "")),
            files.map(({ bytes, path: at }) => `${createHash("sha256").update(bytes).digest("hex")}  ${at}`),
          )
          yield* probe.exec("(sleep 1; kill -TERM 1) >/dev/null 2>&1 &", { timeout: "1 minute" })
          const exit = yield* Effect.timeout(machine.vm.exit, "2 minutes")
          assert.deepStrictEqual([exit.code, exit.shutdownReason], [0, "guest-shutdown"])
        }),
      )

      // The host's own tools agree.
      assert.match(run("sfdisk", ["--verify", image]), /No errors detected/u)
      const { partitions } = yield* DiskImage.inspect(image)
      assert.deepStrictEqual(
        partitions.map(({ size, start: at, uuid }) => ({ size, at, uuid })),
        [{ size: 4094 * MIB, at: start, uuid: made.partitions[0]?.uuid ?? "" }],
      )
      const filesystem = path.join(directory, "filesystem")
      run("dd", [
        `if=${image}`,
        `of=${filesystem}`,
        "bs=1M",
        `skip=${start / MIB}`,
        `count=${4094}`,
        "conv=sparse",
        "status=none",
      ])
      assert.notInclude(run("e2fsck", ["-fn", filesystem]), "Fix?")
      const dumped = path.join(directory, "dumped")
      fs.mkdirSync(dumped)
      run("debugfs", ["-R", `rdump /keep ${dumped}`, filesystem])
      fs.rmSync(filesystem)
      for (const { bytes, path: at } of files)
        assert.isTrue(fs.readFileSync(path.join(dumped, at)).equals(bytes), at)
      assert.strictEqual(filesystemBytes(image, start), 4094 * MIB)

      const before = tables(image)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const machine = yield* boot(image, "datapart.grow")
          yield* up(machine, { milestones: ["containerd-ready"] })
          assert.include(lines(machine).join("\n"), "/dev/vda1 is as large as its disk allows: 4094 MiB")
          assert.notMatch(lines(machine).join("\n"), /has grown/u)
        }),
      )
      assert.isTrue(tables(image).equals(before), "the partition tables were written")
      assert.strictEqual(filesystemBytes(image, start), 4094 * MIB)

      // The kernel does not look at a backup table by itself.
      const file = fs.openSync(image, "r+")
      fs.writeSync(file, Buffer.alloc(33 * 512), 0, 33 * 512, 512)
      fs.closeSync(file)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const machine = yield* boot(image, "")
          yield* up(machine, { milestones: ["containerd-ready"] })
          const told = lines(machine).join("\n")
          assert.include(told, "/dev/vda: using the backup partition table: no GPT signature")
          assert.include(told, "/dev/vda1: given to the kernel, which did not have it")
          assert.notInclude(told, "this node lives in RAM")
        }),
      )
    }),
)
