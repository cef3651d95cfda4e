/** What is on the host and what is not: processes, programs, settings. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import { pipeline } from "../../../src/pipeline.ts"
import { eventuallyAssert, hostProcesses, Node } from "../support.ts"

const shim = "/bin/containerd-shim-runc-v2"

export const host = (podCount: number) => (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("init, containerd, kubelet and one shim per pod are all the processes of the host", () =>
    Effect.gen(function* () {
      // runc comes and goes while a pod starts.
      const found = yield* eventuallyAssert("the host's processes", hostProcesses, (list) =>
        assert.deepStrictEqual(list.map(({ exe }) => exe).sort(), [
          "/bin/containerd",
          ...Array.from({ length: podCount }, () => shim),
          "/bin/kubelet",
          "/init",
        ]),
      )
      assert.deepStrictEqual(
        found.filter(({ exe }) => exe === "/init").map(({ pid }) => pid),
        [1],
      )
    }),
  )

  it.effect("a watchdog runs, which init feeds, and the kernel's log outlives a panic", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      assert.deepStrictEqual(yield* lines("cd /sys/class/watchdog/watchdog0 && cat identity state timeout"), [
        "Software Watchdog",
        "active",
        "120",
      ])
      assert.deepStrictEqual(yield* lines("cat /sys/module/pstore/parameters/backend"), ["efi_pstore"])
    }),
  )

  it.effect("/bin holds six programs, and nothing else on the host is executable but the loader", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      assert.deepStrictEqual(yield* lines("ls -A /proc/1/root/bin"), [
        "containerd",
        "containerd-shim-runc-v2",
        "kubelet",
        "mount",
        "runc",
        "umount",
      ])
      assert.deepStrictEqual(
        yield* lines("ls -A /proc/1/root"),
        "bin dev etc lib lib64 opt proc run sys tmp var".split(" "),
      )
      // Every mount of the host but the kernel's own views and containers' root
      // file systems, each for itself; containers' layers and volumes are not the host's.
      const executables = yield* lines(String.raw`
cut -d' ' -f5 /proc/1/mountinfo | grep -v -e '^/proc' -e '^/sys' -e '^/run/containerd/' -e '^/run/netns/' \
    -e '^/var/lib/containerd' -e '^/var/lib/kubelet' |
  while read -r target; do find "/proc/1/root$target" -xdev -type f -perm /111; done |
  sed 's|^/proc/1/root/*|/|' |
  grep -v -e '^/run/kios/data/data/oci/' -e '^/run/kios/data/data/pods/' -e '^/run/kios/data/data/cni/' | sort -u`)
      assert.deepStrictEqual(executables, [
        "/bin/containerd",
        "/bin/containerd-shim-runc-v2",
        "/bin/kubelet",
        "/bin/mount",
        "/bin/runc",
        "/bin/umount",
        "/lib64/ld-linux-x86-64.so.2",
      ])
    }),
  )

  it.effect("a pod without CAP_SYS_ADMIN can neither write to the image nor remount it", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const log = yield* eventuallyAssert(
        "the log of the pod apps/second",
        lines("cat /host/var/log/pods/apps_second-*/main/0.log"),
        (records) => assert.isTrue(records.some((record) => record.endsWith(" finished"))),
      )
      const said = log.map((record) => record.split(" ").slice(3).join(" "))
      const codes = Object.fromEntries(
        said.flatMap((line) => (/^[a-z-]+ \d+$/.test(line) ? [line.split(" ") as [string, string]] : [])),
      )
      assert.deepStrictEqual(
        Object.keys(codes).sort(),
        "remount-bin remount-root uid umount-bin write-bin write-direct-bin write-direct-lib write-lib write-root".split(
          " ",
        ),
      )
      for (const [attempt, code] of Object.entries(codes))
        if (attempt === "uid") assert.strictEqual(code, "0")
        else assert.notStrictEqual(code, "0", `${attempt} succeeded`)
      for (const file of ["/host/bin/x", "/host/x", "/host/lib/x", "/host-bin/x", "/host-lib/x"])
        assert.include(said, `touch: ${file}: Read-only file system`)
      // EPERM, as BusyBox words it for mount and for umount.
      const refused = said.filter((line) => line.includes("mount:"))
      assert.strictEqual(refused.length, 3, refused.join("\n"))
      for (const line of refused)
        assert.match(line, /: (?:permission denied \(are you root\?\)|Operation not permitted)$/)
    }),
  )

  it.effect("hands its children nothing of the environment that the kernel gave it", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      for (const name of ["containerd", "kubelet"]) {
        const pid = (yield* hostProcesses).find(({ exe }) => exe === `/bin/${name}`)?.pid
        assert.deepStrictEqual(yield* lines(`tr '\\0' '\\n' </proc/${pid}/environ`), ["PATH=/bin"], name)
      }
    }),
  )

  it.effect("forwards packets, knows itself, and has lo up and its modules loaded", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      assert.deepStrictEqual(
        yield* lines(
          "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/kernel/hostname",
        ),
        ["1", "1", "kios"],
      )
      const ids = yield* lines("cat /host/etc/machine-id /host/run/kios/data/meta/etc/machine-id")
      assert.strictEqual(ids.length, 2)
      assert.match(ids[0] ?? "", /^[0-9a-f]{32}$/)
      assert.strictEqual(ids[0], ids[1])
      assert.match((yield* lines("ip -o link show lo"))[0] ?? "", /<LOOPBACK,UP,LOWER_UP>/)
      const loaded = new Set(yield* lines("cut -d' ' -f1 /proc/modules"))
      const builtin = new Set(
        (yield* lines("cat /host/lib/modules/*/modules.builtin")).map((file) =>
          file
            .replace(/^.*\//u, "")
            .replace(/\.ko.*$/u, "")
            .replaceAll("-", "_"),
        ),
      )
      // The last ones are in no list: the machine's devices want them.
      const wanted = [
        ...KernelModules.bootModules,
        ...KernelModules.nodeModules,
        "virtio_blk",
        "virtio_net",
        "virtio_rng",
        "button",
        "evdev",
      ]
      assert.deepStrictEqual(
        wanted.filter((name) => !loaded.has(name) && !builtin.has(name)),
        [],
      )
    }),
  )

  it.effect("keeps a report of its boot", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      interface Report {
        readonly version: number
        readonly stages: ReadonlyArray<{ name: string; startMs: number; endMs: number; outcome: string }>
        readonly milestones: ReadonlyArray<{ name: string; atMs: number }>
      }
      // Some stages that nothing waits for may take longer than the first pods.
      const report = yield* eventuallyAssert(
        "a report of all stages",
        Effect.map(lines("cat /host/run/kios/boot.json"), (text) => JSON.parse(text.join("\n")) as Report),
        ({ stages }) =>
          assert.deepStrictEqual(
            stages.map(({ name }) => name).sort(),
            pipeline.stages.map(({ name }) => name).sort(),
          ),
      )
      assert.strictEqual(report.version, 1)
      for (const { endMs, name, outcome, startMs } of report.stages) {
        assert.strictEqual(outcome, "up", name)
        assert.isAbove(startMs, 0, name)
        assert.isAtLeast(endMs, startMs, name)
      }
      const milestones = report.milestones.map(({ name }) => name)
      for (const name of ["init", "containerd-ready", "kubelet-healthy", "boot-complete", "pod-running"])
        assert.include(milestones, name)
    }),
  )
}
