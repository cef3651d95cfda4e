import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { isDeepStrictEqual } from "node:util"
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
const LAST = BigInt(disk.bytes.length / 512 - 1)
const headerBlock = Buffer.from(disk.bytes.subarray(512, 1024))
const entryBytes = Buffer.from(disk.bytes.subarray(1024, 1024 + 128 * 128))
const crc32 = (bytes: Uint8Array) => process.getBuiltinModule("node:zlib").crc32(bytes)

const header = Result.getOrThrow(Gpt.parseHeader(headerBlock, 1n, LAST))
/** The header with some bytes changed, and its checksum right again. */
const changed = (change: (block: Buffer) => void): Buffer => {
  const block = Buffer.from(headerBlock)
  change(block)
  const size = Math.min(Math.max(block.readUInt32LE(12), 16), 512)
  block.writeUInt32LE(0, 16)
  block.writeUInt32LE(crc32(block.subarray(0, size)), 16)
  return block
}
const failure = <A>(result: Result.Result<A, string>) =>
  Result.isFailure(result) ? result.failure : "no failure"

describe("parseHeader", () => {
  it("reads what a header says", () => {
    assert.deepStrictEqual(
      { ...header, entriesCrc: 0 },
      {
        lba: 1n,
        headerBytes: 92,
        backupLba: LAST,
        firstUsable: 34n,
        lastUsable: LAST - 33n,
        entriesLba: 2n,
        entryCount: 128,
        entryBytes: 128,
        entriesCrc: 0,
      },
    )
  })
  it("reads the backup at the end of the disk", () => {
    const backup = Result.getOrThrow(Gpt.parseHeader(disk.bytes.subarray(Number(LAST) * 512), LAST, LAST))
    assert.strictEqual(backup.backupLba, 1n)
    assert.strictEqual(backup.entriesCrc, header.entriesCrc)
  })
  it("takes more than 128 entries, and entries that are larger", () => {
    for (const [count, size] of [
      [129, 128],
      [8192, 128],
      [128, 256],
      [1, 4096],
      [0, 128],
    ] as const) {
      const large = changed((b) => {
        b.writeUInt32LE(count, 80)
        b.writeUInt32LE(size, 84)
      })
      assert.strictEqual(Result.getOrThrow(Gpt.parseHeader(large, 1n, 1n << 20n)).entryCount, count)
    }
  })
  const bad: ReadonlyArray<readonly [string, Uint8Array, RegExp]> = [
    ["a block that is too short", headerBlock.subarray(0, 91), /too small/u],
    ["no signature", Buffer.alloc(512), /no GPT signature/u],
    ["a flipped bit", Buffer.from(headerBlock).fill(headerBlock.readUInt8(60) ^ 1, 60, 61), /checksum/u],
    ["a header that is too long", changed((b) => b.writeUInt32LE(513, 12)), /header size 513/u],
    ["a header that is too short", changed((b) => b.writeUInt32LE(91, 12)), /header size 91/u],
    ["another place", changed((b) => b.writeBigUInt64LE(9n, 24)), /for LBA 9/u],
    ["too many entries", changed((b) => b.writeUInt32LE(8193, 80)), /8193 entries of 128 bytes/u],
    ["entries that are too small", changed((b) => b.writeUInt32LE(64, 84)), /entry size 64/u],
    ["entries that are too large", changed((b) => b.writeUInt32LE(0x8000_0000, 84)), /entry size/u],
    ["entries of an odd size", changed((b) => b.writeUInt32LE(129, 84)), /entry size 129/u],
    ["entries of three times 128", changed((b) => b.writeUInt32LE(384, 84)), /entry size 384/u],
    ["entries on the header", changed((b) => b.writeBigUInt64LE(1n, 72)), /entries at LBA 1/u],
    ["entries beyond the disk", changed((b) => b.writeBigUInt64LE(LAST, 72)), /lie beyond the disk/u],
    [
      "entries at the end of all numbers",
      changed((b) => b.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 72)),
      /lie beyond the disk/u,
    ],
    ["a disk that has shrunk", changed((b) => b.writeBigUInt64LE(LAST + 1n, 48)), /the disk has/u],
    ["no sectors for partitions", changed((b) => b.writeBigUInt64LE(LAST, 40)), /gives sectors/u],
  ]
  for (const [what, block, reason] of bad)
    it(`refuses ${what}`, () => assert.match(failure(Gpt.parseHeader(block, 1n, LAST)), reason))
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

const partition = (number: number, firstLba: bigint, lastLba: bigint): Gpt.GptPartition => ({
  number,
  type: TYPE,
  uuid: UUID,
  label: "",
  firstLba,
  lastLba,
})

describe("believable", () => {
  const table = { ...header, firstUsable: 34n, lastUsable: 1000n }
  const check = (...partitions: ReadonlyArray<readonly [bigint, bigint]>) => {
    const { partitions: kept, problems } = Gpt.believable(
      table,
      partitions.map(([first, last], index) => partition(index + 1, first, last)),
    )
    return [kept.map(({ number }) => number), ...problems]
  }
  it("keeps what lies beside each other, in whatever order", () => {
    assert.deepStrictEqual(check([100n, 199n], [34n, 99n], [200n, 1000n]), [[1, 2, 3]])
  })
  it("leaves out a partition that ends before it begins, or lies outside", () => {
    assert.deepStrictEqual(check([100n, 99n], [33n, 40n], [990n, 1001n], [50n, 60n]), [
      [4],
      "partition 1 (sectors 100 to 99) ends before it begins",
      "partition 2 (sectors 33 to 40) is not within sectors 34 to 1000",
      "partition 3 (sectors 990 to 1001) is not within sectors 34 to 1000",
    ])
  })
  it("leaves out both of two that overlap, also by one sector, and also when one is within the other", () => {
    assert.deepStrictEqual(check([34n, 100n], [100n, 200n], [300n, 400n]), [
      [3],
      "partitions 1 and 2 overlap",
    ])
    assert.deepStrictEqual(check([40n, 900n], [50n, 60n], [70n, 80n], [901n, 910n])[0], [4])
    assert.deepStrictEqual(check([40n, 50n], [40n, 50n])[0], [])
  })
  const Sector = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120 }))
  const Range = Schema.Struct({ first: Sector, last: Sector })
  it.prop(
    "agrees with looking at every pair",
    [Schema.Array(Range).check(Schema.isMaxLength(8))],
    ([ranges]) => {
      const all = ranges.map(({ first, last }, index) => partition(index + 1, BigInt(first), BigInt(last)))
      const small = { ...table, firstUsable: 10n, lastUsable: 110n }
      const sane = all.filter((p) => p.firstLba <= p.lastLba && p.firstLba >= 10n && p.lastLba <= 110n)
      const expected = sane.filter((p) =>
        sane.every((q) => p === q || p.lastLba < q.firstLba || q.lastLba < p.firstLba),
      )
      assert.deepStrictEqual(Gpt.believable(small, all).partitions, expected)
    },
  )
})

/**
 * Parses the same bytes between two kinds of surroundings: what was read outside
 * of them would make a difference, and what is out of every range would throw.
 */
const checked = <A>(bytes: Uint8Array, parse: (bytes: Uint8Array) => A): A => {
  const within = (fill: number) => {
    const larger = Buffer.alloc(bytes.length + 8192, fill)
    larger.set(bytes, 4096)
    return parse(new Uint8Array(larger.buffer, larger.byteOffset + 4096, bytes.length))
  }
  const [zeros, ones] = [within(0), within(0xff)]
  // Not the assertion of the same name: that one takes a minute for all of them.
  if (!isDeepStrictEqual(zeros, ones)) assert.deepStrictEqual(zeros, ones)
  return zeros
}

describe("whatever the disk holds", () => {
  const Bytes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))).check(
    Schema.isMaxLength(600),
  )
  const Offset = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 91 }))
  const Byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
  it.prop("random bytes are a reason, never an exception", [Bytes], ([bytes]) => {
    assert.isTrue(Result.isFailure(checked(Uint8Array.from(bytes), (b) => Gpt.parseHeader(b, 1n, LAST))))
  })
  it.prop("a header with any byte changed is refused", [Offset, Byte], ([offset, byte]) => {
    const block = Buffer.from(headerBlock)
    if (block[offset] === byte) return
    block[offset] = byte
    assert.isTrue(Result.isFailure(checked(block, (b) => Gpt.parseHeader(b, 1n, LAST))))
  })
  it.prop(
    "a header with any byte changed and a right checksum is a table or a reason",
    [Offset, Byte, Bytes],
    ([offset, byte, bytes]) => {
      const block = changed((b) => b.writeUInt8(byte, offset))
      const parsed = checked(block, (b) => Gpt.parseHeader(b, 1n, LAST))
      if (Result.isFailure(parsed)) return assert.isAbove(parsed.failure.length, 5)
      const entries = checked(Uint8Array.from(bytes), (b) => Gpt.parseEntries(parsed.success, b))
      if (Result.isFailure(entries)) assert.isAbove(entries.failure.length, 5)
    },
  )

  /** Numbers that headers have and ones at the edges of ranges, by a seed. */
  const random = (seed: number) => {
    let state = seed
    const next = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0)
    const below = (limit: number) => Math.floor((next() / 2 ** 32) * limit)
    const edges = [0, 1, 2, 33, 34, 127, 128, 129, 255, 256, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
    return { below, edge: () => (below(3) === 0 ? next() : (edges[below(edges.length)] ?? 0)) }
  }
  it("ten thousand headers with fields at the edges and a right checksum, with entries that fit and that do not", () => {
    const { below, edge } = random(7)
    const outcomes = new Map<string, number>()
    for (let round = 0; round < 10_000; round++) {
      const block = changed((b) => {
        for (let field = below(4); field >= 0; field--) {
          const at = [12, 24, 28, 32, 40, 44, 48, 52, 72, 76, 80, 84][below(12)] ?? 80
          b.writeUInt32LE(edge(), at)
        }
      })
      const parsed = checked(block, (b) => Gpt.parseHeader(b, 1n, LAST))
      const outcome = Result.isFailure(parsed) ? parsed.failure.replaceAll(/\d+/gu, "N") : "a header"
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      if (Result.isFailure(parsed)) continue
      const { entriesLba, entryBytes: size, entryCount } = parsed.success
      const end = Number(entriesLba) * 512 + size * entryCount
      assert.isAtMost(end, disk.bytes.length, "the entries of a header that is taken are on the disk")
      const entries = Buffer.from(disk.bytes.subarray(Number(entriesLba) * 512, end))
      const told = { ...parsed.success, entriesCrc: crc32(entries) }
      for (const cut of [entries, entries.subarray(0, below(entries.length + 1))]) {
        const table = checked(cut, (b) => Gpt.parseEntries(told, b))
        if (Result.isSuccess(table)) Gpt.believable(told, table.success)
      }
    }
    // Each kind of refusal has been met, and so have headers that are taken.
    assert.isAbove(outcomes.get("a header") ?? 0, 100)
    assert.isAtLeast(outcomes.size, 7, [...outcomes.keys()].join("\n"))
  })
  it("ten thousand random headers with a signature and a right checksum", () => {
    const { below } = random(11)
    for (let round = 0; round < 10_000; round++) {
      const block = Buffer.from(Array.from({ length: 92 }, () => below(256)))
      block.write("EFI PART", 0, "latin1")
      block.writeUInt32LE(92, 12)
      block.writeUInt32LE(0, 16)
      block.writeUInt32LE(crc32(block), 16)
      const parsed = checked(block, (b) => Gpt.parseHeader(b, block.readBigUInt64LE(24), LAST))
      if (Result.isSuccess(parsed)) assert.isTrue(Result.isFailure(Gpt.parseEntries(parsed.success, block)))
    }
  })
})
