/**
 * Pods that take all they can get, with no limits in their manifests: what the
 * node arranges for itself is all that keeps it up. On a machine that is small.
 */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import {
  eventually,
  eventuallyAssert,
  hello,
  hostProcesses,
  Node,
  nodeLayer,
  staticPod,
  unhardened,
} from "./support.ts"

/** A BestEffort pod of nobody's trust, with what a manifest gives that says nothing. */
const pod = (name: string, script: string): string =>
  staticPod("default", name, { command: ["/bin/sh", "-c", script] })

// Each process starts two more, for as long as there are any to be had; the first one never sleeps.
const bomb = pod("bomb", "b() { b & b & exec sleep 1000000; }; b & b & while :; do :; done")
// Twice the machine's memory, at the speed at which the kernel clears pages.
const hog = pod("hog", "while :; do dd if=/dev/zero of=/dev/null bs=2000M count=1; done")

const manifest = (name: string) => `/host/etc/kubernetes/manifests/${name}.json`
const put = (name: string, text: string) =>
  Effect.flatMap(Node, ({ lines }) => lines(`cat >${manifest(name)} <<'END'\n${text}\nEND`))

/** containerd and the kubelet; pid and start name one process for ever. */
const daemons = Effect.map(hostProcesses, (list) =>
  list
    .filter(({ exe }) => exe === "/bin/containerd" || exe === "/bin/kubelet")
    .map(({ exe, pid, start }) => `${exe} ${pid} ${start}`)
    .toSorted(),
)

// The machine is slow, and the pods see to it that it has no time.
const PATIENCE = 300

/** Lines of the kernel's log with this in them. */
const kernelLog = (text: string) =>
  Effect.flatMap(Node, ({ lines }) => lines(`dmesg | grep -F '${text}' || true`))

const healthy = Effect.flatMap(Node, ({ lines }) =>
  eventuallyAssert(
    "the kubelet's health",
    lines("wget -qO- -T 10 http://127.0.0.1:10248/healthz"),
    (answer) => assert.deepStrictEqual(answer, ["ok"]),
    PATIENCE,
  ),
)

const Up = nodeLayer({ manifests: {}, pods: ["default/hello"], memoryMiB: 1024, cmdline: unhardened })

layer(Up, { excludeTestServices: true, timeout: "10 minutes" })("pods that take all they can get", (it) => {
  let before: ReadonlyArray<string> = []
  let groupsBefore: ReadonlyArray<string> = []
  const groups = Effect.flatMap(Node, ({ lines }) =>
    lines("ls -d /host/sys/fs/cgroup/kubepods/besteffort/pod*"),
  )

  // For an instant, what they fork has their executable still.
  const sameDaemons = Effect.suspend(() =>
    eventuallyAssert(
      "containerd and the kubelet",
      daemons,
      (found) => assert.deepStrictEqual(found, before),
      PATIENCE,
    ),
  )

  it.effect("the node's own processes are protected, and pods have less than the machine", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      before = yield* eventuallyAssert("containerd and the kubelet", daemons, (found) =>
        assert.strictEqual(found.length, 2, found.join()),
      )
      groupsBefore = yield* groups
      const group = "/host/sys/fs/cgroup"
      const numbers = Effect.fnUntraced(function* (...files: ReadonlyArray<string>) {
        return (yield* lines(`cd ${group} && cat ${files.join(" ")}`)).map(Number)
      })
      const MiB = 1024 * 1024
      assert.deepStrictEqual(
        yield* numbers(
          ...["kios", "kios/init", "kios/runtime", "kios/kubelet"].map((one) => `${one}/memory.min`),
        ),
        [256 * MiB, 48 * MiB, 144 * MiB, 64 * MiB],
      )
      const [own = 0, pods = 0] = yield* numbers("kios/cpu.weight", "kubepods/cpu.weight")
      assert.isAbove(own, pods, "the node's share of the processors")

      const config = JSON.parse((yield* lines("cat /host/run/kios/kubelet/config.json")).join("\n")) as {
        readonly podPidsLimit: number
        readonly systemReserved: { readonly memory: string; readonly pid: string }
        readonly kubeReserved: { readonly memory: string; readonly pid: string }
      }
      const reserved = (key: "memory" | "pid") =>
        Number.parseInt(config.systemReserved[key], 10) + Number.parseInt(config.kubeReserved[key], 10)
      const [memory = 0, available = 0] = (yield* lines(
        "sed -nE 's/^(MemTotal|MemAvailable): *([0-9]+) kB/\\2/p' /proc/meminfo",
      )).map(Number)
      const [threads = 0] = yield* lines("cat /proc/sys/kernel/threads-max").pipe(
        Effect.map((found) => found.map(Number)),
      )
      assert.deepStrictEqual(yield* numbers("kubepods/memory.max", "kubepods/pids.max"), [
        memory * 1024 - reserved("memory") * MiB,
        threads - reserved("pid"),
      ])
      const [limit = 0, used = 0] = yield* numbers("kubepods/memory.max", "kubepods/memory.current")
      assert.isBelow(limit - used, available * 1024, "what pods may still take, and what there is")
      for (const pids of yield* numbers("kubepods/besteffort/pod*/pids.max"))
        assert.strictEqual(pids, config.podPidsLimit)

      // The OOM killer's order: any pod (1000 down to -997) before shims, containerd and the kubelet.
      const scores = yield* lines(
        `for pid in $(cat ${group}/kios/runtime/cgroup.procs ${group}/kios/kubelet/cgroup.procs); do cat /proc/$pid/oom_score_adj; done`,
      )
      assert.deepStrictEqual([...new Set(scores)].toSorted(), ["-998", "-999"])
    }),
  )

  it.effect("a fork bomb has its pod's process numbers and no more", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      yield* put("bomb", bomb)
      const rejected = yield* eventuallyAssert(
        "a fork that was refused",
        kernelLog("fork rejected by pids controller in /kubepods/besteffort/pod"),
        (found) => assert.isAtLeast(found.length, 1),
        PATIENCE,
      )
      const group = /\/kubepods\/besteffort\/pod\w+/u.exec(rejected[0] ?? "")?.[0] ?? ""
      const [limit = 0, current = 0] = (yield* lines(
        `cd /host/sys/fs/cgroup${group} && cat pids.max pids.current && grep '^max ' pids.events`,
      )).map(Number)
      assert.isAbove(limit, 0, group)
      assert.isAtMost(current, limit)
      // Half of a tree are leaves, which die when they can start nobody.
      assert.isAbove(current, limit / 4, "it is still there")
      yield* healthy
      yield* eventually("GET / of the hello pod", hello, PATIENCE)
      yield* sameDaemons
    }),
  )

  it.effect("a memory hog beside it is killed, and nobody else", () =>
    Effect.gen(function* () {
      yield* put("hog", hog)
      const kills = yield* eventuallyAssert(
        "an OOM kill",
        kernelLog("oom-kill:constraint="),
        (found) => assert.isAtLeast(found.length, 1),
        PATIENCE,
      )
      for (const kill of kills) {
        assert.include(kill, "constraint=CONSTRAINT_MEMCG", "the machine itself ran out of memory")
        assert.match(kill, /oom_memcg=\/kubepods,task_memcg=\/kubepods\/besteffort\/pod/u)
      }
      yield* healthy
      yield* eventually("GET / of the hello pod", hello, PATIENCE)
      yield* sameDaemons
    }),
  )

  it.effect("they can be deleted, and the node runs new pods as if nothing had been", () =>
    Effect.gen(function* () {
      const { lines, machine } = yield* Node
      yield* lines(`rm ${manifest("bomb")} ${manifest("hog")}`)
      yield* eventuallyAssert(
        "the cgroups of the pods that are left",
        groups,
        (names) => assert.deepStrictEqual(names, groupsBefore),
        PATIENCE,
      )
      yield* put("late", pod("late", "exec sleep 1000000"))
      const verdict = yield* machine.until({ pods: ["default/late"] }, { timeout: `${PATIENCE} seconds` })
      assert.isTrue(verdict.reached, verdict.reason)
      yield* sameDaemons
      const deaths = machine
        .events()
        .flatMap((event) => (event._tag === "KiosError" ? [event.message] : []))
        .filter((message) => /^(?:containerd|kubelet): /u.test(message))
      assert.deepStrictEqual(deaths, [])
    }),
  )
})
