import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as TestDisks from "@kios/core/testing/TestDisks"
import type * as TestMachine from "@kios/core/testing/TestMachine"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import * as Stage from "@kios/stages-mount/DataPartition"
import { earlier, onDisks, up } from "./support.ts"

const ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
const LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
const disks = {
  vda: TestDisks.gpt({ partitions: [{ type: ESP, label: "esp" }] }),
  vdb: TestDisks.gpt({
    partitions: [
      {
        type: LINUX,
        uuid: "11111111-2222-3333-4444-555555555555",
        label: "other",
        ext4: { label: "OTHERFS", uuid: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee" },
      },
      {
        type: Stage.PARTITION_TYPE,
        label: "kios-data",
        ext4: { label: "DATAFS", files: { "/data/oci/kept": "x" } },
      },
    ],
  }),
}

/** The device that the stage chooses; time passes as it is asked for. */
const chosen = (machine: TestMachine.TestMachine, cmdline = "") =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(Effect.scoped(up(Stage.stage, machine, earlier(cmdline))), {
      startImmediately: true,
    })
    yield* TestClock.adjust("40 seconds")
    return Context.get(yield* Fiber.join(fiber), DataPartition).device
  })

describe("which partition", () => {
  const rows: ReadonlyArray<readonly [string, string | undefined]> = [
    ["", "/dev/vdb2"],
    ["datapart=/dev/vdb1", "/dev/vdb1"],
    ["datapart=PARTUUID=11111111-2222-3333-4444-555555555555", "/dev/vdb1"],
    [
      "datapart=PARTUUID=11111111-2222-3333-4444-555555555555".toUpperCase().replace("DATAPART", "datapart"),
      "/dev/vdb1",
    ],
    ["datapart=PARTLABEL=kios-data", "/dev/vdb2"],
    ["datapart=UUID=AAAAAAAA-bbbb-cccc-dddd-eeeeeeeeeeee", "/dev/vdb1"],
    ["datapart=LABEL=DATAFS", "/dev/vdb2"],
    ["datapart=none", undefined],
    ["datapart=LABEL=NOSUCH", undefined],
    ["datapart=/dev/sdz9", undefined],
    ["datapart=garbage", "/dev/vdb2"],
  ]
  for (const [cmdline, expected] of rows)
    it.effect(`${cmdline === "" ? "without datapart=" : cmdline}: ${expected ?? "none"}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* chosen(yield* onDisks(disks), cmdline), expected)
      }),
    )

  it.effect("one that is named and not there is told by name, after waiting for it", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks(disks)
      yield* chosen(machine, "datapart=PARTLABEL=later")
      assert.include(machine.kmsg, "err error datapart=PARTLABEL=later: no such device within 30 s")
      assert.isTrue(machine.kmsg.some((line) => line.includes("this node lives in RAM")))
    }),
  )

  it.effect("a device that appears while it is waited for is used", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks(disks)
      const fiber = yield* Effect.forkChild(
        Effect.scoped(up(Stage.stage, machine, earlier("datapart=/dev/late"))),
        { startImmediately: true },
      )
      yield* TestClock.adjust("3 seconds")
      assert.include(machine.kmsg, "info waiting for datapart=/dev/late")
      machine.plug("late", TestDisks.ext4({}))
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(Context.get(yield* Fiber.join(fiber), DataPartition).device, "/dev/late")
      assert.include(machine.log({ only: ["mount"] }).join("\n"), '"/dev/late", "/run/kios/data", "ext4"')
    }),
  )

  it.effect("several: the first by name, and the others are told", () =>
    Effect.gen(function* () {
      const data = () => TestDisks.gpt({ partitions: [{ type: Stage.PARTITION_TYPE, ext4: {} }] })
      const machine = yield* onDisks({ nvme0n1: data(), sdb: data(), sda: data() })
      assert.strictEqual(yield* chosen(machine), "/dev/nvme0n1p1")
      assert.isTrue(
        machine.kmsg.some(
          (line) =>
            line.includes("using /dev/nvme0n1p1, by the rule of") &&
            line.includes("and not /dev/sda1, /dev/sdb1 ("),
        ),
        machine.kmsg.join("\n"),
      )
    }),
  )

  it.effect("a damaged primary table: the backup is used, and told", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({ partitions: [{ type: Stage.PARTITION_TYPE, ext4: {} }] })
      disk.bytes.fill(0, 512, 1024)
      const machine = yield* onDisks({ vda: disk })
      assert.strictEqual(yield* chosen(machine), "/dev/vda1")
      assert.include(
        machine.kmsg,
        "warning warn /dev/vda: using the backup partition table: no GPT signature",
      )
    }),
  )

  it.effect("disks of 4096-byte sectors", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({
        sectorBytes: 4096,
        partitions: [{ type: Stage.PARTITION_TYPE, ext4: {} }],
      })
      assert.strictEqual(yield* chosen(yield* onDisks({ vda: disk })), "/dev/vda1")
    }),
  )

  it.effect("loop, RAM and optical devices are not looked at", () =>
    Effect.gen(function* () {
      const data = TestDisks.gpt({ partitions: [{ type: Stage.PARTITION_TYPE, ext4: {} }] })
      const machine = yield* onDisks({
        loop0: data,
        ram1: data,
        zram0: data,
        sr0: data,
        fd0: data,
        "dm-0": data,
        md0: data,
      })
      assert.isUndefined(yield* chosen(machine))
      assert.deepStrictEqual(machine.log({ only: ["readAt"] }), [])
    }),
  )

  it.effect("empty, tiny and unreadable disks do not hide the others", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks({
        vda: TestDisks.blank(0),
        vdb: TestDisks.blank(1024),
        vdc: TestDisks.blank(1 << 20),
        vdd: disks.vdb,
        vde: disks.vdb,
      })
      machine.failOn("readAt", "EIO", { path: "/dev/vdd" })
      assert.strictEqual(yield* chosen(machine), "/dev/vde2")
      assert.isTrue(machine.kmsg.some((line) => line.includes("/dev/vdd could not be read: read(")))
    }),
  )

  it("device names", () => {
    assert.deepStrictEqual(
      ["vda", "sdb", "nvme0n1", "mmcblk0"].map((disk) => Stage.partitionDevice(disk, 3)),
      ["/dev/vda3", "/dev/sdb3", "/dev/nvme0n1p3", "/dev/mmcblk0p3"],
    )
  })
})

describe("the mount", () => {
  it.effect("makes these calls, and undoes them in reverse order", () =>
    Effect.gen(function* () {
      const machine = yield* onDisks(disks)
      const scope = yield* Scope.make()
      const seen = machine.log().length
      yield* Scope.provide(up(Stage.stage, machine), scope)
      const bound = (inPartition: string, target: string, flags = "MS_NOSUID|MS_NODEV") => [
        `mkdir("/run/kios/data/${inPartition}", 0755)`,
        `mkdir("${target}", 0755)`,
        `mount("/run/kios/data/${inPartition}", "${target}", "none", MS_BIND)`,
        `mount("none", "${target}", "none", MS_REMOUNT|MS_BIND|${flags}|MS_RELATIME)`,
      ]
      const made = [
        'mkdir("/run/kios/data", 0755)',
        'mount("/dev/vdb2", "/run/kios/data", "ext4", MS_NOSUID|MS_NODEV|MS_NOEXEC|MS_RELATIME, "errors=remount-ro")',
        ...bound("data/oci", "/var/lib/containerd"),
        ...bound("data/pods", "/var/lib/kubelet"),
        ...bound("data/cni", "/opt/cni/bin"),
        ...bound("meta/log", "/var/log", "MS_NOSUID|MS_NODEV|MS_NOEXEC"),
      ]
      assert.deepStrictEqual(machine.log().slice(seen), made)
      assert.strictEqual(machine.read("/var/lib/containerd/kept"), "x")
      for (const [, target] of Stage.directories)
        assert.includeMembers(
          [...(machine.mountAt(target)?.flags ?? [])],
          ["rw", "nosuid", "nodev", "relatime"],
        )
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(machine.log().slice(seen + made.length), [
        'umount2("/var/log", 0)',
        'umount2("/opt/cni/bin", 0)',
        'umount2("/var/lib/kubelet", 0)',
        'umount2("/var/lib/containerd", 0)',
        'umount2("/run/kios/data", 0)',
      ])
    }),
  )

  it.effect(
    "that is busy at shutdown stays for the end of it, where somebody can get at it, and is told",
    () =>
      Effect.gen(function* () {
        const machine = yield* onDisks(disks)
        machine.failOn("umount", "EBUSY", { path: "/run/kios/data", times: 1 })
        yield* chosen(machine)
        assert.isTrue(
          machine.kmsg.some(
            (line) => line.includes("EBUSY") && line.includes("tried again when every process"),
          ),
        )
        assert.isDefined(machine.mountAt("/run/kios/data"))
      }),
  )

  for (const errno of [
    "EACCES",
    "EBADMSG",
    "EBUSY",
    "EINVAL",
    "EIO",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOTBLK",
    "ENXIO",
    "EPERM",
    "EROFS",
    "EUCLEAN",
  ])
    it.effect(`${errno} is a node in RAM that says so, and nothing was written`, () =>
      Effect.gen(function* () {
        const machine = yield* onDisks(disks)
        machine.failOn("mount", errno, { path: "/run/kios/data" })
        assert.isUndefined(yield* chosen(machine))
        assert.isTrue(
          machine.kmsg.some(
            (line) =>
              line.startsWith("err ") &&
              line.includes("data partition /dev/vdb2 is not used, this node lives in RAM: mount(") &&
              line.includes(errno),
          ),
          machine.kmsg.join("\n"),
        )
        assert.deepStrictEqual(machine.log({ only: ["writeFile", "writeControl"] }), [])
      }),
    )

  it.effect("a filesystem that is damaged on the disk is the same", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({ partitions: [{ type: Stage.PARTITION_TYPE, ext4: { errno: "EUCLEAN" } }] })
      const machine = yield* onDisks({ vda: disk })
      assert.isUndefined(yield* chosen(machine))
    }),
  )

  for (const [what, errno, path] of [
    ["mkdir", "ENOSPC", "/run/kios/data/data/oci"],
    ["mkdir", "EROFS", "/run/kios/data/meta/log"],
    ["mount", "EINVAL", "/var/lib/kubelet"],
    ["mount", "ENOMEM", "/var/log"],
  ] as const)
    it.effect(`${what} ${path}: ${errno} leaves no half of it mounted`, () =>
      Effect.gen(function* () {
        const machine = yield* onDisks(disks)
        machine.failOn(what, errno, { path })
        const scope = yield* Scope.make()
        const services = yield* Scope.provide(up(Stage.stage, machine), scope)
        assert.isUndefined(Context.get(services, DataPartition).device)
        // /etc and the runtime take "no device" for "in RAM": what is mounted now would be half a disk.
        assert.deepStrictEqual(
          machine.mounts().map((mount) => mount.target),
          ["/", "/dev", "/sys", "/run", "/var"],
        )
        yield* Scope.close(scope, Exit.void)
      }),
    )
})
