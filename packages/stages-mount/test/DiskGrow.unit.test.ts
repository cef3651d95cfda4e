// The partition and its filesystem grow, and no cut on the way leaves a disk without a valid table.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import * as TestDisks from "@kios/core/testing/TestDisks"
import type * as TestMachine from "@kios/core/testing/TestMachine"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import * as DataPartitionStage from "@kios/stages-mount/DataPartition"
import * as DiskGrow from "@kios/stages-mount/DiskGrow"
import * as Disks from "@kios/stages-mount/internal/Disks"
import * as GptGrow from "@kios/stages-mount/internal/GptGrow"
import { earlier, onDisks, outcome, up } from "./support.ts"

const MIB = 2 ** 20
const ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
const UUID = "11111111-2222-3333-4444-555555555555"
const dataPartition = (sectors: number) => ({
  type: DataPartitionStage.PARTITION_TYPE,
  uuid: UUID,
  sectors,
  ext4: { files: { "/data/oci/kept": "x" } },
})

/** A disk of 1 MiB and something with an ESP and a data partition, which has become larger. */
const disk = (options: { readonly sectorBytes?: number; readonly size?: number } = {}) => {
  const sectorBytes = options.sectorBytes ?? 512
  const made = TestDisks.gpt({
    sectorBytes,
    partitions: [{ type: ESP, sectors: 64 }, dataPartition(MIB / sectorBytes)],
  })
  return TestDisks.enlarged(made, options.size ?? 4 * MIB)
}

const readTable = (machine: TestMachine.TestMachine) =>
  Effect.flatMap(Disks.describe("vda"), (vda) =>
    Effect.map(Disks.readTable(vda), (table) => ({ vda, table })),
  ).pipe(Effect.provide(machine.layer))

/** What is to be written for partition 2. */
const planned = Effect.fnUntraced(function* (machine: TestMachine.TestMachine, number = 2) {
  const { table, vda } = yield* readTable(machine)
  const first = yield* machine.kernel.readAt("/dev/vda", 0, vda.sectorBytes)
  const backupIsWhole =
    Result.isSuccess(table) &&
    (yield* Disks.backupIsWhole(vda, table.success).pipe(Effect.provide(machine.layer)))
  return Result.flatMap(
    Result.mapError(table, ({ reason }) => reason),
    (found) => GptGrow.plan(vda, found, { first, backupIsWhole, number }),
  )
})

const write = (to: TestDisks.TestDisk, { bytes, position }: GptGrow.Write) => to.bytes.set(bytes, position)

/** What a cut can leave of one write: nothing, a part of its beginning or end, or any one of its sectors. */
const tears = (one: GptGrow.Write, sector: number): ReadonlyArray<GptGrow.Write> => {
  const count = one.bytes.length / sector
  const part = (from: number, to: number): GptGrow.Write => ({
    what: `${one.what}, sectors ${from} to ${to}`,
    position: one.position + from * sector,
    bytes: one.bytes.subarray(from * sector, to * sector),
  })
  const halves = [0, 1, count >> 1, count - 1].flatMap((at) => [part(0, at), part(at, count)])
  return [...halves, ...Array.from({ length: count }, (_, at) => part(at, at + 1))]
}

describe("the partition table", () => {
  const damages: ReadonlyArray<readonly [string, (of: TestDisks.TestDisk) => void]> = [
    ["whole", () => {}],
    ["with damaged entries", (of) => of.bytes.fill(0xff, 2 * of.sectorBytes + 24, 2 * of.sectorBytes + 28)],
  ]
  for (const sectorBytes of [512, 4096])
    for (const [state, damage] of damages)
      for (const size of [2 * MIB + 20_480, 3 * MIB])
        it.effect(
          `${state}, sectors of ${sectorBytes}, now ${size} bytes: any cut leaves a valid one, and the next boot ends it`,
          () =>
            Effect.gen(function* () {
              const subject = disk({ sectorBytes, size })
              damage(subject)
              const machine = yield* onDisks({ vda: subject })
              const before = Result.getOrThrow((yield* readTable(machine)).table).partitions
              const { partition, writes } = Result.getOrThrow(yield* planned(machine))
              assert.isAbove(writes.length, 3)
              const after = before.map((one) => (one.number === 2 ? partition : one))
              assert.notDeepEqual(after, before)
              assert.strictEqual(((Number(partition.lastLba) + 1) * sectorBytes) % MIB, 0, "aligned")

              const original = Buffer.from(subject.bytes)
              /** The disk as a cut has left it must have the old table or the new one, and grow at the next boot. */
              const look = Effect.fnUntraced(function* (where: string) {
                const found = Result.getOrThrow((yield* readTable(machine)).table).partitions
                assert.isTrue(
                  [before, after].some((one) => JSON.stringify(one, text) === JSON.stringify(found, text)),
                  where,
                )
                const cut = Buffer.from(subject.bytes)
                for (const one of Result.getOrThrow(yield* planned(machine)).writes) write(subject, one)
                const end = Result.getOrThrow((yield* readTable(machine)).table)
                assert.deepStrictEqual(end.partitions, after, where)
                assert.isUndefined(end.primaryProblem, where)
                assert.deepStrictEqual(Result.getOrThrow(yield* planned(machine)).writes, [], where)
                // And the backup alone is as good.
                subject.bytes.fill(0, sectorBytes, 2 * sectorBytes)
                assert.deepStrictEqual(
                  Result.getOrThrow((yield* readTable(machine)).table).partitions,
                  after,
                  where,
                )
                subject.bytes.set(cut)
              })
              for (const [index, one] of writes.entries()) {
                for (const torn of tears(one, sectorBytes)) {
                  subject.bytes.set(original)
                  for (const done of writes.slice(0, index)) write(subject, done)
                  write(subject, torn)
                  yield* look(torn.what)
                }
              }
              subject.bytes.set(original)
              for (const one of writes) write(subject, one)
              yield* look("the end")
            }),
          60_000,
        )

  it.effect("what nobody has room for is left alone, with a reason", () =>
    Effect.gen(function* () {
      const behind = TestDisks.enlarged(
        TestDisks.gpt({ partitions: [dataPartition(2048), { type: ESP, number: 5 }] }),
        4 * MIB,
      )
      assert.match(
        reasonOf(yield* planned(yield* onDisks({ vda: behind }), 1)),
        /partition 5 comes after it/u,
      )
      assert.match(reasonOf(yield* planned(yield* onDisks({ vda: disk() }), 3)), /no usable partition 3/u)
      const twins = disk()
      overlap(twins)
      assert.match(reasonOf(yield* planned(yield* onDisks({ vda: twins }))), /no usable partition 2/u)
    }),
  )

  it.effect("a disk that has not grown, or by less than a block of 1 MiB, is left as it is", () =>
    Effect.gen(function* () {
      for (const size of [undefined, 2048, 512]) {
        const made = TestDisks.gpt({ partitions: [dataPartition(2048 - 34)] })
        const subject = TestDisks.enlarged(made, made.bytes.length + (size ?? 0))
        assert.deepStrictEqual(
          Result.getOrThrow(yield* planned(yield* onDisks({ vda: subject }), 1)).writes,
          [],
        )
      }
    }),
  )

  it.effect("an MBR that is not only protective is not ours to write", () =>
    Effect.gen(function* () {
      const subject = disk()
      subject.bytes[466] = 0x83
      const { writes } = Result.getOrThrow(yield* planned(yield* onDisks({ vda: subject })))
      assert.notInclude(
        writes.map(({ what }) => what),
        "protective MBR",
      )
    }),
  )
})

const text = (_key: string, value: unknown) => (typeof value === "bigint" ? value.toString() : value)
const reasonOf = <A>(result: Result.Result<A, string>) =>
  Result.isFailure(result) ? result.failure : "no reason"

/** Makes the first partition end in the second, with right checksums. */
const overlap = (subject: TestDisks.TestDisk): void => {
  const bytes = Buffer.from(subject.bytes.buffer, subject.bytes.byteOffset, subject.bytes.length)
  const crc32 = (part: Uint8Array) => process.getBuiltinModule("node:zlib").crc32(part)
  bytes.writeBigUInt64LE(200n, 1024 + 40)
  bytes.writeUInt32LE(crc32(bytes.subarray(1024, 1024 + 16_384)), 512 + 88)
  bytes.writeUInt32LE(0, 512 + 16)
  bytes.writeUInt32LE(crc32(bytes.subarray(512, 512 + 92)), 512 + 16)
}

const before = (device: string | undefined, cmdline = "datapart.grow") =>
  Layer.merge(earlier(cmdline), Layer.succeed(DataPartition, { device }))

/** A machine on which the data partition is mounted. */
const mounted = Effect.fnUntraced(function* (vda: TestDisks.TestDisk, cmdline = "") {
  const machine = yield* onDisks({ vda })
  yield* up(DataPartitionStage.stage, machine, earlier(cmdline))
  assert.isDefined(machine.mountAt(DataPartitionStage.MOUNT_POINT))
  return machine
})

const sizes = Effect.fnUntraced(function* (machine: TestMachine.TestMachine, device = "/dev/vda2") {
  const superblock = Buffer.from(yield* machine.kernel.readAt(device, 1024, 1024))
  return { filesystem: superblock.readUInt32LE(4) * 1024 }
})

describe("disk-grow", () => {
  it.effect("writes the table, tells the kernel, grows the filesystem, in this order; and then nothing", () =>
    Effect.gen(function* () {
      const machine = yield* mounted(disk())
      const seen = machine.log().length
      yield* up(DiskGrow.stage, machine, before("/dev/vda2"))
      const start = (34 + 64) * 512
      const last = 4 * MIB - 512
      const length = 3 * MIB - start
      assert.deepStrictEqual(machine.log().slice(seen), [
        `pwrite("/dev/vda", <512 bytes>, 0)`,
        `pwrite("/dev/vda", <16384 bytes>, ${last - 16_384})`,
        `pwrite("/dev/vda", <512 bytes>, ${last})`,
        `pwrite("/dev/vda", <16384 bytes>, 1024)`,
        `pwrite("/dev/vda", <512 bytes>, 512)`,
        `ioctl("/dev/vda", BLKPG_RESIZE_PARTITION, 2, ${start}, ${length})`,
        `ioctl("/run/kios/data", EXT4_IOC_RESIZE_FS, ${length / 1024})`,
      ])
      assert.deepStrictEqual(yield* sizes(machine), { filesystem: length })
      assert.strictEqual(machine.read("/sys/block/vda/vda2/size"), `${length / 512}\n`)
      assert.strictEqual(machine.read("/var/lib/containerd/kept"), "x")
      assert.isTrue(
        machine.kmsg.some((line) => line.includes("/dev/vda2 has grown to 2 MiB")),
        machine.kmsg.join("\n"),
      )

      const done = machine.log().length
      yield* up(DiskGrow.stage, machine, before("/dev/vda2"))
      assert.deepStrictEqual(machine.log().slice(done), [])
      assert.isTrue(
        machine.kmsg.at(-1)?.includes("/dev/vda2 is as large as its disk allows: 2 MiB"),
        machine.kmsg.at(-1),
      )
    }),
  )
  it.effect("does nothing that nobody has asked for", () =>
    Effect.gen(function* () {
      for (const cmdline of ["", "datapart.grow=no", "datapart.grow=0"]) {
        const machine = yield* mounted(disk())
        const seen = machine.calls.length
        yield* up(DiskGrow.stage, machine, before("/dev/vda2", cmdline))
        assert.strictEqual(machine.calls.length, seen)
      }
      const machine = yield* onDisks({ vda: disk() })
      const seen = machine.calls.length
      yield* up(DiskGrow.stage, machine, before(undefined))
      assert.strictEqual(machine.calls.length, seen)
    }),
  )
  it.effect("grows a filesystem that has a whole disk, without a partition table", () =>
    Effect.gen(function* () {
      const machine = yield* mounted(TestDisks.enlarged(TestDisks.ext4({}), MIB), "datapart=/dev/vda")
      yield* up(DiskGrow.stage, machine, before("/dev/vda"))
      assert.deepStrictEqual(machine.log({ only: ["writeAt", "resizePartition"] }), [])
      assert.deepStrictEqual(yield* sizes(machine, "/dev/vda"), { filesystem: MIB })
    }),
  )
  it.effect("grows the filesystem to a partition that cannot grow itself, and says why", () =>
    Effect.gen(function* () {
      const subject = TestDisks.enlarged(
        TestDisks.gpt({ partitions: [dataPartition(2048), { type: ESP, number: 5 }] }),
        4 * MIB,
      )
      // As if it had been made for half of its partition.
      Buffer.from(subject.bytes.buffer).writeUInt32LE(512, 34 * 512 + 1024 + 4)
      const machine = yield* mounted(subject)
      yield* up(DiskGrow.stage, machine, before("/dev/vda1"))
      assert.deepStrictEqual(machine.log({ only: ["writeAt", "resizePartition"] }), [])
      assert.deepStrictEqual(yield* sizes(machine, "/dev/vda1"), { filesystem: MIB })
      assert.isTrue(
        machine.kmsg.some((line) => line.includes("/dev/vda1 does not grow: partition 5 comes after it")),
        machine.kmsg.join("\n"),
      )
    }),
  )
  it.effect("a last group that would be hardly larger than its own tables is left out", () =>
    Effect.gen(function* () {
      const subject = TestDisks.enlarged(TestDisks.ext4({}), MIB)
      const superblock = Buffer.from(subject.bytes.buffer, subject.bytes.byteOffset + 1024)
      superblock.writeUInt32LE(500, 0x20)
      const machine = yield* mounted(subject, "datapart=/dev/vda")
      yield* up(DiskGrow.stage, machine, before("/dev/vda"))
      assert.deepStrictEqual(yield* sizes(machine, "/dev/vda"), { filesystem: 1000 * 1024 })
    }),
  )
  for (const [what, errno, path] of [
    ["readAt", "EIO", "/dev/vda"],
    ["readText", "EACCES", "/sys/block/vda/size"],
    ["writeAt", "EIO", "/dev/vda"],
    ["writeAt", "EPERM", "/dev/vda"],
    ["writeAt", "ENOSPC", "/dev/vda"],
    ["resizePartition", "EBUSY", "/dev/vda"],
    ["resizePartition", "ENXIO", "/dev/vda"],
    ["resizeFilesystem", "EPERM", "/run/kios/data"],
    ["resizeFilesystem", "ENOSPC", "/run/kios/data"],
    ["resizeFilesystem", "EOPNOTSUPP", "/run/kios/data"],
    ["resizeFilesystem", "EROFS", "/run/kios/data"],
  ] as const)
    it.effect(`${what} ${path}: ${errno} is the stage's failure, and the next boot goes on from there`, () =>
      Effect.gen(function* () {
        const subject = disk()
        const machine = yield* mounted(subject)
        machine.failOn(what, errno, { path, times: 1 })
        assert.strictEqual(yield* outcome(DiskGrow.stage, machine, before("/dev/vda2")), errno)
        yield* up(DiskGrow.stage, machine, before("/dev/vda2"))
        assert.deepStrictEqual(yield* sizes(machine), { filesystem: 3 * MIB - (34 + 64) * 512 })
        assert.isUndefined(Result.getOrThrow((yield* readTable(machine)).table).primaryProblem)
      }),
    )
})
