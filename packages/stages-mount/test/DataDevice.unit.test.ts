// Disks that come late, tables that lie, and filesystems that must not be mounted.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import * as TestDisks from "@kios/core/testing/TestDisks"
import type * as TestMachine from "@kios/core/testing/TestMachine"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import * as Stage from "@kios/stages-mount/DataPartition"
import { earlier, onDisks, up } from "./support.ts"

const LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
const UUID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
const data = (partition: Partial<TestDisks.PartitionSpec> = {}) =>
  TestDisks.gpt({ partitions: [{ type: Stage.PARTITION_TYPE, ext4: {}, ...partition }] })

const start = (machine: TestMachine.TestMachine, cmdline = "") =>
  Effect.forkChild(
    Effect.map(
      Effect.scoped(up(Stage.stage, machine, earlier(cmdline))),
      (services) => Context.get(services, DataPartition).device,
    ),
    { startImmediately: true },
  )
/** The device, when nothing is waited for. */
const atOnce = Effect.fnUntraced(function* (machine: TestMachine.TestMachine, cmdline = "") {
  const fiber = yield* start(machine, cmdline)
  assert.isDefined(fiber.pollUnsafe(), "it waits")
  return yield* Fiber.join(fiber)
})
const told = (machine: TestMachine.TestMachine, ...texts: ReadonlyArray<string>) => {
  for (const text of texts)
    assert.isTrue(
      machine.kmsg.some((line) => line.includes(text)),
      `${text} is not in:\n${machine.kmsg.join("\n")}`,
    )
}

describe("waiting without datapart=", () => {
  it.effect("a machine without a bus for late disks goes on at once", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({})
      assert.isUndefined(yield* atOnce(machine))
      told(machine, "no data partition: this node lives in RAM")
    }),
  )
  it.effect("ATA and NVMe controllers, whose drivers have found their disks, are no such bus", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks(
        {},
        {
          "/sys/class/nvme/nvme0/state": "live\n",
          "/sys/class/scsi_host/host0": {
            symlink: "../../devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0",
          },
        },
      )
      assert.isUndefined(yield* atOnce(machine))
    }),
  )
  it.effect("an NVMe controller that comes live without a sign of its disk is given the time", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({}, { "/sys/class/nvme/nvme0/state": "connecting\n" })
      const fiber = yield* start(machine)
      yield* TestClock.adjust("1 second")
      machine.write({ "/sys/class/nvme/nvme0/state": "live\n" })
      yield* TestClock.adjust("200 millis")
      machine.plug("nvme0n1", data())
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "/dev/nvme0n1p1")
    }),
  )
  it.effect("one with such a bus waits until nothing has changed for half a second", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({}, { "/sys/bus/usb/devices/usb1/": "" })
      const fiber = yield* start(machine)
      yield* TestClock.adjust("400 millis")
      assert.isUndefined(fiber.pollUnsafe())
      machine.write({ "/sys/bus/usb/devices/1-1/": "" })
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(fiber.pollUnsafe(), "a device was found meanwhile")
      yield* TestClock.adjust("200 millis")
      assert.isUndefined(yield* Fiber.join(fiber))
    }),
  )
  it.effect("a disk that appears meanwhile is used, and found only once", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({}, { "/sys/class/scsi_host/host0/": "" })
      const fiber = yield* start(machine)
      yield* TestClock.adjust("300 millis")
      machine.plug("sda", data())
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "/dev/sda1")
    }),
  )
  const usbHost = {
    "/sys/devices/pci0000:00/usb1/1-1/host3/scsi_host/host3/": "",
    "/sys/class/scsi_host/host3": {
      symlink: "../../devices/pci0000:00/usb1/1-1/host3/scsi_host/host3",
    },
  } as const
  it.effect("a memory stick that has not told its disks is waited for", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({}, usbHost)
      const fiber = yield* start(machine)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      machine.write({ "/sys/bus/scsi/devices/target3:0:0/": "" })
      machine.plug("sda", data())
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "/dev/sda1")
    }),
  )
  it.effect("an NVMe controller that is not live yet is waited for, but not for ever", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({}, { "/sys/class/nvme/nvme0/state": "connecting\n" })
      const fiber = yield* start(machine)
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(yield* Fiber.join(fiber))
      told(machine, "disks still appear after 10 s (nvme0 is connecting)")
    }),
  )
  it.effect("datapart=none waits for nothing", () =>
    Effect.gen(function* () {
      assert.isUndefined(yield* atOnce(yield* onDisks({ vda: data() }, usbHost), "datapart=none"))
    }),
  )
})

describe("sick disks", () => {
  it.effect("one that never answers holds up nothing but itself, and that for 15 s", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({ vda: data(), vdb: data() })
      const { readAt } = machine.kernel
      const kernel: KernelShape = {
        ...machine.kernel,
        readAt: (path, position, length) =>
          path === "/dev/vda" ? Effect.never : readAt(path, position, length),
      }
      const fiber = yield* start({ ...machine, layer: Layer.succeed(Kernel, kernel), kernel })
      yield* TestClock.adjust("14 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "/dev/vdb1")
      told(machine, '/dev/vda could not be read: read("/dev/vda"): ETIMEDOUT')
    }),
  )
  it.effect("one that fails is asked once, however long is waited for another", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({ vda: data() })
      machine.failOn("readAt", "EIO", { path: "/dev/vda" })
      const fiber = yield* start(machine, "datapart=PARTLABEL=later")
      yield* TestClock.adjust("31 seconds")
      assert.isUndefined(yield* Fiber.join(fiber))
      assert.strictEqual(machine.log({ only: ["readAt"] }).length, 1)
    }),
  )
})

describe("which of several", () => {
  const stick = (disk: TestDisks.TestDisk): TestDisks.TestDisk => ({ ...disk, removable: true })
  it.effect("fixed disks before removable ones, then the lowest PARTUUID, whatever the names are", () =>
    Effect.gen(function* () {
      const of = (uuid: string) => data({ uuid })
      const low = of("10000000-0000-0000-0000-000000000000")
      const high = of("20000000-0000-0000-0000-000000000000")
      assert.strictEqual(yield* atOnce(yield* onDisks({ sda: high, sdb: low })), "/dev/sdb1")
      assert.strictEqual(yield* atOnce(yield* onDisks({ sda: low, sdb: high })), "/dev/sda1")
      assert.strictEqual(yield* atOnce(yield* onDisks({ sda: stick(low), sdb: high })), "/dev/sdb1")
      assert.strictEqual(yield* atOnce(yield* onDisks({ sda: stick(low) })), "/dev/sda1")
    }),
  )
  it.effect("a damaged one is not passed over for the state of another node", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({
        sda: data({ uuid: "10000000-0000-0000-0000-000000000000", ext4: { errno: "EUCLEAN" } }),
        sdb: data({ uuid: "20000000-0000-0000-0000-000000000000" }),
      })
      assert.isUndefined(yield* atOnce(machine))
      told(machine, "data partition /dev/sda1 is not used")
    }),
  )
  it.effect("two filesystems of one UUID, as a copied disk has: the rule again, and a warning", () =>
    Effect.gen(function* () {
      const copy = () => TestDisks.ext4({ uuid: UUID })
      const machine = yield* onDisks({ vda: copy(), vdb: copy() })
      assert.strictEqual(yield* atOnce(machine, `datapart=UUID=${UUID}`), "/dev/vda")
      told(machine, "using /dev/vda,", "and not /dev/vdb (")
    }),
  )
})

describe("what datapart= can name", () => {
  it.effect("a disk without a partition table: by path, UUID and LABEL", () =>
    Effect.gen(function* () {
      const disks = () => ({ vda: data(), vdb: TestDisks.ext4({ uuid: UUID, label: "state" }) })
      for (const spec of ["/dev/vdb", `UUID=${UUID}`, "LABEL=state"])
        assert.strictEqual(yield* atOnce(yield* onDisks(disks()), `datapart=${spec}`), "/dev/vdb", spec)
      assert.strictEqual(yield* atOnce(yield* onDisks(disks())), "/dev/vda1")
    }),
  )
  it.effect("a partition of another kind of table, by its filesystem", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({ partitions: [{ type: LINUX, ext4: { label: "state" } }] })
      // The kernel has read an MBR; there is no GPT.
      disk.bytes.fill(0, 0, 1024)
      disk.bytes.fill(0, disk.bytes.length - 512)
      assert.strictEqual(yield* atOnce(yield* onDisks({ sda: disk }), "datapart=LABEL=state"), "/dev/sda1")
    }),
  )
})

describe("tables that lie", () => {
  const lost = (disk: TestDisks.TestDisk) => {
    disk.bytes.fill(0, 512, 1024)
    disk.partitions.clear()
    return disk
  }
  for (const cmdline of ["", "datapart=/dev/vda1", "datapart=LABEL=state"])
    it.effect(
      `a partition of the backup table is given to the kernel, which does not read it (${cmdline})`,
      () =>
        Effect.gen(function* () {
          const machine = yield* onDisks({ vda: lost(data({ ext4: { label: "state" } })) })
          assert.strictEqual(yield* atOnce(machine, cmdline), "/dev/vda1")
          told(
            machine,
            "/dev/vda: using the backup partition table: no GPT signature",
            "/dev/vda1: given to the kernel, which did not have it",
          )
          assert.deepStrictEqual(machine.log({ only: ["addPartition"] }), [
            'ioctl("/dev/vda", BLKPG_ADD_PARTITION, 1, 17408, 8192)',
          ])
        }),
    )
  it.effect("a partition that the kernel does not take is a node in RAM that says why", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({ vda: lost(data()) })
      machine.failOn("addPartition", "EINVAL")
      assert.isUndefined(yield* atOnce(machine))
      told(machine, "data partition /dev/vda1 is not used, this node lives in RAM: ioctl(", "EINVAL (")
    }),
  )
  it.effect("a backup table that an older use of the disk has left is not used", () =>
    Effect.gen(function* () {
      const mbr = lost(data())
      mbr.bytes[450] = 0x83
      const filesystem = lost(data())
      filesystem.bytes.fill(0x58, 0, 512)
      for (const disk of [mbr, filesystem]) {
        const machine = yield* onDisks({ vda: disk })
        assert.isUndefined(yield* atOnce(machine))
        told(machine, "/dev/vda: its backup partition table is not used, because its first sector")
      }
    }),
  )
  it.effect("both tables damaged: told, with what is wrong with each", () =>
    Effect.gen(function* () {
      const disk = data()
      disk.bytes[520] = 9
      disk.bytes.fill(9, disk.bytes.length - 450, disk.bytes.length - 440)
      const machine = yield* onDisks({ vda: disk })
      assert.isUndefined(yield* atOnce(machine))
      told(
        machine,
        "/dev/vda: primary partition table: the header's checksum does not match; backup: the header's",
      )
    }),
  )
  it.effect(
    "damaged entries under a whole header: the backup is where the header says, also on a larger disk",
    () =>
      Effect.gen(function* () {
        const disk = TestDisks.enlarged(data(), 1 << 20)
        disk.bytes[1100] = 9
        const machine = yield* onDisks({ vda: disk })
        assert.strictEqual(yield* atOnce(machine), "/dev/vda1")
        told(machine, "using the backup partition table: the partition entries' checksum does not match")
      }),
  )
  it.effect("partitions that overlap are left out, and told", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({
        partitions: [{ type: Stage.PARTITION_TYPE, ext4: {} }, { type: LINUX }],
      })
      const bytes = Buffer.from(disk.bytes.buffer, disk.bytes.byteOffset, disk.bytes.length)
      const crc32 = (part: Uint8Array) => process.getBuiltinModule("node:zlib").crc32(part)
      bytes.writeBigUInt64LE(51n, 1024 + 40)
      bytes.writeUInt32LE(crc32(bytes.subarray(1024, 1024 + 16_384)), 512 + 88)
      bytes.writeUInt32LE(0, 512 + 16)
      bytes.writeUInt32LE(crc32(bytes.subarray(512, 604)), 512 + 16)
      const machine = yield* onDisks({ vda: disk })
      assert.isUndefined(yield* atOnce(machine))
      told(machine, "/dev/vda: partitions left out: partitions 1 and 2 overlap")
    }),
  )
})

describe("filesystems that must not be mounted", () => {
  /** A disk whose data partition has these bytes changed. */
  const patched = (patch: (partition: Buffer) => void) => {
    const disk = data({ sectors: 256 })
    const { bytes } = disk
    patch(Buffer.from(bytes.buffer, bytes.byteOffset + 34 * 512, 256 * 512))
    return disk
  }
  const superblock = (patch: (superblock: Buffer) => void) =>
    patched((partition) => patch(partition.subarray(1024, 2048)))
  const cases: ReadonlyArray<readonly [string, TestDisks.TestDisk, string]> = [
    [
      "errors that the kernel has recorded",
      superblock((s) => {
        s.writeUInt16LE(3, 0x3a)
        s.writeUInt32LE(7, 0x194)
        s.writeUInt32LE(1_700_000_000, 0x1cc)
        s.write("ext4_lookup", 0x1e0)
      }),
      "the filesystem needs repair, the kernel has met errors in it: 7, the last in ext4_lookup at 2023-11-14T22:13:20.000Z; check it with `e2fsck -f /dev/vda1`",
    ],
    [
      "errors of which nothing more is known",
      superblock((s) => s.writeUInt16LE(2, 0x3a)),
      "the filesystem needs repair, the kernel has met errors in it; check it",
    ],
    [
      "a check that was broken off",
      superblock((s) => s.writeUInt16LE(0, 0x3a)),
      "the filesystem needs repair, it was neither unmounted nor checked to the end",
    ],
    [
      "a journal device",
      superblock((s) => s.writeUInt32LE(0x8, 0x60)),
      "it is the journal of another ext4 filesystem",
    ],
    [
      "a read-only feature",
      superblock((s) => s.writeUInt32LE(0x1001, 0x64)),
      "the filesystem is marked as read-only",
    ],
    ...(
      [
        ["nothing (it begins with zeros)", 0, ""],
        ["nothing that kiOS knows", 700, "junk"],
        ["an XFS filesystem", 0, "XFSB"],
        ["an encrypted LUKS volume", 0, "LUKS\xba\xbe"],
        ["an NTFS filesystem", 3, "NTFS    "],
        ["a FAT filesystem", 82, "FAT32   "],
        ["an LVM physical volume", 512, "LABELONE"],
        ["swap space", 4086, "SWAPSPACE2"],
        ["a member of a Linux RAID", 4096, "\xfc\x4e\x2b\xa9"],
        ["a Btrfs filesystem", 65_600, "_BHRfS_M"],
      ] as const
    ).map(
      ([name, at, magic]) =>
        [
          name,
          patched((partition) => {
            partition.fill(0)
            partition.write(magic, at, "latin1")
          }),
          `it holds ${name} and no ext4 filesystem; kiOS formats nothing`,
        ] as const,
    ),
  ]
  for (const [what, disk, message] of cases)
    it.effect(`${what}: not mounted, not written, and told`, () =>
      Effect.gen(function* () {
        const before = Buffer.from(disk.bytes)
        const machine = yield* onDisks({ vda: disk })
        assert.isUndefined(yield* atOnce(machine))
        told(machine, `data partition /dev/vda1 is not used, this node lives in RAM: ${message}`)
        assert.isUndefined(machine.mounts().find(({ fstype }) => fstype === "ext4"))
        assert.isFalse(machine.log({ only: ["mount"] }).some((line) => line.includes("/dev/vda1")))
        assert.isTrue(before.equals(disk.bytes))
      }),
    )

  it.effect("what only the replay of the journal brings to light is unmounted again", () =>
    Effect.gen(function* () {
      const disk = superblock((s) => s.writeUInt32LE(0xc6, 0x60))
      const machine = yield* onDisks({ vda: disk })
      const { readAt } = machine.kernel
      let reads = 0
      const kernel = {
        ...machine.kernel,
        readAt: (path: string, position: number, length: number) => {
          // The second look at the partition is the one after its mount.
          if (path === "/dev/vda1" && ++reads === 2) disk.bytes[34 * 512 + 1024 + 0x3a] = 3
          return readAt(path, position, length)
        },
      }
      const layer = Layer.succeed(Kernel, kernel)
      assert.isUndefined(yield* atOnce({ ...machine, layer, kernel }))
      told(machine, "/dev/vda1 was not unmounted: its journal is replayed", "the filesystem needs repair")
      assert.isUndefined(machine.mountAt(Stage.MOUNT_POINT))
    }),
  )
  it.effect("a filesystem without a journal is used, with a warning", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({ vda: superblock((s) => s.writeUInt32LE(0, 0x5c)) })
      assert.strictEqual(yield* atOnce(machine), "/dev/vda1")
      told(machine, "/dev/vda1 has no journal: a power cut can damage it")
    }),
  )
  for (const [what, disk, errno, message] of [
    [
      "a filesystem that is larger than its partition",
      superblock((s) => s.writeUInt32LE(1_000_000, 0x4)),
      "EINVAL",
      "the filesystem has 1024000000 bytes and its device 131072: the device was made smaller",
    ],
    [
      "features that the kernel does not know",
      superblock((s) => s.writeUInt32LE(0x400000c2, 0x60)),
      "EINVAL",
      "the filesystem has features that this kernel may lack: incompat 0x40000000, ro_compat 0x0",
    ],
    [
      "damage",
      data(),
      "EUCLEAN",
      "the filesystem is damaged or its disk fails; check it with `e2fsck -f /dev/vda1`",
    ],
  ] as const)
    it.effect(`the kernel's ${errno} for ${what} is explained`, () =>
      Effect.gen(function* () {
        const machine = yield* onDisks({ vda: disk })
        machine.failOn("mount", errno, { path: Stage.MOUNT_POINT })
        assert.isUndefined(yield* atOnce(machine))
        told(machine, message)
      }),
    )
})
