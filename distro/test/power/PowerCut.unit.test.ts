import { assert, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Partition, random } from "./PowerCut.ts"
import * as Replay from "./Replay.ts"
import { behindTheFirst } from "./Sandboxes.ts"
import * as Workload from "./Workload.ts"
import * as WriteLog from "./WriteLog.ts"

const SECTOR = 512
type Item = { readonly at: number; readonly bytes: Buffer; readonly fua?: boolean } | "flush"

/** A log as dm-log-writes has it. */
const makeLog = (items: ReadonlyArray<Item>, entries = items.length): Buffer => {
  const sector = Buffer.alloc(SECTOR)
  sector.writeBigUInt64LE(0x6a736677736872n, 0)
  sector.writeBigUInt64LE(1n, 8)
  sector.writeBigUInt64LE(BigInt(entries), 16)
  sector.writeUInt32LE(SECTOR, 24)
  return Buffer.concat([
    sector,
    ...items.flatMap((item) => {
      const header = Buffer.alloc(SECTOR)
      if (item === "flush") {
        header.writeBigUInt64LE(1n, 16)
        return [header]
      }
      header.writeBigUInt64LE(BigInt(item.at / SECTOR), 0)
      header.writeBigUInt64LE(BigInt(item.bytes.length / SECTOR), 8)
      header.writeBigUInt64LE(item.fua === true ? 2n : 0n, 16)
      return [header, item.bytes]
    }),
  ])
}

const inFile = <A>(bytes: Buffer, use: (file: string) => A): A => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-log-"))
  try {
    const file = path.join(directory, "log")
    fs.writeFileSync(file, bytes)
    return use(file)
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

const block = (letter: string, length = 4096) => Buffer.alloc(length, letter)

it("reads a log to the last whole entry, whatever its first sector says", () => {
  const log = makeLog([{ at: 1024, bytes: block("a") }, "flush", { at: 0, bytes: block("b"), fua: true }], 1)
  const entries = inFile(log, WriteLog.read)
  assert.deepStrictEqual(entries, [
    { _tag: "Write", position: 512, offset: 1024, length: 4096, data: 1024, fua: false },
    { _tag: "Flush", position: 5120 },
    { _tag: "Write", position: 5632, offset: 0, length: 4096, data: 6144, fua: true },
  ])
  for (const missing of [1, 4096, 4097])
    assert.strictEqual(inFile(log.subarray(0, log.length - missing), WriteLog.read).length, 2)
  // A later entry was written and this one not yet.
  const holed = Buffer.concat([log.subarray(0, 5632), Buffer.alloc(512), log.subarray(5632)])
  assert.strictEqual(inFile(holed, WriteLog.read).length, 2)
})

it("says what is wrong with a log", () => {
  assert.throws(() => inFile(Buffer.alloc(1024), WriteLog.read), WriteLog.MalformedLog)
  assert.throws(() => inFile(Buffer.alloc(0), WriteLog.read), WriteLog.MalformedLog)
  const strange = makeLog(["flush"])
  strange.writeBigUInt64LE(16n, SECTOR + 16)
  assert.throws(() => inFile(strange, WriteLog.read), /unknown flags/u)
  strange.writeBigUInt64LE(4n, SECTOR + 16)
  assert.throws(() => inFile(strange, WriteLog.read), /discard/u)
})

/** The letters of a partition's blocks after a cut. */
const letters = (
  items: ReadonlyArray<Item>,
  cuts: ReadonlyArray<readonly [count: number, model: "in-order" | "any"]>,
  next: () => number,
) =>
  inFile(makeLog(items), (file) => {
    const log = fs.openSync(file, "r")
    const partition = new Partition(block(".", 4 * 4096), 8192, WriteLog.read(file), log)
    const seen = cuts.map(([count, model]) =>
      partition.at(count, model, next, (content) =>
        [0, 1, 2, 3].map((index) => String.fromCharCode(content[index * 4096] ?? 0)).join(""),
      ),
    )
    fs.closeSync(log)
    return seen
  })

const write = (index: number, letter: string, length = 4096, fua = false): Item => ({
  at: 8192 + index * 4096,
  bytes: block(letter, length),
  fua,
})

it("keeps what was flushed, and of the rest all or any", () => {
  const items = [write(0, "a"), "flush", write(1, "b", 8192), write(0, "c"), "flush", write(3, "d")] as const
  const never = () => 0.999
  assert.deepStrictEqual(
    letters(
      items,
      [
        [1, "in-order"],
        [1, "any"],
        [2, "any"],
        [4, "in-order"],
        [4, "any"],
        [5, "any"],
        [6, "in-order"],
        [6, "any"],
      ],
      never,
    ),
    ["a...", "....", "a...", "cbb.", "a...", "cbb.", "cbbd", "cbb."],
  )
})

it("tears writes at sectors of 4096 bytes, and never one with FUA", () => {
  const seen = new Set<string>()
  const next = random(7)
  for (let round = 0; round < 200; round++)
    for (const state of letters([write(0, "a", 8192), write(3, "f", 4096, true)], [[2, "any"]], next))
      seen.add(state)
  assert.deepStrictEqual([...seen].toSorted(), ["...f", "a..f", "aa.f", ".a.f"].toSorted())
})

it("refuses a write outside of the partition", () => {
  assert.throws(() => letters([write(4, "x")], [[1, "in-order"]], () => 0), /outside of the partition/u)
  assert.throws(() => letters([{ at: 0, bytes: block("x") }], [[1, "in-order"]], () => 0), /outside/u)
})

it("knows which transactions were synced at a cut", () => {
  const entries = inFile(makeLog([write(0, "a"), "flush", write(1, "b"), "flush"]), WriteLog.read)
  const recording = { base: "", log: "", start: 0, size: 0, checksums: [] }
  // Known after the first flush, and after the second: 512 + 4608 + 512, and 4608 + 512 more.
  const logBytes = [0, 5632, 10_752]
  assert.deepStrictEqual(
    [1, 2, 3, 4].map((count) => Replay.syncedAt({ ...recording, logBytes }, entries, count)),
    [0, 1, 1, 2],
  )
  // Something of the next entry was there already when it became known.
  assert.deepStrictEqual(
    [1, 2, 3, 4].map((count) => Replay.syncedAt({ ...recording, logBytes: [0, 5700] }, entries, count)),
    [0, 0, 1, 1],
  )
})

it("chooses the same cut points for the same seed, all over the log", () => {
  const points = Replay.cutPoints(1000, { cuts: 100, seed: 3 })
  assert.deepStrictEqual(points, Replay.cutPoints(1000, { cuts: 100, seed: 3 }))
  assert.notDeepEqual(points, Replay.cutPoints(1000, { cuts: 100, seed: 4 }))
  assert.isTrue(points.every((point) => point >= 1 && point <= 1000))
  assert.isBelow(points[0] ?? 0, 100)
  assert.isAbove(points.at(-1) ?? 0, 900)
})

it("finds each kind of loss", () => {
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")
  const checksums = Array.from({ length: 10 }, (_, number) => sha256(`content ${number}`))
  const whole = (done: number) => ({
    files: new Map([
      ...Array.from({ length: done }, (_, index) => index + 1).flatMap((number) => [
        [`meta/etc/power/${number}`, sha256(`setting ${number}\n`)] as const,
        ...(number % 4 === 0 && number + 2 <= done
          ? []
          : [[`power/file-${number}`, checksums[number] ?? ""] as const]),
      ]),
      ["power/setting", sha256(`setting ${done}\n`)] as const,
      ["power/counter", sha256(String(done).padStart(8, "0"))] as const,
    ]),
    journal: Array.from({ length: done }, (_, index) => `${index + 1}\n`).join(""),
  })
  for (let done = 1; done <= 9; done++) {
    assert.deepStrictEqual(Workload.violations(whole(done), done, checksums), [])
    // The next transaction happened too, and nobody was told.
    assert.deepStrictEqual(Workload.violations(whole(done), done - 1, checksums), [])
  }
  assert.deepStrictEqual(Workload.violations({ files: new Map(), journal: "" }, 0, checksums), [])
  const changed = (change: (files: Map<string, string>) => void, journal?: string) => {
    const { files, journal: before } = whole(6)
    change(files)
    return Workload.violations({ files, journal: journal ?? before }, 6, checksums)
  }
  const old = whole(5).files
  const put = (file: string, sum: string | undefined) => (files: Map<string, string>) =>
    void files.set(file, sum ?? "")
  assert.deepStrictEqual(
    [
      changed((files) => files.delete("power/file-3")),
      changed(put("power/file-2", checksums[3])),
      changed(put("power/file-4", checksums[4])),
      changed(put("power/setting", old.get("power/setting"))),
      changed(put("power/counter", old.get("power/counter"))),
      changed((files) => files.delete("meta/etc/power/6")),
      changed(() => {}, "1\n2\n3\n4\n5\n"),
      changed(() => {}, "1\n2\n3\n4\n5\n6\nx\n"),
      changed(() => {}, "1\n2\n3\n4\n5\n6\n7\n\0"),
    ],
    [
      ["power/file-3 is lost"],
      ["power/file-2 has other content"],
      ["power/file-4 is back"],
      ["power/setting has other content"],
      ["power/counter has other content"],
      ["meta/etc/power/6 is lost"],
      ["power/journal has lost lines"],
      ["power/journal has other lines"],
      ["power/journal has other lines"],
    ],
  )
})

it("takes an append that was not synced as any of its bytes, or zeros", () => {
  const one = Workload.violations
  const lost = one({ files: new Map(), journal: "" }, 1, [])
  for (const rest of ["", "2", "2\n", "\0", "\0\0", "2\0"])
    assert.deepStrictEqual(
      one({ files: new Map(), journal: `1\n${rest}` }, 1, []),
      lost.filter((wrong) => !wrong.includes("journal")),
    )
})

it("reads what a state's report says", () => {
  const sum = "ab".repeat(32)
  const lines = [`file ${sum}  meta/etc/a b`, "journal MQoyCg==", "find: power: No such file"]
  assert.deepStrictEqual(Workload.parse(lines), {
    files: new Map([["meta/etc/a b", sum]]),
    journal: "1\n2\n",
  })
})

it("reads from containerd's log when a pod's sandbox was asked for", () => {
  const at = (seconds: string, text: string) => `time="2026-01-02T03:04:${seconds}Z" level=info msg="${text}"`
  const log = [
    at("01.000000000", "starting containerd"),
    at("05.500000000", String.raw`RunPodSandbox for name:\"hello-kios\"  uid:\"a\" namespace:\"default\"`),
    at("07.250000000", "RunPodSandbox for &PodSandboxMetadata{Name:kept-kios,Uid:b,Namespace:default,}"),
    at("09.000000000", String.raw`RunPodSandbox for name:\"kept-kios\" uid:\"b\" returns sandbox id \"c\"`),
  ].join("\n")
  assert.strictEqual(behindTheFirst(log, "hello"), 0)
  assert.strictEqual(behindTheFirst(log, "kept"), 1.75)
  assert.isNaN(behindTheFirst(log, "other"))
})
