import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import type { PortableExecutableError } from "../../src/image/ImageError.ts"
import * as PortableExecutable from "../../src/image/PortableExecutable.ts"
import * as Uki from "../../src/image/Uki.ts"
import { checksumOf, makeKernel, makePe } from "./pe.ts"
import { failure, noise, scratch } from "./support.ts"

const texts = { cmdline: "console=ttyS0 panic=1", osRelease: "ID=kios\nNAME=kiOS\n", uname: "6.12.0" }

/** Files for a build; `change` replaces some. */
const inputs = (
  dir: string,
  change: { stub?: Buffer; kernel?: Buffer; initrd?: Buffer } = {},
): Uki.BuildOptions => {
  const put = (name: string, bytes: Buffer): string => {
    fs.writeFileSync(path.join(dir, name), bytes)
    return path.join(dir, name)
  }
  return {
    output: path.join(dir, "out", "kios.efi"),
    stub: put("stub", change.stub ?? makePe()),
    kernel: put("vmlinuz", change.kernel ?? makeKernel(300_001)),
    initrd: put("initrd", change.initrd ?? noise(2_500_003)),
    ...texts,
  }
}

describe("Uki", () => {
  it.live("holds the stub, byte by byte, and the sections where the headers say", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir)
      const built = yield* Uki.build(options)
      const file = fs.readFileSync(options.output)
      const stub = fs.readFileSync(options.stub)
      assert.strictEqual(built.bytes, file.length)
      assert.strictEqual(built.sha256, crypto.createHash("sha256").update(file).digest("hex"))
      assert.isTrue(file.subarray(1536, stub.length).equals(stub.subarray(1536)))
      assert.deepStrictEqual(
        built.sections.map((s) => s.name),
        [".text", ".sbat", ".sdmagic", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"],
      )
      const content = (name: string) => {
        const s = built.sections.find((s) => s.name === name)!
        return file.subarray(s.offset, s.offset + s.size)
      }
      assert.isTrue(content(".initrd").equals(fs.readFileSync(options.initrd)))
      assert.isTrue(content(".linux").equals(fs.readFileSync(options.kernel)))
      assert.strictEqual(content(".cmdline").toString(), texts.cmdline)
      let [end, address] = [0, 0]
      for (const s of built.sections) {
        assert.strictEqual(s.offset % 512, 0)
        assert.strictEqual(s.fileSize % 512, 0)
        assert.strictEqual(s.virtualAddress % 4096, 0)
        assert.isAtLeast(s.offset, end)
        assert.isAtLeast(s.virtualAddress, address)
        end = s.offset + s.fileSize
        address = s.virtualAddress + s.size
      }
      assert.strictEqual(end, file.length)
    }),
  )

  it.live("an addon is the stub with a command line and no kernel", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const { output, stub } = inputs(dir)
      const built = yield* Uki.buildAddon({ output, stub, cmdline: "datapart.grow" })
      assert.deepStrictEqual(
        built.sections.map((s) => s.name),
        [".text", ".sbat", ".sdmagic", ".cmdline"],
      )
      const info = yield* PortableExecutable.inspect(output)
      assert.deepInclude(info, { machine: "x64", signed: false, checksumValid: true })
      const section = built.sections.at(-1)!
      const at = fs.readFileSync(output).subarray(section.offset, section.offset + section.size)
      assert.strictEqual(at.toString(), "datapart.grow")
      const empty = yield* failure(Uki.buildAddon({ output, stub, cmdline: "" }))
      assert.include(empty.message, ".cmdline is empty")
      fs.writeFileSync(stub, noise(5000))
      const none = yield* failure(Uki.buildAddon({ output, stub, cmdline: "a" }))
      assert.strictEqual(none._tag, "PortableExecutableError")
    }),
  )

  it.live("inspect: texts, image size, a checksum that follows the definition", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir)
      yield* Uki.build(options)
      const file = fs.readFileSync(options.output)
      const info = yield* Uki.inspect(options.output)
      assert.deepInclude(info, { ...texts, machine: "x64", signed: false, checksumValid: true })
      assert.strictEqual(info.imageBase, 0x14df90000n)
      assert.strictEqual(info.checksum, checksumOf(file))
      const last = info.sections.at(-1)!
      assert.strictEqual(info.sizeOfImage, Math.ceil((last.virtualAddress + last.size) / 4096) * 4096)
      file[file.length - 1]! ^= 1
      fs.writeFileSync(options.output, file)
      assert.isFalse((yield* Uki.inspect(options.output)).checksumValid)
    }),
  )

  it.live("same inputs, same bytes", () =>
    Effect.gen(function* () {
      const sums = []
      for (const dir of [yield* scratch, yield* scratch]) sums.push((yield* Uki.build(inputs(dir))).sha256)
      assert.strictEqual(sums[0], sums[1])
    }),
  )

  it.live("extract gives a section back without its padding", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir)
      yield* Uki.build(options)
      yield* Uki.extract(options.output, ".initrd", path.join(dir, "back"))
      assert.isTrue(fs.readFileSync(path.join(dir, "back")).equals(fs.readFileSync(options.initrd)))
      const error = yield* failure(Uki.extract(options.output, ".nothere", path.join(dir, "x")))
      assert.strictEqual(error._tag === "PortableExecutableError" && error.reason, "MissingSection")
    }),
  )

  it.live("sections of a stub that is aligned to 512 still begin at 4096", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const built = yield* Uki.build(inputs(dir, { stub: makePe({ sectionAlignment: 512 }) }))
      for (const s of built.sections.slice(3)) assert.strictEqual(s.virtualAddress % 4096, 0, s.name)
    }),
  )

  it.live("arm64: stub and kernel of that machine", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir, { stub: makePe({ machine: 0xaa64 }), kernel: makeKernel(1000, 0xaa64) })
      yield* Uki.build(options)
      assert.strictEqual((yield* Uki.inspect(options.output)).machine, "arm64")
    }),
  )

  const noEfiStub = makeKernel(1000)
  noEfiStub.write("\xea\x05", 0, "latin1")
  const inUse = makePe()
  inUse[0x80 + 24 + 240 + 3 * 40 + 5] = 1
  const refused: ReadonlyArray<
    readonly [string, Parameters<typeof inputs>[1], PortableExecutableError["reason"], string]
  > = [
    ["a stub that is no PE", { stub: noise(5000) }, "NotPortableExecutable", "stub: not an EFI program"],
    ["an empty stub", { stub: Buffer.alloc(0) }, "NotPortableExecutable", "stub: not an EFI program"],
    ["a stub cut short", { stub: makePe().subarray(0, 1800) }, "NotPortableExecutable", "cut short"],
    [
      "a PE32 stub header cut short",
      { stub: makePe().subarray(0, 200) },
      "NotPortableExecutable",
      "PE header",
    ],
    [
      "a program that is not the stub",
      { stub: makePe({ sections: [[".text", noise(9)]] }) },
      "NotAnEfiStub",
      "stub",
    ],
    ["a stub that is no EFI application", { stub: makePe({ subsystem: 3 }) }, "NotAnEfiStub", "stub"],
    ["a signed stub", { stub: makePe({ certificate: true }) }, "Signed", "sign after"],
    ["a stub of a third machine", { stub: makePe({ machine: 0x1c2 }) }, "WrongMachine", "0x1c2"],
    ["a stub without room", { stub: makePe({ headerBytes: 560 }) }, "NoHeaderRoom", "5 more section headers"],
    ["a stub whose room is in use", { stub: inUse }, "NoHeaderRoom", "not empty"],
    ["a kernel that is none", { kernel: makePe() }, "NotALinuxKernel", "HdrS"],
    ["a kernel without EFI stub", { kernel: noEfiStub }, "NoEfiStubInKernel", "CONFIG_EFI_STUB"],
    ["a kernel of another machine", { kernel: makeKernel(1000, 0xaa64) }, "WrongMachine", "arm64"],
    ["an empty initrd", { initrd: Buffer.alloc(0) }, "InvalidSection", "initrd is empty"],
  ]
  for (const [name, change, reason, detail] of refused) {
    it.live(`refuses ${name}`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const error = yield* failure(Uki.build(inputs(dir, change)))
        assert.strictEqual(error._tag === "PortableExecutableError" && error.reason, reason, error.message)
        assert.include(error.message, detail)
        assert.isFalse(fs.existsSync(path.join(dir, "out")))
      }),
    )
  }

  it.live("refuses a UKI as stub, bad texts and files that are not there", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir)
      yield* Uki.build(options)
      const again = yield* failure(
        Uki.build({ ...options, stub: options.output, output: path.join(dir, "2") }),
      )
      assert.include(again.message, "UKI already")
      for (const cmdline of ["", "a\nb", "a\0b"]) {
        const error = yield* failure(Uki.build({ ...options, cmdline }))
        assert.strictEqual(error._tag === "PortableExecutableError" && error.reason, "InvalidSection")
      }
      const absent = yield* failure(Uki.build({ ...options, initrd: path.join(dir, "absent") }))
      assert.strictEqual(absent._tag, "ImageFileError")
      assert.include(absent.message, "absent: no such file")
      const bare = yield* failure(Uki.inspect(options.stub))
      assert.strictEqual(bare._tag === "PortableExecutableError" && bare.reason, "MissingSection")
    }),
  )

  it.live("4 GiB do not fit, and it says so before it writes", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const options = inputs(dir)
      fs.truncateSync(options.initrd, 2 ** 32 - 8192)
      const error = yield* failure(Uki.build(options))
      assert.strictEqual(error._tag === "PortableExecutableError" && error.reason, "TooLarge")
      const odd = [{ name: "linux", content: { bytes: noise(1) } }]
      const name = yield* failure(PortableExecutable.addSections(options.stub, odd, options.output))
      assert.include(name.message, `"linux" is not a dot`)
    }),
  )
})
