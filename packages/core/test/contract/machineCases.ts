// Host name, interfaces, modules and processes.
import * as assert from "node:assert/strict"
import { Deferred, Effect } from "effect"
import * as Reaper from "@kios/core/Reaper"
import { bind, change, group, refused, until } from "./Case.ts"

const { cases, check, checkMachine } = group()
export { cases }

check("the host name is set, also to one of 64 bytes, and refused at 65", function* (k) {
  for (const name of ["node-7", "n".repeat(64)]) {
    yield* k.setHostname(name)
    assert.equal(yield* k.readText("/proc/sys/kernel/hostname"), `${name}\n`)
  }
  yield* refused(k.setHostname("n".repeat(65)), "sethostname EINVAL")
})
check("lo comes up, also twice, and an interface that is not there is refused", function* (k) {
  yield* k.linkUp("lo")
  yield* k.linkUp("lo")
  yield* refused(k.linkUp("kios0"), "ioctl ENODEV")
})
checkMachine("an interface that is up says so in its flags", function* (k) {
  yield* k.linkUp("lo")
  // IFF_UP and IFF_LOOPBACK.
  assert.equal(yield* k.readText("/sys/class/net/lo/flags"), "0x9\n")
  yield* refused(k.readText("/sys/class/net/kios0/flags"), "open ENOENT")
})
check("loading what is no module is refused", function* (k, dir) {
  yield* k.writeFile(`${dir}/not.ko`, "this is no module, but it is long enough to be looked at".repeat(10))
  yield* refused(k.loadModule(`${dir}/missing.ko`), "open ENOENT")
  // The kernel of a development machine may have been built without modules.
  const { errno } = yield* Effect.flip(k.loadModule(`${dir}/not.ko`))
  assert.ok(errno === "ENOEXEC" || errno === "ENOSYS", errno)
  yield* k.symlink("not.ko", `${dir}/link.ko`)
  yield* refused(k.loadModule(`${dir}/link.ko`), "open ELOOP")
})

const env = { PATH: "/usr/bin:/bin" }
check("exit codes come back, the same to everybody who asks", function* (k, _dir, subject) {
  for (const code of [0, 1, 42, 255]) {
    const child = yield* k.spawn({ ...subject.exits(code), env })
    assert.deepEqual(yield* child.exit, { _tag: "Exited", code })
    assert.deepEqual(yield* child.exit, { _tag: "Exited", code })
  }
})
check("a signal that ends a process is its status", function* (k, _dir, subject) {
  for (const signal of ["SIGTERM", "SIGKILL", "SIGINT", "SIGHUP"] as const) {
    const child = yield* k.spawn({ ...subject.forever, env })
    yield* k.kill(child.pid, signal)
    assert.deepEqual(yield* child.exit, { _tag: "Signaled", signal })
  }
})
check("SIGTERM can be ignored, SIGKILL can not", function* (k, _dir, subject) {
  const ready = yield* Deferred.make<void>()
  const onLine = () => void Deferred.doneUnsafe(ready, Effect.void)
  const output = yield* k.openOutput({ onLine })
  const child = yield* k.spawn({ ...subject.stubborn, env, output })
  yield* Deferred.await(ready)
  yield* k.kill(child.pid, "SIGTERM")
  yield* k.kill(child.pid, "SIGKILL")
  assert.deepEqual(yield* child.exit, { _tag: "Signaled", signal: "SIGKILL" })
})
check("every line that a process writes is told", function* (k, _dir, subject) {
  const lines: Array<string> = []
  const output = yield* k.openOutput({ onLine: (line) => lines.push(line) })
  const child = yield* k.spawn({ ...subject.prints(["one", "two", "three"]), env, output })
  yield* child.exit
  // All that was written before the end is there after it.
  output.flush()
  assert.deepEqual(lines, ["one", "two", "three"])
})
check("output goes to a log file of bounded size", function* (k, dir, subject) {
  const log = { path: `${dir}/log`, maxBytes: 10 }
  const output = yield* k.openOutput({ log })
  for (const line of ["the first line", "the second line", "the third line"]) {
    const child = yield* k.spawn({ ...subject.prints([line]), env, output })
    yield* child.exit
    output.flush()
    yield* until(
      Effect.map(
        Effect.exit(k.readText(log.path)),
        (exit) => exit._tag === "Success" && exit.value.includes(line),
      ),
    )
  }
  assert.equal((yield* k.readText(log.path)).trim().split("\n").at(-1), "the third line")
})
check(
  "starting refuses: what is missing, what is no program, what is on a noexec mount",
  function* (k, dir, subject) {
    const start = (command: string) => k.spawn({ command, args: [], env })
    yield* refused(start(`${dir}/missing`), "spawn ENOENT")
    yield* k.writeFile(`${dir}/plain`, "x", 0o644)
    yield* refused(start(`${dir}/plain`), "spawn EACCES")
    yield* refused(start(dir), "spawn EACCES")
    yield* k.writeFile(`${dir}/program`, "")
    yield* bind(k, subject.forever.command, `${dir}/program`)
    const child = yield* k.spawn({ command: `${dir}/program`, args: subject.forever.args, env })
    yield* k.kill(child.pid, "SIGKILL")
    yield* child.exit
    yield* change(k, `${dir}/program`, "MS_REMOUNT", "MS_BIND", "MS_NOEXEC")
    yield* refused(start(`${dir}/program`), "spawn EACCES")
  },
)
check("a process that is not there can not be signalled", function* (k, _dir, subject) {
  const child = yield* k.spawn({ ...subject.exits(0), env })
  yield* child.exit
  yield* refused(k.kill(child.pid, "SIGTERM"), "kill ESRCH")
})
check("pid -1 is every process but init", function* (k, _dir, subject) {
  const children = [yield* k.spawn({ ...subject.forever, env }), yield* k.spawn({ ...subject.forever, env })]
  yield* k.kill(-1, "SIGTERM")
  for (const child of children) assert.deepEqual(yield* child.exit, { _tag: "Signaled", signal: "SIGTERM" })
})
checkMachine("pid -1 is taken when nobody is left: the kernel's own threads count", function* (k) {
  yield* k.kill(-1, "SIGTERM")
})
check(
  "orphans are seen dead, not as supervised, and reaped; then there is nobody",
  function* (k, _dir, subject) {
    const child = yield* k.spawn({ ...subject.leaves(3), env })
    assert.deepEqual(yield* child.exit, { _tag: "Exited", code: 0 })
    let orphans = 0
    yield* until(
      Effect.gen(function* () {
        const dead = yield* k.peekDeadChild
        if (dead === undefined) return orphans === 3
        assert.equal(dead.supervised, false)
        assert.deepEqual(yield* k.peekDeadChild, dead)
        yield* k.reap(dead.pid)
        orphans++
        return false
      }),
    )
    assert.equal(yield* k.peekDeadChild, undefined)
  },
)
check(
  "a round of the reaper takes every orphan and no status of a supervised child",
  function* (k, _dir, subject) {
    const leavers = []
    for (let n = 0; n < 5; n++) leavers.push(yield* k.spawn({ ...subject.leaves(2), env }))
    const codes = []
    for (let code = 1; code <= 5; code++) codes.push(yield* k.spawn({ ...subject.exits(code), env }))
    let reaped = 0
    yield* until(Effect.map(Reaper.reapAll, (count) => (reaped += count) === 10))
    for (const leaver of leavers) assert.deepEqual(yield* leaver.exit, { _tag: "Exited", code: 0 })
    for (const [index, child] of codes.entries())
      assert.deepEqual(yield* child.exit, { _tag: "Exited", code: index + 1 })
  },
)
check("SIGCHLD is told when a child ends, until the scope closes", function* (k, _dir, subject) {
  let heard = 0
  const run = Effect.flatMap(k.spawn({ ...subject.exits(0), env }), (child) => child.exit)
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* k.onSignal(["SIGCHLD"], () => void heard++)
      yield* run
      yield* until(Effect.sync(() => heard > 0))
    }),
  )
  const before = heard
  yield* run
  assert.equal(heard, before)
})
check("monotonic time does not go back", function* (k) {
  const first = yield* k.monotonic
  assert.ok((yield* k.monotonic) >= first)
})

check("/proc/PID/stat has name, state and parent", function* (k, _dir, subject) {
  const child = yield* k.spawn({ ...subject.forever, env })
  const stat = `/proc/${child.pid}/stat`
  assert.match(
    yield* k.readText(stat),
    new RegExp(`^${child.pid} \\(\\w+\\) [RSD] 1 (-?\\d+ ){47}-?\\d+\n$`, "u"),
  )
  yield* k.kill(child.pid, "SIGKILL")
  yield* child.exit
  yield* refused(k.readText(stat), "open ENOENT")
})
