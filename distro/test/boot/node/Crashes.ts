/** containerd and the kubelet die; the pods do not. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import * as EventRecord from "@kios/core/EventRecord"
import { eventually, eventuallyAssert, hello, hostProcesses, Node, processes, shellPod } from "../support.ts"

const late = "/host/etc/kubernetes/manifests/late.json"

/** Pid and start time of the sample pod's httpd. */
const httpd = Effect.map(processes, (all) =>
  all.filter(({ name }) => name === "httpd").map(({ pid, start }) => ({ pid, start })),
)

const shims = Effect.map(
  hostProcesses,
  (list) => list.filter(({ exe }) => exe === "/bin/containerd-shim-runc-v2").length,
)

const one = (exe: string) =>
  Effect.flatMap(hostProcesses, (list) => {
    const found = list.filter((process) => process.exe === exe)
    const [process] = found
    return process !== undefined && found.length === 1
      ? Effect.succeed(process)
      : Effect.fail(new Error(`${found.length} processes of ${exe}`))
  })

/** When a process was started, in milliseconds since the epoch by the guest's clock. */
const startOf = Effect.fnUntraced(function* (process: { readonly start: string }) {
  const { lines } = yield* Node
  const [now = "", uptime = ""] = yield* lines("date +%s; cut -d' ' -f1 /proc/uptime")
  // proc_pid_stat(5): clock ticks after boot, of which there are 100 a second. date rounds down.
  return (Number(now) - Number(uptime) + Number(process.start) / 100 - 1) * 1000
})

/** SIGKILL, then a new process in its place; returns that. */
const killAndWait = Effect.fnUntraced(function* (name: string) {
  const { lines, machine } = yield* Node
  const exe = `/bin/${name}`
  const before = yield* one(exe)
  yield* lines(`kill -KILL ${before.pid}`)
  const after = yield* eventuallyAssert(`a new ${name}`, one(exe), ({ parent, pid, start }) => {
    assert.notDeepEqual([pid, start], [before.pid, before.start])
    assert.strictEqual(parent, 1)
  })
  const told = machine
    .events()
    .some(
      (event) => event._tag === "KiosError" && event.message.startsWith(`${name}: ended with signal SIGKILL`),
    )
  assert.isTrue(told, `the console tells of the end of ${name}`)
  return after
})

/** What init has recorded. */
const events = Effect.gen(function* () {
  const { lines } = yield* Node
  return yield* EventRecord.fromJson((yield* lines("cat /host/run/kios/events.json")).join("\n"))
})

export const crashes = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("containerd and the kubelet come back from SIGKILL, and the pod keeps running", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const served = yield* httpd
      assert.strictEqual(served.length, 1)

      const containerd = yield* killAndWait("containerd")
      yield* hello
      // It may be started more than once: it ends by itself while containerd is not back.
      yield* killAndWait("kubelet")
      yield* hello
      yield* eventually("the kubelet's health", lines("wget -qO- http://127.0.0.1:10248/healthz"))

      assert.deepStrictEqual(yield* httpd, served, "the sample pod's process is the same one")
      assert.strictEqual((yield* one("/bin/containerd")).start, containerd.start, "containerd died once")
    }),
  )

  it.effect("a containerd that hangs (SIGSTOP) is found out and comes back, and the pod keeps running", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const served = yield* httpd
      const before = yield* one("/bin/containerd")
      yield* lines(`kill -STOP ${before.pid}`)
      yield* eventuallyAssert("a new containerd", one("/bin/containerd"), ({ pid, start }) =>
        assert.notDeepEqual([pid, start], [before.pid, before.start]),
      )
      yield* eventuallyAssert("the record of it", events, ({ events: all }) => {
        const about = all.filter((event) => "pid" in event && event.pid === before.pid)
        assert.deepStrictEqual(
          about.map(({ kind }) => kind).filter((kind) => kind !== "process-killed"),
          ["process-started", "process-ready", "process-unresponsive", "process-ended"],
        )
      })
      yield* hello
      assert.deepStrictEqual(yield* httpd, served, "the sample pod's process is the same one")
    }),
  )

  it.effect("how every run ended is on record", () =>
    Effect.gen(function* () {
      const { events: all, processes: totals } = yield* events
      assert.deepStrictEqual(totals.map((one) => one.process).toSorted(), ["containerd", "kubelet"])
      for (const total of totals) {
        assert.strictEqual(total.starts, total.deaths + total.wantedEnds + (total.pid === null ? 0 : 1))
        assert.strictEqual(total.failedStarts, 0)
      }
      for (const event of all)
        if (event.kind === "process-ended")
          assert.isTrue((event.exitCode === null) !== (event.signal === null), JSON.stringify(event))
    }),
  )

  it.effect("each is where it was placed, and init is not", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const of = (pid: number) =>
        lines(
          `cat /proc/${pid}/oom_score_adj; sed -n 's|^0::.*/kios/|kios/|p' /proc/${pid}/cgroup; awk '/^Max (open files|core)/ { print $(NF-2) }' /proc/${pid}/limits`,
        )
      // In the order of /proc/PID/limits: core, open files.
      for (const [exe, ...expected] of [
        ["/bin/containerd", "-999", "kios/runtime", "0", "1048576"],
        // The kubelet sets its own: maxOpenFiles.
        ["/bin/kubelet", "-999", "kios/kubelet", "0", "1000000"],
      ] as const)
        yield* eventuallyAssert(
          `the placement of ${exe}`,
          Effect.flatMap(one(exe), ({ pid }) => of(pid)),
          (told) => assert.strictEqual(told.join(" "), expected.join(" ")),
        )
      assert.deepStrictEqual((yield* of(1)).slice(0, 2), ["0", "kios/init"])
    }),
  )

  it.effect("the log pod's containers have what each of them wrote, before its restarts and after", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      for (const [name, once] of [
        ["containerd", "containerd successfully booted"],
        ["kubelet", "Started kubelet"],
      ] as const) {
        const started = yield* Effect.flatMap(one(`/bin/${name}`), startOf)
        // A container's log has one line per line: its time, the stream, a tag, the line.
        yield* eventuallyAssert(
          `the log of ${name} as the log of a container`,
          lines(
            `cat /host/var/log/pods/kube-system_node-logs-*/${name}/*.log | grep -F '${once}' | cut -d' ' -f1`,
          ),
          (times) => {
            assert.isAtLeast(times.length, 2, "one for each run of it")
            assert.isAtLeast(Date.parse(times.toSorted().at(-1) ?? ""), started, "the run that is up now")
          },
        )
      }
    }),
  )

  it.effect("what came back runs new pods, and init still tells of them", () =>
    Effect.gen(function* () {
      const { lines, machine } = yield* Node
      const before = yield* shims
      yield* lines(`cat >${late} <<'END'\n${shellPod("default", "late", "exec sleep 1000000")}\nEND`)
      const verdict = yield* machine.until({ pods: ["default/late"] }, { timeout: "90 seconds" })
      assert.isTrue(verdict.reached, verdict.reason)
      yield* lines(`rm ${late}`)
      yield* eventuallyAssert("the pod's shim is gone", shims, (count) => assert.strictEqual(count, before))
    }),
  )

  it.effect("no zombies stay", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      yield* eventuallyAssert(
        "processes that nobody waits for",
        lines("grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null || true"),
        (zombies) => assert.deepStrictEqual(zombies, []),
      )
    }),
  )
}
