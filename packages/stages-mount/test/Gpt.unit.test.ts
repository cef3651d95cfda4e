import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as Gpt from "@kios/stages-mount/Gpt"

const TYPE = "97aac693-d920-465a-94fe-eb59fc86dfaa"
const UUID = "0fc63daf-8483-4772-8e79-3d69d8477de4"
const disk = TestDisks.gpt({
  partitions: [
    { type: TYPE, uuid: UUID, label: "daten-größe" },
    { type: UUID, number: 7 },
  ],
})
const headerBlock = Buffer.from(disk.bytes.subarray(512, 1024))
const entryBytes = Buffer.from(disk.bytes.subarray(1024, 1024 + 128 * 128))
const crc32 = (bytes: Uint8Array) => process.getBuiltinModule("node:zlib").crc32(bytes)

const header = Result.getOrThrow(Gpt.parseHeader(headerBlock, 1n))
/** The header with some bytes changed, and its checksum right again. */
const changed = (change: (block: Buffer) => void): Buffer => {
  const block = Buffer.from(headerBlock)
  change(block)
  block.writeUInt32LE(0, 16)
  block.writeUInt32LE(crc32(block.subarray(0, 92)), 16)
  return block
}
const failure = <A>(result: Result.Result<A, string>) =>
  Result.isFailure(result) ? result.failure : "no failure"

describe("parseHeader", () => {
  it("reads what a header says", () => {
    assert.deepStrictEqual(
      { ...header, entriesCrc: 0 },
      {
        backupLba: BigInt(disk.bytes.length / 512 - 1),
        entriesLba: 2n,
        entryCount: 128,
        entryBytes: 128,
        entriesCrc: 0,
      },
    )
  })
  it("reads the backup at the end of the disk", () => {
    const last = BigInt(disk.bytes.length / 512 - 1)
    const backup = Result.getOrThrow(Gpt.parseHeader(disk.bytes.subarray(Number(last) * 512), last))
    assert.strictEqual(backup.backupLba, 1n)
    assert.strictEqual(backup.entriesCrc, header.entriesCrc)
  })
  const bad: ReadonlyArray<readonly [string, Uint8Array, RegExp]> = [
    ["a block that is too short", headerBlock.subarray(0, 91), /too small/u],
    ["no signature", Buffer.alloc(512), /no GPT signature/u],
    ["a flipped bit", Buffer.from(headerBlock).fill(headerBlock.readUInt8(60) ^ 1, 60, 61), /checksum/u],
    ["a header that is too long", changed((b) => b.writeUInt32LE(513, 12)), /header size 513/u],
    ["a header that is too short", changed((b) => b.writeUInt32LE(91, 12)), /header size 91/u],
    ["another place", changed((b) => b.writeBigUInt64LE(9n, 24)), /for LBA 9/u],
    ["too many entries", changed((b) => b.writeUInt32LE(4097, 80)), /4097 entries/u],
    ["entries that are too small", changed((b) => b.writeUInt32LE(64, 84)), /entry size 64/u],
    ["entries that are too large", changed((b) => b.writeUInt32LE(8192, 84)), /entry size 8192/u],
    ["entries of an odd size", changed((b) => b.writeUInt32LE(129, 84)), /entry size 129/u],
  ]
  for (const [what, block, reason] of bad)
    it(`refuses ${what}`, () => assert.match(failure(Gpt.parseHeader(block, 1n)), reason))
})

describe("parseEntries", () => {
  it("reads the entries that are used, with their numbers, GUIDs and labels", () => {
    const [first, second, ...more] = Result.getOrThrow(Gpt.parseEntries(header, entryBytes))
    assert.deepStrictEqual(first, {
      number: 1,
      type: TYPE,
      uuid: UUID,
      label: "daten-größe",
      firstLba: 34n,
      lastLba: 49n,
    })
    assert.strictEqual(second?.number, 7)
    assert.deepStrictEqual(more, [])
  })
  it("refuses entries that are cut off or damaged", () => {
    assert.match(failure(Gpt.parseEntries(header, entryBytes.subarray(1))), /cut off/u)
    const damaged = Buffer.from(entryBytes)
    damaged[3] = (damaged[3] ?? 0) ^ 0x80
    assert.match(failure(Gpt.parseEntries(header, damaged)), /checksum/u)
  })
  it("a table of no entries is an empty one", () => {
    assert.deepStrictEqual(
      Result.getOrThrow(Gpt.parseEntries({ ...header, entryCount: 0, entriesCrc: 0 }, new Uint8Array(0))),
      [],
    )
  })
  it("looks at its own bytes when they are a part of a larger buffer", () => {
    const larger = Buffer.concat([Buffer.alloc(13, 0xff), entryBytes, Buffer.alloc(13, 0xff)])
    const part = new Uint8Array(larger.buffer, larger.byteOffset + 13, entryBytes.length)
    assert.strictEqual(Result.getOrThrow(Gpt.parseEntries(header, part)).length, 2)
  })
})

describe("whatever the disk holds", () => {
  const Bytes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))).check(
    Schema.isMaxLength(600),
  )
  const Offset = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 91 }))
  const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
  it.prop("random bytes are a reason, never an exception", [Bytes], ([bytes]) => {
    assert.isTrue(Result.isFailure(Gpt.parseHeader(Uint8Array.from(bytes), 1n)))
  })
  it.prop("a header with any byte changed is refused", [Offset, Byte], ([offset, byte]) => {
    const block = Buffer.from(headerBlock)
    if (block[offset] === byte) return
    block[offset] = byte
    assert.isTrue(Result.isFailure(Gpt.parseHeader(block, 1n)))
  })
  it.prop(
    "a header with any byte changed and a right checksum is a table or a reason",
    [Offset, Byte, Bytes],
    ([offset, byte, bytes]) => {
      const block = changed((b) => b.writeUInt8(byte, offset))
      const parsed = Gpt.parseHeader(block, 1n)
      if (Result.isFailure(parsed)) return assert.isAbove(parsed.failure.length, 5)
      const entries = Gpt.parseEntries(parsed.success, Uint8Array.from(bytes))
      if (Result.isFailure(entries)) assert.isAbove(entries.failure.length, 5)
    },
  )
  it("ten thousand random sectors that begin like a header", () => {
    let seed = 7
    const random = () => (seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff) / 0x7fffffff
    for (let round = 0; round < 10_000; round++) {
      const block = Buffer.from(Array.from({ length: 92 }, () => Math.floor(random() * 256)))
      block.write("EFI PART", 0, "latin1")
      block.writeUInt32LE(92, 12)
      block.writeUInt32LE(0, 16)
      block.writeUInt32LE(crc32(block), 16)
      const parsed = Gpt.parseHeader(block, block.readBigUInt64LE(24))
      if (Result.isSuccess(parsed)) assert.isTrue(Result.isFailure(Gpt.parseEntries(parsed.success, block)))
    }
  })
})
