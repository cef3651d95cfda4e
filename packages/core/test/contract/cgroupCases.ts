// cgroup v2 of the kernel that we ship; Documentation/admin-guide/cgroup-v2.rst. There is one hierarchy for the whole
// machine, so every case has groups of its own and leaves them there.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import { group, type K, mountsAt, refused, until } from "./Case.ts"

const { cases, checkMachine } = group()
export { cases }

const env = { PATH: "/usr/bin:/bin" }

// Where Kernel.spawn expects it.
const root = "/sys/fs/cgroup"
const mounted = (k: K) =>
  Effect.acquireRelease(k.mount({ source: "cgroup2", target: root, fstype: "cgroup2", flags: [] }), () =>
    Effect.ignore(k.umount(root)),
  )

/** Mounts the hierarchy and gives the path of a fresh group in it, with memory, pids and cpu to hand out. */
const hierarchy = Effect.fnUntraced(function* (k: K, name: string) {
  yield* mounted(k)
  yield* k.writeControl(`${root}/cgroup.subtree_control`, "+memory +pids +cpu")
  yield* k.makeDirectory(`${root}/${name}`)
  return `${root}/${name}`
})
const has = (k: K, directory: string, name: string) =>
  Effect.map(k.readDirectory(directory), (names) => names.includes(name))
const set = (text: unknown) => String(text).trim().split(" ").sort()

checkMachine("cgroup2: the root has the kernel's controllers and init, and no limits", function* (k) {
  yield* mounted(k)
  assert.equal((yield* mountsAt(k, root))[0]?.fstype, "cgroup2")
  assert.equal(
    yield* k.readText(`${root}/cgroup.controllers`),
    "cpuset cpu io memory hugetlb pids rdma misc\n",
  )
  const members = String(yield* k.readText(`${root}/cgroup.procs`)).split("\n")
  assert.equal(members[0], "1")
  for (const name of ["cgroup.type", "cgroup.events", "cgroup.freeze", "cgroup.kill", "memory.max"])
    assert.equal(yield* has(k, root, name), false, name)
  yield* refused(k.writeFile(`${root}/file`, "x"), "open EACCES")
  yield* refused(k.symlink("x", `${root}/link`), "symlink EPERM")
  yield* refused(k.writeControl(`${root}/cgroup.controllers`, "cpu"), "write EINVAL")
})
checkMachine("cgroup2: every mount shows the one hierarchy", function* (k, dir) {
  const own = yield* hierarchy(k, "seen-twice")
  yield* k.makeDirectory(`${dir}/again`)
  yield* k.mount({ source: "cgroup2", target: `${dir}/again`, fstype: "cgroup2", flags: [] })
  assert.equal(yield* has(k, `${dir}/again`, "seen-twice"), true)
  yield* k.makeDirectory(`${dir}/again/seen-twice/below`)
  assert.equal((yield* k.stat(`${own}/below`))?.kind, "directory")
  yield* refused(
    k.mount({ source: "cgroup2", target: root, fstype: "cgroup2", flags: [], options: "colour=red" }),
    "mount EINVAL",
  )
})
checkMachine(
  "cgroup2: a new group has its core files, and those of what its parent hands out",
  function* (k) {
    const own = yield* hierarchy(k, "files")
    assert.equal(yield* k.readText(`${own}/cgroup.type`), "domain\n")
    assert.match(yield* k.readText(`${own}/cgroup.events`), /^populated 0\nfrozen 0\n$/u)
    assert.equal(yield* k.readText(`${own}/cgroup.freeze`), "0\n")
    assert.equal(yield* k.readText(`${own}/cgroup.procs`), "")
    assert.equal(yield* k.readText(`${own}/memory.max`), "max\n")
    assert.equal(yield* k.readText(`${own}/memory.min`), "0\n")
    assert.equal(yield* k.readText(`${own}/pids.max`), "max\n")
    assert.equal(yield* k.readText(`${own}/cpu.weight`), "100\n")
    assert.equal(yield* k.readText(`${own}/cpu.max`), "max 100000\n")
    yield* k.makeDirectory(`${own}/below`)
    for (const name of ["memory.max", "pids.max", "cpu.weight"])
      assert.equal(yield* has(k, `${own}/below`, name), false, name)
    yield* k.writeControl(`${own}/cgroup.subtree_control`, "+memory")
    assert.equal(yield* has(k, `${own}/below`, "memory.max"), true)
    assert.equal(yield* has(k, `${own}/below`, "pids.max"), false)
    yield* k.writeControl(`${own}/cgroup.subtree_control`, "-memory +pids")
    assert.equal(yield* has(k, `${own}/below`, "memory.max"), false)
    assert.equal(yield* has(k, `${own}/below`, "pids.max"), true)
  },
)
checkMachine(
  "cgroup2: limits are read back as the kernel keeps them, and nonsense is refused",
  function* (k) {
    const own = yield* hierarchy(k, "limits")
    yield* k.writeControl(`${own}/memory.max`, "64M")
    assert.equal(yield* k.readText(`${own}/memory.max`), "67108864\n")
    yield* k.writeControl(`${own}/memory.max`, "max")
    assert.equal(yield* k.readText(`${own}/memory.max`), "max\n")
    yield* refused(k.writeControl(`${own}/memory.max`, "much"), "write EINVAL")
    yield* k.writeControl(`${own}/pids.max`, "100")
    assert.equal(yield* k.readText(`${own}/pids.max`), "100\n")
    yield* refused(k.writeControl(`${own}/pids.max`, "-1"), "write EINVAL")
    yield* k.writeControl(`${own}/cpu.weight`, "10000")
    yield* refused(k.writeControl(`${own}/cpu.weight`, "10001"), "write ERANGE")
    yield* refused(k.writeControl(`${own}/cpu.weight`, "0"), "write ERANGE")
    assert.equal(yield* k.readText(`${own}/cpu.weight`), "10000\n")
  },
)
checkMachine("cgroup2: controllers go down one level at a time", function* (k) {
  const own = yield* hierarchy(k, "levels")
  yield* k.makeDirectory(`${own}/below`)
  const control = `${own}/cgroup.subtree_control`
  assert.deepEqual(set(yield* k.readText(`${own}/cgroup.controllers`)), ["cpu", "memory", "pids"])
  assert.equal(yield* k.readText(control), "")
  assert.equal(yield* k.readText(`${own}/below/cgroup.controllers`), "")
  yield* refused(k.writeControl(`${own}/below/cgroup.subtree_control`, "+memory"), "write ENOENT")
  yield* refused(k.writeControl(control, "+rdma"), "write ENOENT")
  yield* refused(k.writeControl(control, "+nosuch"), "write EINVAL")
  yield* refused(k.writeControl(control, "memory"), "write EINVAL")
  // All of it or nothing.
  yield* refused(k.writeControl(control, "+memory +nosuch"), "write EINVAL")
  assert.equal(yield* k.readText(control), "")
  yield* k.writeControl(control, "+pids +memory")
  yield* k.writeControl(control, "+memory")
  assert.equal(yield* k.readText(control), "memory pids\n")
  yield* k.writeControl(`${own}/below/cgroup.subtree_control`, "+pids")
  yield* refused(k.writeControl(control, "-pids"), "write EBUSY")
  yield* refused(k.writeControl(`${root}/cgroup.subtree_control`, "-memory"), "write EBUSY")
  yield* k.writeControl(control, "-memory")
  assert.equal(yield* k.readText(control), "pids\n")
})
checkMachine("cgroup2: processes are born into a group, moved, and gone", function* (k, _dir, subject) {
  const own = yield* hierarchy(k, "moves")
  yield* k.makeDirectory(`${own}/a`)
  yield* k.makeDirectory(`${own}/b`)
  const child = yield* k.spawn({ ...subject.forever, env, cgroup: `${own}/a` })
  const groupOf = k.readText(`/proc/${child.pid}/cgroup`)
  assert.equal(yield* k.readText(`${own}/a/cgroup.procs`), `${child.pid}\n`)
  assert.equal(yield* groupOf, "0::/moves/a\n")
  assert.equal(yield* k.readText("/proc/self/cgroup"), "0::/\n")
  yield* k.writeControl(`${own}/b/cgroup.procs`, String(child.pid))
  assert.equal(yield* groupOf, "0::/moves/b\n")
  assert.equal(yield* k.readText(`${own}/a/cgroup.procs`), "")
  assert.equal(yield* k.readText(`${own}/b/cgroup.procs`), `${child.pid}\n`)
  assert.match(yield* k.readText(`${own}/b/cgroup.events`), /^populated 1$/mu)
  assert.match(yield* k.readText(`${own}/cgroup.events`), /^populated 1$/mu)
  assert.equal(yield* k.readText(`${own}/cgroup.procs`), "")
  // 0 is who writes.
  yield* k.writeControl(`${own}/a/cgroup.procs`, "0")
  assert.equal(yield* k.readText("/proc/self/cgroup"), "0::/moves/a\n")
  yield* k.writeControl(`${root}/cgroup.procs`, "1")
  yield* refused(k.writeControl(`${own}/a/cgroup.procs`, "4000000"), "write ESRCH")
  yield* refused(k.writeControl(`${own}/a/cgroup.procs`, "init"), "write EINVAL")
  yield* k.kill(child.pid, "SIGKILL")
  yield* child.exit
  assert.equal(yield* k.readText(`${own}/b/cgroup.procs`), "")
  assert.match(yield* k.readText(`${own}/cgroup.events`), /^populated 0$/mu)
})
checkMachine("cgroup2: cgroup.kill ends everybody below", function* (k, _dir, subject) {
  const own = yield* hierarchy(k, "killed")
  yield* k.makeDirectory(`${own}/a`)
  const children = []
  for (let n = 0; n < 2; n++) children.push(yield* k.spawn({ ...subject.forever, env, cgroup: `${own}/a` }))
  yield* refused(k.writeControl(`${own}/cgroup.kill`, "2"), "write ERANGE")
  yield* k.writeControl(`${own}/cgroup.kill`, "1")
  for (const child of children) assert.deepEqual(yield* child.exit, { _tag: "Signaled", signal: "SIGKILL" })
  yield* until(Effect.map(k.readText(`${own}/cgroup.events`), (text) => text.startsWith("populated 0")))
})
checkMachine("cgroup2: a group with members hands out no memory", function* (k, _dir, subject) {
  const own = yield* hierarchy(k, "internal")
  yield* k.makeDirectory(`${own}/below`)
  const control = `${own}/cgroup.subtree_control`
  const child = yield* k.spawn({ ...subject.forever, env, cgroup: own })
  yield* refused(k.writeControl(control, "+memory"), "write EBUSY")
  yield* refused(k.writeControl(control, "+pids +memory"), "write EBUSY")
  assert.equal(yield* k.readText(control), "")
  yield* k.writeControl(`${own}/below/cgroup.procs`, String(child.pid))
  yield* k.writeControl(control, "+memory")
  yield* refused(k.writeControl(`${own}/cgroup.procs`, String(child.pid)), "write EBUSY")
  yield* refused(k.spawn({ ...subject.exits(0), env, cgroup: own }), "write EBUSY")
  yield* k.kill(child.pid, "SIGKILL")
  yield* child.exit
})
checkMachine(
  "cgroup2: pids and cpu can be handed out beside members, not memory then",
  function* (k, _dir, subject) {
    const own = yield* hierarchy(k, "threaded")
    const child = yield* k.spawn({ ...subject.forever, env, cgroup: own })
    yield* k.writeControl(`${own}/cgroup.subtree_control`, "+pids +cpu")
    assert.equal(yield* k.readText(`${own}/cgroup.subtree_control`), "cpu pids\n")
    yield* refused(k.writeControl(`${own}/cgroup.subtree_control`, "+memory"), "write ENOTSUP")
    yield* k.makeDirectory(`${own}/below`)
    assert.equal(yield* k.readText(`${own}/cgroup.type`), "domain threaded\n")
    assert.equal(yield* k.readText(`${own}/below/cgroup.type`), "domain invalid\n")
    yield* refused(k.writeControl(`${own}/below/cgroup.procs`, String(child.pid)), "write ENOTSUP")
    const other = yield* k.spawn({ ...subject.forever, env, cgroup: own })
    for (const { exit, pid } of [child, other]) {
      yield* k.kill(pid, "SIGKILL")
      yield* exit
    }
  },
)
