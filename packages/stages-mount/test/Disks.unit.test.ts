// Reading tables off disks: made by hand, and ten thousand with fields at the edges of what they can be.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import * as Disks from "@kios/stages-mount/internal/Disks"

const TYPE = "97aac693-d920-465a-94fe-eb59fc86dfaa"
const crc32 = (bytes: Uint8Array) => process.getBuiltinModule("node:zlib").crc32(bytes)

/** A door to the disk alone, through which nothing can be read that is not there, and no more than a table may have. */
const checkedKernel = (disk: TestDisks.TestDisk): KernelShape => ({
  ...TestMachine.make().kernel,
  readAt: (path, position, length) =>
    Effect.sync(() => {
      assert.strictEqual(path, "/dev/vda")
      assert.isTrue(Number.isSafeInteger(position) && position >= 0, `position ${position}`)
      assert.isTrue(Number.isSafeInteger(length) && length >= 0 && length <= 2 ** 20, `length ${length}`)
      assert.isAtMost(position + length, disk.bytes.length, "beyond the disk")
      return Uint8Array.from(disk.bytes.subarray(position, position + length))
    }),
})
const diskOf = (disk: TestDisks.TestDisk): Disks.Disk => ({
  name: "vda",
  device: "/dev/vda",
  sectorBytes: disk.sectorBytes,
  sectors: disk.bytes.length / disk.sectorBytes,
  removable: false,
})
const read = (disk: TestDisks.TestDisk) =>
  Effect.runSync(Effect.provideService(Disks.readTable(diskOf(disk)), Kernel, checkedKernel(disk)))
const numbersOn = (disk: TestDisks.TestDisk) =>
  Result.getOrThrow(read(disk)).partitions.map(({ number }) => number)

describe("disks made by hand", () => {
  const partitions = [{ type: TYPE }, { type: TYPE, number: 7 }]
  for (const sectorBytes of [512, 4096]) {
    it(`sectors of ${sectorBytes}: by the primary table, and by the backup alone`, () => {
      const disk = TestDisks.gpt({ partitions, sectorBytes })
      assert.deepStrictEqual(numbersOn(disk), [1, 7])
      assert.isUndefined(Result.getOrThrow(read(disk)).primaryProblem)
      disk.bytes.fill(0, sectorBytes, 2 * sectorBytes)
      assert.deepStrictEqual(numbersOn(disk), [1, 7])
      assert.strictEqual(Result.getOrThrow(read(disk)).primaryProblem, "no GPT signature")
    })
    it(`sectors of ${sectorBytes}: no entries at all`, () => {
      assert.deepStrictEqual(numbersOn(TestDisks.gpt({ partitions: [], sectorBytes, entries: 0 })), [])
    })
    it(`sectors of ${sectorBytes}: none used, and more than 128`, () => {
      assert.deepStrictEqual(numbersOn(TestDisks.gpt({ partitions: [], sectorBytes })), [])
      const many = TestDisks.gpt({
        partitions: [{ type: TYPE }, { type: TYPE, number: 200 }],
        sectorBytes,
        entries: 256,
      })
      assert.deepStrictEqual(numbersOn(many), [1, 200])
    })
    for (const [what, at] of [
      ["header", sectorBytes + 60],
      ["entries", 2 * sectorBytes + 70],
    ] as const)
      it(`sectors of ${sectorBytes}: a bad checksum of the ${what} is the backup's turn, of both is none's`, () => {
        const disk = TestDisks.gpt({ partitions, sectorBytes })
        const flip = (position: number) => (disk.bytes[position] = (disk.bytes[position] ?? 0) ^ 1)
        flip(at)
        assert.deepStrictEqual(numbersOn(disk), [1, 7])
        assert.match(Result.getOrThrow(read(disk)).primaryProblem ?? "", /checksum does not match/u)
        flip(disk.bytes.length - sectorBytes + 60)
        const result = read(disk)
        assert.isTrue(Result.isFailure(result) && result.failure.damaged)
      })
  }
  it("nothing, and too little for a table, is no damage", () => {
    for (const size of [0, 512, 1024, 1536, 1 << 20]) {
      const result = read(TestDisks.blank(size))
      assert.isTrue(Result.isFailure(result) && !result.failure.damaged, String(size))
    }
  })
})

describe("whatever the tables hold", () => {
  it("ten thousand headers with fields at the edges: a table or a reason, and no read beyond the disk", () => {
    const disk = TestDisks.gpt({ partitions: [{ type: TYPE }, { type: TYPE }] })
    const original = Buffer.from(disk.bytes)
    const last = disk.bytes.length - 512
    let state = 5
    const next = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0)
    const below = (limit: number) => Math.floor((next() / 2 ** 32) * limit)
    const edges = [0, 1, 2, 33, 34, 90, last / 512, last / 512 + 1, 128, 8192, 2 ** 31, 2 ** 32 - 1]
    const bytes = Buffer.from(disk.bytes.buffer, disk.bytes.byteOffset, disk.bytes.length)
    const kernel = checkedKernel(disk)
    const one = Effect.provideService(Disks.readTable(diskOf(disk)), Kernel, kernel)
    const outcomes = { primary: 0, backup: 0, none: 0 }
    for (let round = 0; round < 10_000; round++) {
      // The primary always, the backup often.
      for (const at of below(3) === 0 ? [512] : [512, last]) {
        original.copy(bytes, at, at, at + 512)
        for (let field = below(3); field >= 0; field--) {
          const offset = [24, 28, 32, 36, 40, 44, 48, 52, 72, 76, 80, 84, 88][below(13)] ?? 80
          bytes.writeUInt32LE(below(4) === 0 ? next() : (edges[below(edges.length)] ?? 0), at + offset)
        }
        // As often as not the checksum of the entries is that of what the header points at.
        const from = Number(bytes.readBigUInt64LE(at + 72)) * 512
        const length = bytes.readUInt32LE(at + 80) * bytes.readUInt32LE(at + 84)
        if (below(2) === 0 && from + length <= bytes.length)
          bytes.writeUInt32LE(crc32(bytes.subarray(from, from + length)), at + 88)
        bytes.writeUInt32LE(0, at + 16)
        bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 92)), at + 16)
      }
      const result = Effect.runSync(one)
      if (Result.isFailure(result)) {
        outcomes.none++
        assert.isAbove(result.failure.reason.length, 20)
        original.copy(bytes, last, last)
        continue
      }
      outcomes[result.success.primaryProblem === undefined ? "primary" : "backup"]++
      for (const { firstLba, lastLba } of result.success.partitions)
        assert.isTrue(firstLba <= lastLba && lastLba < BigInt(disk.bytes.length / 512))
      original.copy(bytes, last, last)
    }
    for (const [outcome, count] of Object.entries(outcomes)) assert.isAbove(count, 100, outcome)
  })
})
