// What TestMachine adds to the contract: recorded calls, injected errors, and the parts of a machine that the
// development host does not have. Its semantics are in test/contract.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import * as TestDisks from "@kios/core/testing/TestDisks"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, leaving } from "@kios/core/testing/TestPrograms"

const on = <A, E>(machine: TestMachine.TestMachine, body: (k: KernelShape) => Effect.Effect<A, E>) =>
  Kernel.use(body).pipe(Effect.provide(machine.layer))
const errnoOf = <A>(effect: Effect.Effect<A, { readonly errno: string }>) =>
  Effect.map(Effect.flip(effect), (error) => error.errno)
const mount = (fstype: string, target: string, options?: string, source = fstype) =>
  ({ source, target, fstype, flags: [], ...(options === undefined ? {} : { options }) }) as const

describe("calls", () => {
  it.effect("are recorded in order, as strace would print them, with the errno of those that failed", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          yield* k.makeDirectory("/tmp", 0o700)
          yield* k.mount({
            source: "tmpfs",
            target: "/tmp",
            fstype: "tmpfs",
            flags: ["MS_NOSUID", "MS_NODEV"],
            options: "mode=1777",
          })
          yield* Effect.ignore(k.umount("/nowhere", ["MNT_DETACH"]))
          yield* k.writeFile("/tmp/a", "two\nlines", 0o600)
          yield* k.stat("/tmp/a")
        }),
      )
      const expected = [
        'mkdir("/tmp", 0700)',
        'mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID|MS_NODEV, "mode=1777")',
        'umount2("/nowhere", MNT_DETACH) = ENOENT',
        'write("/tmp/a", "two\\nlines", 0600)',
      ]
      machine.expectCalls(expected)
      assert.strictEqual(machine.calls.length, 5)
      machine.expectCalls(['lstat("/tmp/a")'], { only: ["stat"] })
    }),
  )

  it("that are not as expected are shown as a diff of lines", () => {
    const machine = TestMachine.make()
    Effect.runSync(on(machine, (k) => Effect.andThen(k.setHostname("a"), k.linkUp("lo"))))
    assert.throws(
      () => machine.expectCalls(['sethostname("a")', "sync()", 'ioctl(SIOCSIFFLAGS, "lo", IFF_UP)']),
      'calls differ (- expected, + actual):\n  sethostname("a")\n- sync()\n  ioctl(SIOCSIFFLAGS, "lo", IFF_UP)',
    )
    assert.throws(() => machine.expectCalls([]), '+ sethostname("a")')
  })
})

describe("injected errors", () => {
  it.effect("every call, those of a path, a number of times, the nth", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      machine.failOn("mkdir", "ENOSPC", { path: "/a" })
      machine.failOn("makeDirectory", "EIO", { path: /^\/b/u, times: 1 })
      machine.failNth(2, "sethostname", "EPERM")
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          assert.strictEqual(yield* errnoOf(k.makeDirectory("/a")), "ENOSPC")
          assert.strictEqual(yield* errnoOf(k.makeDirectory("/a")), "ENOSPC")
          assert.strictEqual(yield* errnoOf(k.makeDirectory("/b/c")), "EIO")
          yield* k.makeDirectory("/b/c")
          yield* k.setHostname("one")
          assert.strictEqual(yield* errnoOf(k.setHostname("two")), "EPERM")
          yield* k.setHostname("three")
        }),
      )
      assert.strictEqual(machine.hostname(), "three")
    }),
  )
  it.effect("name the system call that Linux would name, and change nothing", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/f": "old" } })
      machine.failOn("writeFile", "ENOSPC", { times: 1 })
      machine.failOn("writeFile", "EACCES", { times: 1 })
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          assert.strictEqual(
            (yield* Effect.flip(k.writeFile("/f", "new"))).message,
            'write("/f"): ENOSPC (no space left on the filesystem)',
          )
          assert.strictEqual(
            (yield* Effect.flip(k.writeFile("/f", "new"))).message,
            'open("/f"): EACCES (permission denied)',
          )
        }),
      )
      assert.strictEqual(machine.read("/f"), "old")
    }),
  )
})

describe("modules", () => {
  const machine = () =>
    TestMachine.make({
      osrelease: "6.1.0",
      filesystems: ["tmpfs", "proc"],
      modules: {
        llc: {},
        bridge: {
          needs: ["llc"],
          sysctls: { "net.bridge.bridge-nf-call-iptables": "0" },
          interfaces: ["br0"],
        },
        overlay: { filesystems: ["overlay"], path: "kernel/fs/overlayfs/overlay.ko" },
      },
      files: { "/lower/": "", "/upper/": "", "/work/": "", "/m/": "" },
    })
  it.effect("want what they need, load once, and bring what they bring", () =>
    Effect.gen(function* () {
      const subject = machine()
      yield* on(subject, (k) =>
        Effect.gen(function* () {
          const load = (name: string) => k.loadModule(`/lib/modules/6.1.0/kernel/${name}.ko`, "debug=1")
          assert.strictEqual(yield* errnoOf(load("bridge")), "ENOENT")
          assert.strictEqual(yield* errnoOf(k.linkUp("br0")), "ENODEV")
          yield* load("llc")
          yield* load("bridge")
          assert.strictEqual(yield* errnoOf(load("bridge")), "EEXIST")
          yield* k.linkUp("br0")
          yield* k.makeDirectory("/proc")
          yield* k.mount(mount("proc", "/proc"))
          yield* k.writeControl("/proc/sys/net/bridge/bridge-nf-call-iptables", "1")
          assert.strictEqual(
            yield* k.readText("/proc/modules"),
            "bridge 16384 0 - Live 0x0\nllc 16384 0 - Live 0x0\n",
          )
          const options = "lowerdir=/lower,upperdir=/upper,workdir=/work"
          assert.strictEqual(yield* errnoOf(k.mount(mount("overlay", "/m", options))), "ENODEV")
          yield* load("fs/overlayfs/overlay")
          yield* k.mount(mount("overlay", "/m", options))
        }),
      )
      assert.deepStrictEqual(
        [...subject.modules],
        [
          ["llc", "debug=1"],
          ["bridge", "debug=1"],
          ["overlay", "debug=1"],
        ],
      )
      assert.strictEqual(subject.sysctls.get("net.bridge.bridge-nf-call-iptables"), "1")
      assert.isTrue(subject.interfaces.get("br0"))
    }),
  )
  it("have a modules.dep", () => {
    assert.strictEqual(
      machine().read("/lib/modules/6.1.0/modules.dep"),
      "kernel/llc.ko:\nkernel/bridge.ko: kernel/llc.ko\nkernel/fs/overlayfs/overlay.ko:\n",
    )
  })
})

describe("overlay", () => {
  const files = {
    "/lower/kept": "kept",
    "/lower/both": "low",
    "/lower/dir/deep": "deep",
    "/upper/both": "high",
    "/work/": "",
    "/m/": "",
  } as const
  const overlaid = <A, E>(
    body: (k: KernelShape, machine: TestMachine.TestMachine) => Effect.Effect<A, E>,
  ) => {
    const machine = TestMachine.make({ files, filesystems: ["overlay", "tmpfs"] })
    return on(machine, (k) =>
      Effect.andThen(
        k.mount(mount("overlay", "/m", "lowerdir=/lower,upperdir=/upper,workdir=/work")),
        body(k, machine),
      ),
    )
  }
  it.effect("shows the upper over the lower", () =>
    overlaid((k) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* k.readDirectory("/m"), ["both", "dir", "kept"])
        assert.strictEqual(yield* k.readText("/m/both"), "high")
        assert.strictEqual(yield* k.readText("/m/dir/deep"), "deep")
      }),
    ),
  )
  it.effect("writes go to the upper layer only, also below directories that are not there yet", () =>
    overlaid((k, machine) =>
      Effect.gen(function* () {
        yield* k.writeFile("/m/kept", "new")
        yield* k.writeFile("/m/dir/deep", "deeper")
        yield* k.makeDirectory("/m/dir/sub/below")
        yield* k.writeFile("/m/dir/sub/below/f", "x")
        assert.strictEqual(yield* k.readText("/m/kept"), "new")
        assert.strictEqual(machine.read("/lower/kept"), "kept")
        assert.strictEqual(machine.read("/upper/dir/deep"), "deeper")
        assert.strictEqual(machine.read("/upper/dir/sub/below/f"), "x")
      }),
    ),
  )
  it.effect("what is removed stays below and is hidden, and can be made again", () =>
    overlaid((k, machine) =>
      Effect.gen(function* () {
        yield* k.unlink("/m/kept")
        assert.deepStrictEqual(yield* k.readDirectory("/m"), ["both", "dir"])
        assert.isUndefined(yield* k.stat("/m/kept"))
        assert.strictEqual(machine.read("/lower/kept"), "kept")
        yield* k.writeFile("/m/kept", "again")
        assert.strictEqual(yield* k.readText("/m/kept"), "again")
      }),
    ),
  )
  it.effect("refuses missing layers, no lower layer, no work directory, and a work directory elsewhere", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { ...files, "/t/": "" }, filesystems: ["overlay", "tmpfs"] })
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          const errno = (options: string) => errnoOf(k.mount(mount("overlay", "/m", options)))
          assert.strictEqual(yield* errno("lowerdir=/missing"), "ENOENT")
          assert.strictEqual(yield* errno("upperdir=/upper,workdir=/work"), "EINVAL")
          assert.strictEqual(yield* errno("lowerdir=/lower,upperdir=/upper"), "EINVAL")
          yield* k.mount(mount("tmpfs", "/t"))
          assert.strictEqual(yield* errno("lowerdir=/lower,upperdir=/upper,workdir=/t"), "EINVAL")
          yield* k.mount(mount("overlay", "/m", "lowerdir=/lower"))
          assert.strictEqual(yield* errnoOf(k.writeFile("/m/x", "")), "EROFS")
        }),
      )
    }),
  )
})

describe("cgroup2", () => {
  it.effect("controllers go down one level at a time, and a group with members distributes none", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({
        controllers: ["cpu", "memory"],
        files: { "/cg/": "" },
        programs: { "/p": forever },
      })
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          yield* k.mount(mount("cgroup2", "/cg"))
          assert.strictEqual(yield* k.readText("/cg/cgroup.controllers"), "cpu memory\n")
          yield* k.makeDirectory("/cg/a/b")
          assert.strictEqual(yield* k.readText("/cg/a/cgroup.controllers"), "")
          assert.strictEqual(yield* errnoOf(k.writeControl("/cg/a/cgroup.subtree_control", "+cpu")), "ENOENT")
          yield* k.writeControl("/cg/cgroup.subtree_control", "+cpu +memory")
          assert.strictEqual(yield* k.readText("/cg/a/cgroup.controllers"), "cpu memory\n")
          yield* k.writeControl("/cg/a/cgroup.subtree_control", "+memory")
          assert.strictEqual(yield* errnoOf(k.writeControl("/cg/cgroup.subtree_control", "+turbo")), "EINVAL")
          assert.strictEqual(yield* errnoOf(k.writeControl("/cg/a/cgroup.procs", "1")), "EBUSY")
          yield* k.writeControl("/cg/a/b/cgroup.procs", "1")
          assert.strictEqual(
            yield* errnoOf(k.writeControl("/cg/a/b/cgroup.subtree_control", "+memory")),
            "EBUSY",
          )
          assert.strictEqual(yield* errnoOf(k.writeControl("/cg/a/b/cgroup.procs", "99")), "ESRCH")
          const child = yield* k.spawn({ command: "/p", args: [], env: {}, cgroup: "/cg/a/b" })
          assert.strictEqual(yield* k.readText("/cg/a/b/cgroup.procs"), `1\n${child.pid}\n`)
          assert.strictEqual(
            yield* errnoOf(k.spawn({ command: "/p", args: [], env: {}, cgroup: "/cg/none" })),
            "ENOENT",
          )
          assert.strictEqual(yield* errnoOf(k.writeFile("/cg/file", "")), "EACCES")
        }),
      )
    }),
  )
})

describe("disks", () => {
  it.effect("have device nodes, sysfs entries and bytes, and mount what is on them", () =>
    Effect.gen(function* () {
      const disk = TestDisks.gpt({
        partitions: [
          { type: "97aac693-d920-465a-94fe-eb59fc86dfaa", ext4: { label: "data", files: { "/a/b": "x" } } },
          { type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" },
        ],
      })
      const machine = TestMachine.make({
        disks: { nvme0n1: disk },
        files: { "/dev/": "", "/sys/": "", "/m/": "", "/n/": "" },
      })
      yield* on(machine, (k) =>
        Effect.gen(function* () {
          yield* k.mount(mount("devtmpfs", "/dev"))
          yield* k.mount(mount("sysfs", "/sys"))
          assert.deepStrictEqual(yield* k.readDirectory("/sys/block"), ["nvme0n1"])
          assert.strictEqual(Number(yield* k.readText("/sys/block/nvme0n1/size")) * 512, disk.bytes.length)
          assert.strictEqual((yield* k.stat("/dev/nvme0n1p2"))?.kind, "block")
          assert.strictEqual(Buffer.from(yield* k.readAt("/dev/nvme0n1", 512, 8)).toString(), "EFI PART")
          assert.strictEqual(
            Buffer.from(yield* k.readAt("/dev/nvme0n1p1", 1024 + 0x78, 4)).toString(),
            "data",
          )
          yield* k.mount(mount("ext4", "/m", undefined, "/dev/nvme0n1p1"))
          yield* k.writeFile("/m/new", "y")
          yield* k.mount(mount("ext4", "/n", undefined, "/dev/nvme0n1p1"))
          assert.strictEqual(yield* k.readText("/n/new"), "y")
          assert.strictEqual(
            yield* errnoOf(k.mount(mount("ext4", "/n", undefined, "/dev/nvme0n1p2"))),
            "EINVAL",
          )
        }),
      )
    }),
  )
})

describe("time and the end", () => {
  it.effect("the clock is the test's", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* on(machine, (k) => k.monotonic), 3_000_000_000n)
    }),
  )
  it.effect("operations take the time that a test gives them", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ latency: { mount: "2 seconds" }, files: { "/m/": "" } })
      const fiber = yield* Effect.forkChild(
        on(machine, (k) => k.mount(mount("tmpfs", "/m"))),
        { startImmediately: true },
      )
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(machine.mountAt("/m"))
      yield* TestClock.adjust("1 millis")
      assert.isDefined(machine.mountAt("/m"))
      assert.isDefined(fiber.pollUnsafe())
    }),
  )
  it.effect("reboot does not return, but for Ctrl-Alt-Del", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      yield* on(machine, (k) => k.reboot("CAD_OFF"))
      const fiber = yield* Effect.forkChild(
        on(machine, (k) => k.reboot("POWER_OFF")),
        { startImmediately: true },
      )
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      assert.deepStrictEqual(machine.reboots, ["CAD_OFF", "POWER_OFF"])
    }),
  )
  it.effect("children of a process that ends become init's", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ programs: { "/p": leaving([forever], exits(0, "1 second")) } })
      yield* on(machine, (k) => k.spawn({ command: "/p", args: [], env: {} }))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        machine.processes().map((process) => process.parent),
        [1, machine.processes()[0]?.pid],
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        machine.processes().map((process) => process.parent),
        [1],
      )
    }),
  )
  it("a machine prints its mounts", () => {
    const machine = TestMachine.make({ files: { "/tmp/": "" } })
    Effect.runSync(
      on(machine, (k) =>
        k.mount({ source: "t", target: "/tmp", fstype: "tmpfs", flags: ["MS_NOEXEC"], options: "mode=0755" }),
      ),
    )
    assert.strictEqual(
      machine.mountTable(),
      "/ rootfs rootfs rw private\n/tmp t tmpfs rw,noexec,relatime private mode=0755",
    )
  })
})
