// The pseudo and the ephemeral filesystems, cgroups, and the table that mounts are made from.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { Etc } from "@kios/core/capabilities/Etc"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as CgroupsStage from "@kios/stages-mount/Cgroups"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import * as MountTable from "@kios/stages-mount/MountTable"
import * as PseudoFilesystemsStage from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import { earlier, outcome, up } from "./support.ts"

const rowsOf = (machine: TestMachine.TestMachine) =>
  machine
    .mounts()
    .slice(1)
    .map((mount) => `${mount.target} ${mount.fstype} ${mount.flags.join(",")} ${mount.options}`.trimEnd())

describe("pseudo-filesystems", () => {
  it.effect("are these mounts, with these flags", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      const services = yield* up(PseudoFilesystemsStage.stage, machine)
      assert.deepStrictEqual(rowsOf(machine), [
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/sys sysfs rw,nosuid,nodev,noexec,relatime",
        "/dev devtmpfs rw,nosuid,noexec,relatime mode=0755,size=4M,nr_inodes=64k",
        "/dev/pts devpts rw,nosuid,noexec,relatime ptmxmode=0000,mode=0620,gid=5",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime mode=1777,size=64M,nr_inodes=16k",
        "/sys/kernel/security securityfs rw,nosuid,nodev,noexec,relatime",
        "/sys/fs/bpf bpf rw,nosuid,nodev,noexec,relatime mode=0700",
        "/sys/kernel/tracing tracefs rw,nosuid,nodev,noexec,relatime mode=0700",
        "/sys/fs/pstore pstore rw,nosuid,nodev,noexec,relatime",
      ])
      assert.deepStrictEqual(
        Context.get(services, PseudoFilesystems).mounted,
        machine
          .mounts()
          .slice(1)
          .map((mount) => mount.target),
      )
      assert.strictEqual(yield* machine.kernel.readLink("/dev/stdin"), "/proc/self/fd/0")
      assert.strictEqual(yield* machine.kernel.readLink("/dev/fd"), "/proc/self/fd")
    }),
  )

  it.effect("a kernel without bpf, tracefs and securityfs boots without them", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ filesystems: ["tmpfs", "proc", "sysfs", "devtmpfs", "devpts"] })
      const services = yield* up(PseudoFilesystemsStage.stage, machine)
      assert.deepStrictEqual(Context.get(services, PseudoFilesystems).mounted, [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
      ])
      assert.deepStrictEqual(machine.kmsg, [])
    }),
  )

  it.effect("links that devtmpfs has already are left as they are", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      machine.failOn("symlink", "EEXIST", { path: "/dev/fd" })
      assert.strictEqual(yield* outcome(PseudoFilesystemsStage.stage, machine), "up")
    }),
  )

  for (const target of ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"])
    for (const errno of ["ENODEV", "EPERM", "EBUSY", "ENOMEM"])
      it.effect(`${target}: ${errno} is a failed boot`, () =>
        Effect.gen(function* () {
          const machine = TestMachine.make()
          machine.failOn("mount", errno, { path: target })
          assert.strictEqual(yield* outcome(PseudoFilesystemsStage.stage, machine), errno)
        }),
      )
  for (const [errno, expected] of [
    ["ENODEV", "up"],
    ["ENOENT", "up"],
    ["EPERM", "up"],
    ["EINVAL", "EINVAL"],
    ["ENOMEM", "ENOMEM"],
  ] as const)
    for (const target of ["/sys/fs/bpf", "/sys/kernel/tracing", "/sys/kernel/security"])
      it.effect(`${target}: ${errno} is ${expected === "up" ? "a boot without it" : "a failed boot"}`, () =>
        Effect.gen(function* () {
          const machine = TestMachine.make()
          machine.failOn("mount", errno, { path: target })
          assert.strictEqual(yield* outcome(PseudoFilesystemsStage.stage, machine), expected)
        }),
      )
  it.effect("a link that cannot be made is a failed boot", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      machine.failOn("symlink", "ENOSPC")
      assert.strictEqual(yield* outcome(PseudoFilesystemsStage.stage, machine), "ENOSPC")
    }),
  )
})

describe("ephemeral-filesystems", () => {
  it.effect("are these mounts, with these flags and these caps", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      yield* up(EphemeralFilesystems.stage, machine)
      assert.deepStrictEqual(rowsOf(machine), [
        "/run tmpfs rw,nosuid,nodev,noexec,relatime mode=0755,size=20%,nr_inodes=64k",
        "/tmp tmpfs rw,nosuid,nodev,noexec,relatime mode=0755,size=64M,nr_inodes=16k",
        "/var tmpfs rw,nosuid,nodev,relatime mode=0755,size=50%",
        "/opt tmpfs rw,nosuid,nodev,relatime mode=0755,size=256M,nr_inodes=16k",
      ])
      for (const directory of ["/run/kios/log", "/var/lib", "/var/log", "/opt/cni/bin"])
        assert.isTrue(machine.exists(directory), directory)
      assert.strictEqual(yield* machine.kernel.readLink("/var/run"), "/run")
    }),
  )
  it.effect("a size that is used up is ENOSPC, in its own filesystem only", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ memory: 1024 * 1024 })
      yield* up(EphemeralFilesystems.stage, machine)
      const { kernel } = machine
      assert.strictEqual(
        (yield* Effect.flip(kernel.writeFile("/run/x", new Uint8Array(300_000)))).errno,
        "ENOSPC",
      )
      yield* kernel.writeFile("/var/x", new Uint8Array(300_000))
    }),
  )
  for (const [what, errno, path] of [
    ["mount", "ENODEV", "/run"],
    ["mount", "ENOMEM", "/var"],
    ["mount", "EINVAL", "/opt"],
    ["mkdir", "ENOSPC", "/var/log"],
    ["mkdir", "EROFS", "/opt/cni/bin"],
    ["symlink", "EEXIST", "/var/run"],
  ] as const)
    it.effect(`${what} ${path}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make()
        machine.failOn(what, errno, { path })
        assert.strictEqual(yield* outcome(EphemeralFilesystems.stage, machine), errno)
      }),
    )
})

describe("cgroups", () => {
  const machine = (controllers?: ReadonlyArray<string>) => {
    const made = TestMachine.make(controllers === undefined ? {} : { controllers })
    return Effect.as(Effect.scoped(up(PseudoFilesystemsStage.stage, made)), made)
  }
  it.effect("are mounted, with a group for each of the host's processes, and init in its own", () =>
    Effect.gen(function* () {
      const subject = yield* machine()
      const services = yield* up(CgroupsStage.stage, subject)
      const groups = Context.get(services, Cgroups)
      assert.deepStrictEqual(
        [groups.root, groups.init, groups.runtime, groups.kubelet],
        [
          "/sys/fs/cgroup",
          "/sys/fs/cgroup/kios/init",
          "/sys/fs/cgroup/kios/runtime",
          "/sys/fs/cgroup/kios/kubelet",
        ],
      )
      const mount = subject.mountAt("/sys/fs/cgroup")
      assert.deepStrictEqual(mount?.flags, ["rw", "nosuid", "nodev", "noexec", "relatime"])
      assert.strictEqual(mount?.options, "nsdelegate,memory_recursiveprot")
      assert.strictEqual(subject.read(`${groups.init}/cgroup.procs`), "1\n")
      assert.strictEqual(
        subject.read(`${groups.runtime}/cgroup.controllers`),
        "cpuset cpu io memory hugetlb pids rdma misc\n",
      )
    }),
  )
  it.effect("the node's own groups are protected, and their parent with the sum", () =>
    Effect.gen(function* () {
      const subject = yield* machine()
      const services = yield* up(CgroupsStage.stage, subject)
      const MiB = 1024 * 1024
      const of = (group: string) =>
        ["memory.min", "memory.low", "cpu.weight"].map((file) =>
          Number(subject.read(`/sys/fs/cgroup/kios${group}/${file}`)),
        )
      assert.deepStrictEqual(of(""), [256 * MiB, 512 * MiB, 176])
      assert.deepStrictEqual(of("/init"), [48 * MiB, 96 * MiB, 79])
      assert.deepStrictEqual(of("/runtime"), [144 * MiB, 288 * MiB, 59])
      assert.deepStrictEqual(of("/kubelet"), [64 * MiB, 128 * MiB, 39])
      assert.deepStrictEqual(Context.get(services, Cgroups).memoryMin, {
        init: 48 * MiB,
        runtime: 144 * MiB,
        kubelet: 64 * MiB,
      })
    }),
  )
  for (const errno of ["EINVAL", "ENOENT", "EACCES", "EBUSY"])
    it.effect(`a protection that the kernel refuses (${errno}) is told, and the others are made`, () =>
      Effect.gen(function* () {
        const subject = yield* machine()
        subject.failOn("writeControl", errno, { path: "/sys/fs/cgroup/kios/memory.min" })
        assert.strictEqual(yield* outcome(CgroupsStage.stage, subject), "up")
        assert.isTrue(
          subject.kmsg.some((line) => line.startsWith("warning ") && line.includes(errno)),
          subject.kmsg.join("\n"),
        )
        assert.strictEqual(subject.read("/sys/fs/cgroup/kios/cpu.weight"), "176\n")
      }),
    )
  it("weights are those that runc makes of shares", () => {
    // Kubernetes enhancement 2254: 2 shares are the least weight, 262144 the most.
    for (const [millicores, weight] of [
      [0, 1],
      [2, 1],
      [100, 4],
      [1000, 39],
      [2000, 79],
      [256_000, 10_000],
      [1_000_000, 10_000],
    ] as const)
      assert.strictEqual(CgroupsStage.cpuWeight(millicores), weight)
  })
  it.effect("a kernel with fewer controllers gets what it has", () =>
    Effect.gen(function* () {
      const subject = yield* machine(["cpu", "memory", "pids", "dmem"])
      const services = yield* up(CgroupsStage.stage, subject)
      assert.deepStrictEqual(Context.get(services, Cgroups).controllers, ["cpu", "memory", "pids"])
      assert.strictEqual(subject.read("/sys/fs/cgroup/kios/cgroup.subtree_control"), "cpu memory pids\n")
    }),
  )
  it.effect("a kernel with none at all still boots", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* outcome(CgroupsStage.stage, yield* machine([])), "up")
    }),
  )
  for (const [what, errno, path] of [
    ["mount", "ENODEV", undefined],
    ["mount", "EBUSY", undefined],
    ["read", "EIO", undefined],
    ["writeControl", "EBUSY", "/sys/fs/cgroup/cgroup.subtree_control"],
    ["writeControl", "ENOENT", "/sys/fs/cgroup/kios/cgroup.subtree_control"],
    ["mkdir", "EACCES", "/sys/fs/cgroup/kios/kubelet"],
    ["writeControl", "EBUSY", "/sys/fs/cgroup/kios/init/cgroup.procs"],
  ] as const)
    it.effect(`${what} ${path ?? ""}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const subject = yield* machine()
        subject.failOn(what, errno, path === undefined ? {} : { path })
        assert.strictEqual(yield* outcome(CgroupsStage.stage, subject), errno)
      }),
    )
})

describe("etc-overlay", () => {
  const files = { "/lib/kios/etc/hostname": "image\n", "/lib/kios/etc/kept": "image\n", "/etc/": "" } as const
  const before = (device: string | undefined) =>
    Layer.merge(earlier(), Layer.succeed(DataPartition, { device }))
  const machine = () => TestMachine.make({ files, filesystems: ["overlay", "tmpfs"] })

  it.effect("keeps what is written on the data partition", () =>
    Effect.gen(function* () {
      const subject = machine()
      const services = yield* up(EtcOverlay.stage, subject, before("/dev/vda1"))
      subject.expectCalls([
        'mkdir("/run/kios/data/meta/etc", 0755)',
        'mkdir("/run/kios/data/meta/.etc-work", 0700)',
        'mount("etc", "/etc", "overlay", MS_NOSUID|MS_NODEV|MS_NOEXEC, "lowerdir=/lib/kios/etc,upperdir=/run/kios/data/meta/etc,workdir=/run/kios/data/meta/.etc-work")',
      ])
      assert.isTrue(Context.get(services, Etc).persistent)
      yield* subject.kernel.writeFile("/etc/hostname", "mine\n")
      assert.strictEqual(subject.read("/run/kios/data/meta/etc/hostname"), "mine\n")
      assert.strictEqual(subject.read("/lib/kios/etc/hostname"), "image\n")
      assert.strictEqual(subject.read("/etc/kept"), "image\n")
    }),
  )
  it.effect("in RAM without one", () =>
    Effect.gen(function* () {
      const subject = machine()
      const services = yield* up(EtcOverlay.stage, subject, before(undefined))
      assert.include(
        subject.mountAt("/etc")?.options,
        "upperdir=/run/kios/etc/upper,workdir=/run/kios/etc/work",
      )
      assert.strictEqual(subject.mountAt("/run/kios/etc")?.options, "mode=0755,size=16M,nr_inodes=4k")
      assert.isFalse(Context.get(services, Etc).persistent)
    }),
  )
  it.effect("is detached at shutdown", () =>
    Effect.gen(function* () {
      const subject = machine()
      const scope = yield* Scope.make()
      yield* Scope.provide(up(EtcOverlay.stage, subject, before(undefined)), scope)
      yield* Scope.close(scope, Exit.void)
      assert.isUndefined(subject.mountAt("/etc"))
      assert.isUndefined(subject.mountAt("/run/kios/etc"))
      assert.deepStrictEqual(subject.log().slice(-2), [
        'umount2("/etc", MNT_DETACH)',
        'umount2("/run/kios/etc", MNT_DETACH)',
      ])
    }),
  )
  for (const [what, errno] of [
    ["mount", "ENODEV"],
    ["mount", "EINVAL"],
    ["mkdir", "EROFS"],
    ["mkdir", "ENOSPC"],
  ] as const)
    it.effect(`${what}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const subject = machine()
        subject.failOn(what, errno)
        assert.strictEqual(yield* outcome(EtcOverlay.stage, subject, before(undefined)), errno)
      }),
    )
})

describe("mountAll", () => {
  it.effect("makes a mount point where there is none, and only there", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/there/": "" } })
      const row = { source: "t", fstype: "tmpfs", flags: [], why: "test", reference: "test" } as const
      yield* MountTable.mountAll([
        { ...row, target: "/there" },
        { ...row, target: "/made/here" },
      ]).pipe(Effect.provide(machine.layer))
      machine.expectCalls([
        'mount("t", "/there", "tmpfs", 0)',
        'mkdir("/made/here", 0755)',
        'mount("t", "/made/here", "tmpfs", 0)',
      ])
    }),
  )
  it("every mount of ours says what it is for and where that comes from", () => {
    for (const row of [
      ...RootSwitch.mounts,
      ...PseudoFilesystemsStage.mounts,
      ...EphemeralFilesystems.mounts,
      ...CgroupsStage.mounts,
      ...EtcOverlay.mounts,
    ]) {
      assert.isAbove(row.why.length, 10, row.target)
      assert.isAbove(row.reference.length, 3, row.target)
      assert.include(row.flags, "MS_NOSUID", row.target)
      // noexec and nodev are left out only where the row says why.
      if (!row.flags.includes("MS_NOEXEC")) assert.match(row.why, /exec/u, row.target)
      if (!row.flags.includes("MS_NODEV")) assert.match(row.why, /nodev/u, row.target)
      if (["tmpfs", "devtmpfs"].includes(row.fstype)) assert.match(row.options ?? "", /size=/u, row.target)
    }
  })

  const bind = {
    source: "/from",
    target: "/to",
    fstype: "none",
    flags: ["MS_BIND", "MS_RDONLY", "MS_NOSUID"],
    why: "test",
    reference: "test",
  } as const
  it.effect("a bind is two calls, because the first one takes no flags", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/from/file": "x", "/to/": "" } })
      yield* MountTable.mountOne(bind).pipe(Effect.provide(machine.layer))
      machine.expectCalls([
        'mount("/from", "/to", "none", MS_BIND)',
        'mount("none", "/to", "none", MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID)',
      ])
      assert.strictEqual(machine.read("/to/file"), "x")
      assert.deepStrictEqual(machine.mountAt("/to")?.flags.slice(0, 2), ["ro", "nosuid"])
    }),
  )
  for (const errno of ["EPERM", "EBUSY", "EINVAL"])
    it.effect(`a bind whose flags are refused (${errno}) does not stay without them`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make({ files: { "/from/file": "x", "/to/": "" } })
        machine.failNth(2, "mount", errno)
        const error = yield* Effect.flip(MountTable.mountOne(bind).pipe(Effect.provide(machine.layer)))
        assert.strictEqual(error.errno, errno)
        assert.isUndefined(machine.mountAt("/to"))
      }),
    )
})
