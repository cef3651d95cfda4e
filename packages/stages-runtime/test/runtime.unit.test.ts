// containerd's stage, and those that rest on its client.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Kernel } from "@kios/core/Kernel"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { exits, forever, ignoring, leaving, prints } from "@kios/core/testing/TestPrograms"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Images } from "@kios/core/capabilities/Images"
import { PodSweep } from "@kios/core/capabilities/PodSweep"
import * as Containerd from "@kios/stages-runtime/Containerd"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
import { ContainerdClient } from "@kios/stages-runtime/containerd/ContainerdClient"
import { GrpcError } from "@kios/stages-runtime/containerd/GrpcStatus"
import { ImageImportError } from "@kios/stages-runtime/containerd/ImageImport"
import type { TaskStart } from "@kios/stages-runtime/containerd/TaskStarts"
import * as ImagePreload from "@kios/stages-runtime/ImagePreload"
import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
import * as RemainingPods from "@kios/stages-runtime/RemainingPods"
import { makeFakeContainerd } from "./containerd/support/FakeContainerd.ts"
import { tempDir } from "./containerd/support/http2Server.ts"
import { earlier, up, withProc } from "./support.ts"

const client = (members: Partial<ContainerdClient["Service"]>) =>
  Layer.succeed(ContainerdClient, members as ContainerdClient["Service"])

describe("containerd", () => {
  const before = Layer.mergeAll(
    earlier(),
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.succeed(DataPartition, { device: undefined }),
    Layer.succeed(PodSweep, { graceMs: 0 }),
    Layer.succeed(Cgroups, {
      root: "/cg",
      controllers: [],
      init: "/cg/init",
      runtime: "/cg/runtime",
      kubelet: "/cg/kubelet",
      memoryMin: { init: 0, runtime: 0, kubelet: 0 },
    }),
  )
  const machineWith = (programs: TestMachine.TestMachineOptions["programs"]) =>
    Effect.gen(function* () {
      const machine = TestMachine.make({
        programs: programs ?? {},
        files: { "/cg/": "", "/run/kios/log/": "" },
      })
      yield* machine.kernel.mount({ source: "cgroup2", target: "/cg", fstype: "cgroup2", flags: [] })
      yield* machine.kernel.makeDirectory("/cg/runtime")
      return machine
    })

  it.live("is up when its API answers, and is stopped with its scope", () =>
    Effect.gen(function* () {
      const fake = yield* makeFakeContainerd(`${yield* tempDir}/c.sock`)
      const machine = yield* machineWith({ "/bin/containerd": prints(["starting containerd"], forever) })
      const config = { ...ContainerdConfig.reference, address: fake.address }
      const scope = yield* Scope.make()
      const services = yield* up(Containerd.make(config), machine, before).pipe(
        Scope.provide(scope),
        Effect.timeout("10 seconds"),
      )
      assert.strictEqual(Context.get(services, ContainerRuntime).endpoint, `unix://${fake.address}`)
      assert.deepStrictEqual(machine.log({ only: ["spawn"] }), [
        'spawn("/bin/containerd", "--config", "/run/kios/containerd.toml")',
      ])
      assert.deepInclude(machine.processes()[0], {
        cgroup: "/runtime",
        oomScoreAdj: -999,
        env: { PATH: "/bin" },
      })
      assert.strictEqual(machine.read("/run/kios/containerd.toml"), ContainerdConfig.render(config))
      assert.strictEqual(machine.modeOf("/run/kios/containerd.toml"), 0o600)
      assert.strictEqual(machine.read("/run/kios/log/containerd.log"), "starting containerd\n")
      assert.deepStrictEqual(
        machine.kmsg.filter((line) => line.includes("milestone")),
        ["notice milestone containerd-exec", "notice milestone containerd-ready"],
      )
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(machine.processes(), [])
    }),
  )

  it.effect("one that dies again and again fails the boot, with its last words", () =>
    Effect.gen(function* () {
      const machine = yield* machineWith({
        "/bin/containerd": prints(["containerd: invalid config"], exits(1)),
      })
      const config = { ...ContainerdConfig.reference, address: `${yield* tempDir}/none.sock` }
      const fiber = yield* Effect.forkChild(Effect.scoped(up(Containerd.make(config), machine, before)), {
        startImmediately: true,
      })
      yield* TestClock.adjust("130 seconds")
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.match(
        (error as Error).message,
        /^containerd was not up within 2m 10s: .*exit code 1.*saying: containerd: invalid config$/u,
      )
    }),
  )

  for (const errno of ["ENOSPC", "EROFS"])
    it.effect(`its configuration cannot be written: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = yield* machineWith({ "/bin/containerd": forever })
        machine.failOn("writeFile", errno)
        const error = yield* Effect.flip(
          Effect.scoped(up(Containerd.make(ContainerdConfig.reference), machine, before)),
        )
        assert.strictEqual((error as { readonly errno?: string }).errno, errno)
        assert.deepStrictEqual(machine.log({ only: ["spawn"] }), [])
      }),
    )
})

describe("image-preload", () => {
  const files = {
    "/lib/kios/images/a.tar": "",
    "/lib/kios/images/broken.tar": "",
    "/lib/kios/images/c.tar": "",
    "/lib/kios/images/README": "",
  }
  const importing = (asked: Array<string>, device?: string) =>
    Layer.merge(
      Layer.succeed(DataPartition, { device }),
      client({
        importImage: ({ archive, unlessThere }) => {
          assert.isTrue(unlessThere)
          asked.push(archive)
          const name = `image of ${archive}`
          return archive.includes("broken")
            ? Effect.fail(new Error("unexpected EOF") as never)
            : Effect.succeed([archive.includes("there") ? { name, wasThere: true } : { name }] as never)
        },
      }),
    )
  it.effect("imports every archive, and skips a broken one by name", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files })
      const asked: Array<string> = []
      const services = yield* up(ImagePreload.stage, machine, importing(asked))
      assert.deepStrictEqual(
        asked,
        ["a", "broken", "c"].map((name) => `/lib/kios/images/${name}.tar`),
      )
      assert.deepStrictEqual(Context.get(services, Images).names, [
        "image of /lib/kios/images/a.tar",
        "image of /lib/kios/images/c.tar",
      ])
      assert.include(machine.kmsg, "err error image archive broken.tar was skipped: unexpected EOF")
      assert.include(machine.kmsg, "notice milestone images-ready count=2 imported=2")
      // Those that were imported are gone, and their memory with them.
      assert.deepStrictEqual(yield* machine.kernel.readDirectory("/lib/kios/images"), [
        "README",
        "broken.tar",
      ])
    }),
  )
  const data = {
    "/run/kios/data/data/images/agent.tar": "",
    "/run/kios/data/data/images/broken-too.tar": "",
    "/run/kios/data/data/images/there.tar": "",
  }
  it.effect("those of the data partition follow in the background, and stay where they are", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { ...files, ...data } })
      const asked: Array<string> = []
      const services = yield* up(ImagePreload.stage, machine, importing(asked, "/dev/vda1"))
      // What the kubelet waits for is of the image alone.
      assert.deepStrictEqual(Context.get(services, Images).names.length, 2)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        asked.slice(3),
        ["agent", "broken-too", "there"].map((name) => `/run/kios/data/data/images/${name}.tar`),
      )
      assert.include(machine.kmsg, "err error image archive broken-too.tar was skipped: unexpected EOF")
      assert.include(machine.kmsg, "notice milestone data-images-ready count=2 imported=1")
      assert.lengthOf(yield* machine.kernel.readDirectory("/run/kios/data/data/images"), 3)
    }),
  )
  it.effect("a directory of that name on a node without a data partition is not looked at", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: data })
      const asked: Array<string> = []
      yield* up(ImagePreload.stage, machine, importing(asked))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(asked, [])
    }),
  )
  it.effect("an import that containerd's restart has cut is done again", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/lib/kios/images/a.tar": "" } })
      let asked = 0
      const cut = new ImageImportError({
        archive: "a.tar",
        reason: "UNAVAILABLE",
        grpc: new GrpcError({ method: "Transfer", address: "c.sock", code: "UNAVAILABLE", reason: "reset" }),
      })
      const containerd = client({
        importImage: () =>
          Effect.suspend(() => (asked++ < 2 ? Effect.fail(cut) : Effect.succeed([{ name: "a" }] as never))),
      })
      const fiber = yield* Effect.forkChild(
        up(
          ImagePreload.stage,
          machine,
          Layer.merge(containerd, Layer.succeed(DataPartition, { device: undefined })),
        ),
        { startImmediately: true },
      )
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(Context.get(yield* Fiber.join(fiber), Images).names, ["a"])
      assert.deepStrictEqual(yield* machine.kernel.readDirectory("/lib/kios/images"), [])
    }),
  )
  it.effect("those of the image are imported at the same time, those of the data partition one by one", () =>
    Effect.gen(function* () {
      const names = ["a", "b", "c"].map((name) => `${name}.tar`)
      const machine = TestMachine.make({
        files: Object.fromEntries(
          ["/lib/kios/images", "/run/kios/data/data/images"].flatMap((directory) =>
            names.map((name) => [`${directory}/${name}`, ""]),
          ),
        ),
      })
      const most = new Map<string, number>()
      const now = new Map<string, number>()
      const containerd = client({
        importImage: ({ archive }) => {
          const where = archive.slice(0, archive.lastIndexOf("/"))
          const add = (change: number) =>
            Effect.sync(() => {
              now.set(where, (now.get(where) ?? 0) + change)
              most.set(where, Math.max(most.get(where) ?? 0, now.get(where) ?? 0))
            })
          return Effect.acquireUseRelease(
            add(1),
            () => Effect.as(Effect.sleep("1 second"), [{ name: archive }] as never),
            () => add(-1),
          )
        },
      })
      const partition = Layer.succeed(DataPartition, { device: "/dev/vda1" })
      const fiber = yield* Effect.forkChild(
        up(ImagePreload.stage, machine, Layer.merge(containerd, partition)),
        { startImmediately: true },
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(Object.fromEntries(most), {
        "/lib/kios/images": 3,
        "/run/kios/data/data/images": 1,
      })
    }),
  )
  // As the root switch leaves it: the image's filesystem is read-only, and so is its mount.
  const sealed = Effect.gen(function* () {
    const machine = TestMachine.make({ files: { ...files, "/run/": "", "/proc/": "" } })
    const none = { source: "none", fstype: "none" } as const
    const { kernel } = machine
    yield* kernel.mount({ ...none, target: "/proc", fstype: "proc", flags: [] })
    yield* kernel.mount({ source: "tmpfs", target: "/run", fstype: "tmpfs", flags: [] })
    yield* kernel.mount({ ...none, source: "/lib", target: "/lib", flags: ["MS_BIND"] })
    yield* kernel.mount({ ...none, target: "/lib", flags: ["MS_REMOUNT", "MS_BIND", "MS_RDONLY"] })
    yield* kernel.mount({ ...none, target: "/", flags: ["MS_REMOUNT", "MS_RDONLY"] })
    return { machine, set: machine.log().length }
  })
  const window = "/run/kios/image-archives"
  const remount = (flag: string) =>
    `mount("none", "${window}", "none", MS_REMOUNT${flag}|MS_NOSUID|MS_NODEV|MS_NOEXEC)`
  it.effect("archives of a read-only image are unlinked through a mount that nobody sees", () =>
    Effect.gen(function* () {
      const { machine, set } = yield* sealed
      yield* up(ImagePreload.stage, machine, importing([]))
      assert.deepStrictEqual(machine.log().slice(set), [
        'unlink("/lib/kios/images/a.tar") = EROFS',
        'unlink("/lib/kios/images/c.tar") = EROFS',
        `mkdir("${window}", 0700)`,
        `mount("/lib/kios/images", "${window}", "none", MS_BIND)`,
        remount(""),
        `unlink("${window}/a.tar")`,
        `unlink("${window}/c.tar")`,
        remount("|MS_RDONLY"),
        `umount2("${window}", MNT_DETACH)`,
      ])
      assert.isTrue(
        machine.kmsg.some((line) => /released 2 image archives, MemAvailable \d+ -> \d+ kB$/u.test(line)),
        machine.kmsg.join("\n"),
      )
      assert.deepStrictEqual(yield* machine.kernel.readDirectory("/lib/kios/images"), [
        "README",
        "broken.tar",
      ])
      assert.strictEqual((yield* Effect.flip(machine.kernel.writeFile("/lib/x", "x"))).errno, "EROFS")
      assert.strictEqual((yield* Effect.flip(machine.kernel.writeFile("/x", "x"))).errno, "EROFS")
    }),
  )
  for (const [what, errno, n, path] of [
    ["mkdir", "ENOSPC", 1, window],
    ["mount", "EPERM", 1, window],
    ["mount", "EBUSY", 2, window],
    ["unlink", "EIO", 1, `${window}/a.tar`],
    ["umount2", "EBUSY", 1, window],
  ] as const)
    it.effect(`${what} ${path} (${n}): ${errno} costs memory, and the image is read-only all the same`, () =>
      Effect.gen(function* () {
        const { machine } = yield* sealed
        machine.failNth(n, what, errno, { path })
        const services = yield* up(ImagePreload.stage, machine, importing([]))
        assert.strictEqual(Context.get(services, Images).names.length, 2)
        assert.isTrue(machine.kmsg.some((line) => line.startsWith("warning ") && line.includes(errno)))
        assert.strictEqual((yield* Effect.flip(machine.kernel.writeFile("/x", "x"))).errno, "EROFS")
      }),
    )
  it.effect("what does not become read-only again at once is tried again", () =>
    Effect.gen(function* () {
      const { machine } = yield* sealed
      machine.failNth(3, "mount", "EBUSY", { path: window })
      const fiber = yield* Effect.forkChild(up(ImagePreload.stage, machine, importing([])), {
        startImmediately: true,
      })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.isTrue(machine.kmsg.some((line) => line.startsWith("warning ") && line.includes("EBUSY")))
      assert.strictEqual((yield* Effect.flip(machine.kernel.writeFile("/x", "x"))).errno, "EROFS")
    }),
  )
  it.effect("an image whose filesystem stays writable is a failure of the stage", () =>
    Effect.gen(function* () {
      const { machine } = yield* sealed
      const kernel = Kernel.of({
        ...machine.kernel,
        mount: (call) => {
          if (call.target === window && call.flags.includes("MS_RDONLY"))
            machine.failOn("mount", "EBUSY", { path: window })
          return machine.kernel.mount(call)
        },
      })
      const fiber = yield* up(
        ImagePreload.stage,
        { ...machine, kernel, layer: Layer.succeed(Kernel, kernel) },
        importing([]),
      ).pipe(Effect.exit, Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust("10 seconds")
      const exit = yield* Fiber.join(fiber)
      assert.isTrue(Exit.isFailure(exit))
    }),
  )
  it.effect("an image without archives has none", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      const services = yield* up(ImagePreload.stage, machine, importing([]))
      assert.deepStrictEqual(Context.get(services, Images).names, [])
    }),
  )
})

describe("pod-milestones", () => {
  const start = (podName: string | undefined, kind: TaskStart["kind"] = "container"): TaskStart => ({
    containerId: "c",
    pid: 2,
    startedAt: undefined,
    labels: {},
    image: "",
    kind,
    podName,
    podNamespace: "default",
    containerName: "main",
  })
  it.effect("each pod once, by its manifest's name, and no sandboxes", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      const starts = [
        start("hello-node-7"),
        start("hello-node-7"),
        start("pause", "sandbox"),
        start(undefined),
        start("other"),
      ]
      yield* up(
        PodMilestones.stage,
        machine,
        Layer.merge(
          client({ taskStarts: Stream.fromIterable(starts) }),
          Layer.succeed(Hostname, { name: "node-7" }),
        ),
      )
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(machine.kmsg, [
        "notice milestone pod-running pod=default/hello",
        "notice milestone pod-running pod=default/other",
      ])
    }),
  )
})

describe("remaining-pods", () => {
  const before = Layer.merge(earlier(), Layer.succeed(DataPartition, { device: undefined }))
  const ended = (programs: TestMachine.TestMachineOptions["programs"], mounts: ReadonlyArray<string> = []) =>
    Effect.gen(function* () {
      const machine = yield* withProc({ programs: programs ?? {} })
      for (const target of mounts) {
        yield* machine.kernel.makeDirectory(target)
        yield* machine.kernel.mount({ source: "pod", target, fstype: "tmpfs", flags: [] })
      }
      const scope = yield* Scope.make()
      yield* Scope.provide(up(RemainingPods.stage, machine, before), scope)
      for (const command of Object.keys(programs ?? {}))
        yield* machine.kernel.spawn({ command, args: [], env: {} })
      yield* TestClock.adjust(0)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      return { machine, closing, kills: () => machine.log({ only: ["kill"] }) }
    })
  it.effect("does nothing while the node runs, and nothing at shutdown when nobody is left", () =>
    Effect.gen(function* () {
      const { closing, kills } = yield* ended({})
      yield* Fiber.join(closing)
      assert.deepStrictEqual(kills(), [])
    }),
  )
  it.effect("SIGTERM is enough for those who listen", () =>
    Effect.gen(function* () {
      const { closing, kills, machine } = yield* ended({ "/a": forever, "/b": forever })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(kills(), ["kill(-1, SIGTERM)"])
      assert.deepStrictEqual(machine.processes(), [])
    }),
  )
  it.effect("SIGKILL comes after the grace, for those who do not", () =>
    Effect.gen(function* () {
      const { closing, kills } = yield* ended({
        "/a": ignoring(["SIGTERM"]),
        "/b": leaving([ignoring(["SIGTERM"])], forever),
      })
      yield* TestClock.adjust("9900 millis")
      assert.deepStrictEqual(kills(), ["kill(-1, SIGTERM)"])
      yield* TestClock.adjust("7 seconds")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(kills(), ["kill(-1, SIGTERM)", "kill(-1, SIGKILL)"])
    }),
  )
  const pods = ["/run/containerd/a/rootfs", "/var/lib/kubelet/pods/x/volumes/v", "/run/netns/n", "/srv/kept"]
  it.effect("what pods mounted is unmounted, last first, and nothing else", () =>
    Effect.gen(function* () {
      const { closing, machine } = yield* ended({}, pods)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(
        machine.log({ only: ["umount"] }),
        ["/run/netns/n", "/var/lib/kubelet/pods/x/volumes/v", "/run/containerd/a/rootfs"].map(
          (target) => `umount2("${target}", 0)`,
        ),
      )
      assert.isDefined(machine.mountAt("/srv/kept"))
    }),
  )
  it("finds them in mountinfo, also those with blanks in their names", () => {
    assert.deepStrictEqual(
      RemainingPods.podMounts(
        "22 1 0:1 / /var/lib/kubelet/a\\040b rw - tmpfs t rw\n23 1 0:1 / /var rw - tmpfs t rw\nodd\n",
      ),
      ["/var/lib/kubelet/a b"],
    )
  })
})
