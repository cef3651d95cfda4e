import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { HostTools } from "../../src/image/HostTools.ts"
import { type DiskImageError, ToolFailed } from "../../src/image/ImageError.ts"
import * as DiskImage from "../../src/image/DiskImage.ts"
import { debugfs, espFile, fsck, makeEfi, tools } from "./disks.ts"
import { failure, lacking, noise, scratch } from "./support.ts"

describe("DiskImage", () => {
  it.live.skipIf(lacking(...tools))("ESP and data partition, with what they should hold", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const efi = makeEfi(dir)
      fs.mkdirSync(path.join(dir, "with, comma @@1 ?x"))
      const output = path.join(dir, "with, comma @@1 ?x", "disk.img")
      const info = yield* DiskImage.write({
        output,
        esp: { efi, sizeMiB: 40, uuid: "01234567-89AB-CDEF-0123-456789ABCDEF", addon: efi },
        data: {
          sizeMiB: 32,
          files: [
            { path: "/meta/etc/host name", bytes: Buffer.from("node-1\n"), mode: 0o600 },
            { path: "data/oci/deep/er/x.tar", sourcePath: efi },
            { path: "unreadable", bytes: Buffer.from("x"), mode: 0 },
          ],
        },
      })
      assert.strictEqual(info.bytes, fs.statSync(output).size)
      assert.isBelow(info.allocatedBytes, info.bytes / 2)
      assert.deepStrictEqual(
        info.partitions.map((p) => [p.number, p.type, p.name, p.start, p.size]),
        [
          [1, DiskImage.ESP_TYPE, "kios-esp", 2 ** 20, 40 * 2 ** 20],
          [2, DiskImage.DATA_TYPE, "kios-data", 41 * 2 ** 20, 32 * 2 ** 20],
        ],
      )
      assert.strictEqual(info.partitions[0]!.uuid, "01234567-89ab-cdef-0123-456789abcdef")
      assert.isTrue(espFile(output, info.partitions[0]!, "EFI/BOOT/BOOTX64.EFI").equals(fs.readFileSync(efi)))
      const addon = "EFI/BOOT/BOOTX64.EFI.extra.d/kios.addon.efi"
      assert.isTrue(espFile(output, info.partitions[0]!, addon).equals(fs.readFileSync(efi)))
      const [, data] = info.partitions
      fsck(dir, output, data!)
      const stat = (at: string) => debugfs(dir, output, data!, `stat "${at}"`)
      for (const at of ["/meta/etc", "/meta/log", "/data/oci", "/data/pods", "/data/cni", "/modules"]) {
        assert.match(stat(at), /Type: directory +Mode: +0755/u, at)
      }
      assert.match(stat("/meta/etc/host name"), /Type: regular +Mode: +0600/u)
      assert.match(stat("/unreadable"), /Mode: +0000/u)
      assert.match(stat("/data/oci/deep/er/x.tar"), /User: +0 +Group: +0/u)
      assert.match(stat("/data/oci/deep/er"), /ctime: 0x00000001/u)
      assert.strictEqual(debugfs(dir, output, data!, `cat "/meta/etc/host name"`), "node-1\n")
      assert.deepStrictEqual(fs.readdirSync(path.dirname(output)), ["disk.img"])
    }),
  )

  it.live.skipIf(lacking(...tools))("same options, same bytes", () =>
    Effect.gen(function* () {
      const sums = []
      for (const [i, dir] of [yield* scratch, yield* scratch].entries()) {
        const efi = makeEfi(dir)
        fs.utimesSync(efi, 1e9 + i, 1e9 + i)
        const files = [
          { path: "b", sourcePath: efi },
          { path: "a/x", bytes: Buffer.from("x") },
        ]
        const output = path.join(dir, `disk${i}`)
        yield* DiskImage.write({
          output,
          esp: { efi, sizeMiB: 40 },
          data: { sizeMiB: 16, files: i === 0 ? files : files.toReversed() },
        })
        sums.push(yield* DiskImage.sha256(output))
      }
      assert.deepStrictEqual(sums[0], sums[1])
    }),
  )

  it.live.skipIf(lacking(...tools))("either partition may be absent", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const only = yield* DiskImage.write({
        output: path.join(dir, "data"),
        label: "seed",
        data: { sizeMiB: 16 },
      })
      assert.deepStrictEqual(
        only.partitions.map((p) => [p.number, p.name]),
        [[1, "seed-data"]],
      )
      fsck(dir, path.join(dir, "data"), only.partitions[0]!)
      const esp = yield* DiskImage.write({ output: path.join(dir, "esp"), esp: { efi: makeEfi(dir) } })
      assert.deepStrictEqual(
        esp.partitions.map((p) => [p.name, p.size / 2 ** 20]),
        [["kios-esp", 264]],
      )
      assert.notStrictEqual(only.uuid, esp.uuid)
    }),
  )

  it.live.skipIf(lacking(...tools))("sfdisk finds nothing to complain about", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const output = path.join(dir, "disk")
      yield* DiskImage.write({ output, data: { sizeMiB: 16 } })
      const env = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }
      const said = execFileSync("sfdisk", ["--verify", output], { encoding: "utf8", env })
      assert.include(said, "No errors detected")
    }),
  )

  it.live.skipIf(lacking(...tools))("inspect finds each kind of damage", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const output = path.join(dir, "disk")
      yield* DiskImage.write({ output, data: { sizeMiB: 16 } })
      const whole = fs.readFileSync(output)
      const broken = path.join(dir, "broken")
      const reasonOf = (offset: number) =>
        Effect.gen(function* () {
          const copy = Buffer.from(whole)
          copy[offset]! ^= 1
          fs.writeFileSync(broken, copy)
          const error = yield* failure(DiskImage.inspect(broken))
          return error._tag === "DiskImageError" ? error.reason : error._tag
        })
      assert.strictEqual(yield* reasonOf(512), "NotGpt")
      assert.strictEqual(yield* reasonOf(512 + 60), "CorruptGpt")
      assert.strictEqual(yield* reasonOf(1024 + 56), "CorruptGpt")
      assert.strictEqual(yield* reasonOf(whole.length - 512 + 60), "CorruptGpt")
      fs.writeFileSync(broken, whole.subarray(0, whole.length - 512))
      assert.include((yield* failure(DiskImage.inspect(broken))).message, "no GPT header at sector")
      fs.writeFileSync(broken, noise(5000))
      assert.include((yield* failure(DiskImage.inspect(broken))).message, "no GPT header at sector 1")
    }),
  )

  const data = (files: ReadonlyArray<DiskImage.DataFile>, sizeMiB = 16) => ({ data: { sizeMiB, files } })
  const x = Buffer.from("x")
  const refused: ReadonlyArray<
    readonly [string, Omit<DiskImage.WriteOptions, "output">, DiskImageError["reason"], string]
  > = [
    ["no partition at all", {}, "NoPartitions", "neither"],
    ["a size that is none", data([], 1.5), "InvalidOption", "1.5 MiB"],
    ["a size below the least", data([], 8), "InvalidOption", "from 16"],
    ["a UUID that is none", { diskUuid: "x", ...data([]) }, "InvalidOption", `"x" is not a UUID`],
    ["a label with a quote", { label: `a"`, ...data([]) }, "InvalidOption", "label"],
    ["a time of 0", { sourceDateEpoch: 0, ...data([]) }, "InvalidOption", "sourceDateEpoch"],
    [
      "a path twice",
      data([
        { path: "a", bytes: x },
        { path: "/a", bytes: x },
      ]),
      "DuplicatePath",
      "a",
    ],
    ["a file in place of /modules", data([{ path: "modules", bytes: x }]), "DuplicatePath", "modules"],
    [
      "a file below a file",
      data([
        { path: "a", bytes: x },
        { path: "a/b", bytes: x },
      ]),
      "InvalidOption",
      "a/b",
    ],
    ["a quote in a name", data([{ path: `a"b`, bytes: x }]), "InvalidOption", "quote"],
    ["a mode that is none", data([{ path: "a", bytes: x, mode: -1 }]), "InvalidOption", "mode"],
    [
      "files that do not fit",
      data([{ path: "a", bytes: Buffer.alloc(16 << 20) }]),
      "TooSmall",
      "at least 34 MiB",
    ],
  ]
  for (const [name, options, reason, detail] of refused) {
    it.live.skipIf(lacking(...tools))(`refuses ${name} and leaves nothing behind`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const error = yield* failure(DiskImage.write({ output: path.join(dir, "disk"), ...options }))
        assert.strictEqual(error._tag === "DiskImageError" && error.reason, reason, error.message)
        assert.include(error.message, detail)
        assert.deepStrictEqual(fs.readdirSync(dir), [])
      }),
    )
  }

  it.live("refuses an ESP too small for the UKI, and what is no UKI", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const efi = makeEfi(dir, 40 << 20)
      const output = path.join(dir, "disk")
      const small = yield* failure(DiskImage.write({ output, esp: { efi, sizeMiB: 36 } }))
      assert.include(small.message, "does not fit into an ESP of 36 MiB; it needs 45")
      fs.writeFileSync(efi, noise(1000))
      const none = yield* failure(DiskImage.write({ output, esp: { efi } }))
      assert.strictEqual(none._tag, "PortableExecutableError")
    }),
  )

  for (const [tool, debianPackage] of [
    ["sfdisk", "fdisk"],
    ["mcopy", "mtools"],
    ["mke2fs", "e2fsprogs"],
  ] as const) {
    it.live(`without ${tool}: one error that names the package, before any work`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const efi = makeEfi(dir)
        const output = path.join(dir, "out", "disk")
        const error = yield* failure(
          DiskImage.write({ output, esp: { efi }, data: {} }).pipe(
            Effect.provideService(HostTools, {
              has: (name) => name !== tool,
              run: () => Effect.die("unused"),
              open: () => assert.fail("unused"),
            }),
          ),
        )
        assert.include(error.message, `"${tool}"`)
        assert.include(error.message, `apt-get install -y ${debianPackage}`)
        assert.isFalse(fs.existsSync(path.dirname(output)))
      }),
    )
  }

  it.live("a program that fails is named with its arguments and what it said", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const said = new ToolFailed({ tool: "sfdisk", args: ["-q"], exit: "exit status 1", output: "no way\n" })
      const error = yield* failure(
        DiskImage.write({ output: path.join(dir, "disk"), data: {} }).pipe(
          Effect.provideService(HostTools, {
            has: () => true,
            run: () => Effect.fail(said),
            open: () => assert.fail("unused"),
          }),
        ),
      )
      assert.strictEqual(error.message, "sfdisk -q: exit status 1: no way")
      assert.deepStrictEqual(fs.readdirSync(dir), [])
    }),
  )

  it.live.skipIf(lacking("sfdisk"))("the real programs fail with their own words", () =>
    Effect.gen(function* () {
      const tools = yield* HostTools
      const error = yield* failure(tools.run({ tool: "sfdisk", args: ["--no-such-option"] }))
      assert.strictEqual(error._tag, "ToolFailed")
      assert.match(error.message, /^sfdisk --no-such-option: exit status 1: .*no-such-option/su)
    }),
  )
})
