// File operations, /proc and /sys.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import { group, type K, refused, tmpfs, until } from "./Case.ts"

const { cases, check } = group()
export { cases }

check("reading: what is missing, what is a directory, what is below a file", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "x")
  yield* refused(k.readText(`${dir}/missing`), "open ENOENT")
  yield* refused(k.readFile(`${dir}/missing`), "open ENOENT")
  yield* refused(k.readText(dir), "read EISDIR")
  yield* refused(k.readText(`${dir}/file/below`), "open ENOTDIR")
  yield* refused(k.readText(`${dir}/missing/below`), "open ENOENT")
  yield* refused(k.readAt(`${dir}/missing`, 0, 1), "open ENOENT")
  yield* refused(k.readDirectory(`${dir}/missing`), "scandir ENOENT")
  yield* refused(k.readDirectory(`${dir}/file`), "scandir ENOTDIR")
})
check("readAt gives what there is", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "0123456789")
  const text = (bytes: unknown) => Buffer.from(bytes as Uint8Array).toString()
  assert.equal(text(yield* k.readAt(`${dir}/file`, 2, 3)), "234")
  assert.equal(text(yield* k.readAt(`${dir}/file`, 8, 100)), "89")
  assert.equal(text(yield* k.readAt(`${dir}/file`, 100, 5)), "")
})
check(
  "writeFile creates with its mode, truncates what is there, and refuses directories",
  function* (k, dir) {
    yield* k.writeFile(`${dir}/file`, "a long first content", 0o600)
    yield* k.writeFile(`${dir}/file`, "short", 0o644)
    assert.equal(yield* k.readText(`${dir}/file`), "short")
    assert.deepEqual(yield* k.stat(`${dir}/file`), { kind: "file", size: 5, mode: 0o600 })
    yield* refused(k.writeFile(dir, "x"), "open EISDIR")
    yield* refused(k.writeFile(`${dir}/missing/file`, "x"), "open ENOENT")
    yield* refused(k.writeFile(`${dir}/file/below`, "x"), "open ENOTDIR")
  },
)
check("writeControl neither creates nor truncates", function* (k, dir) {
  yield* refused(k.writeControl(`${dir}/missing`, "x"), "open ENOENT")
  yield* refused(k.writeControl(dir, "x"), "open EISDIR")
  yield* k.writeFile(`${dir}/file`, "0123456789")
  yield* k.writeControl(`${dir}/file`, "ab")
  assert.equal(yield* k.readText(`${dir}/file`), "ab23456789")
})
check("makeDirectory makes parents and leaves what is there", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a/b/c`, 0o700)
  yield* k.makeDirectory(`${dir}/a/b/c`, 0o755)
  assert.deepEqual(yield* Effect.map(k.stat(`${dir}/a/b/c`), (stat) => [stat?.kind, stat?.mode]), [
    "directory",
    0o700,
  ])
  yield* k.writeFile(`${dir}/file`, "")
  yield* refused(k.makeDirectory(`${dir}/file`), "mkdir EEXIST")
  yield* refused(k.makeDirectory(`${dir}/file/below`), "mkdir ENOTDIR")
  yield* k.symlink("a", `${dir}/link`)
  yield* k.makeDirectory(`${dir}/link/d`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/a`), ["b", "d"])
})
check("a FIFO is made with its mode, once, in a directory that is there", function* (k, dir) {
  yield* k.makeFifo(`${dir}/fifo`)
  assert.deepEqual(yield* k.stat(`${dir}/fifo`), { kind: "fifo", size: 0, mode: 0o600 })
  yield* k.makeFifo(`${dir}/other`, 0o640)
  assert.deepEqual(yield* k.stat(`${dir}/other`), { kind: "fifo", size: 0, mode: 0o640 })
  yield* refused(k.makeFifo(`${dir}/fifo`), "mkfifo EEXIST")
  yield* refused(k.makeFifo(`${dir}/missing/fifo`), "mkfifo ENOENT")
  yield* k.unlink(`${dir}/fifo`)
})
check(
  "stat tells kinds apart, does not follow links, and has nothing to say of what is missing",
  function* (k, dir) {
    yield* k.makeDirectory(`${dir}/d`)
    yield* k.writeFile(`${dir}/f`, "12345", 0o640)
    yield* k.symlink("f", `${dir}/l`)
    const kind = (path: string) => Effect.map(k.stat(path), (stat) => stat?.kind)
    assert.equal(yield* kind(`${dir}/d`), "directory")
    assert.deepEqual(yield* k.stat(`${dir}/f`), { kind: "file", size: 5, mode: 0o640 })
    assert.deepEqual(yield* k.stat(`${dir}/l`), { kind: "symlink", size: 1, mode: 0o777 })
    assert.equal(yield* kind("/dev/null"), "character")
    assert.equal(yield* kind(`${dir}/missing`), undefined)
    assert.equal(yield* kind(`${dir}/missing/below`), undefined)
    assert.equal(yield* kind(`${dir}/f/below`), undefined)
  },
)
check("symbolic links: read, followed, refused twice, and in a circle", function* (k, dir) {
  yield* k.writeFile(`${dir}/f`, "x")
  yield* k.symlink("f", `${dir}/l`)
  yield* k.symlink(`${dir}/l`, `${dir}/ll`)
  assert.equal(yield* k.readLink(`${dir}/l`), "f")
  assert.equal(yield* k.readText(`${dir}/ll`), "x")
  yield* refused(k.symlink("other", `${dir}/l`), "symlink EEXIST")
  yield* refused(k.symlink("x", `${dir}/missing/l`), "symlink ENOENT")
  yield* refused(k.readLink(`${dir}/f`), "readlink EINVAL")
  yield* refused(k.readLink(`${dir}/missing`), "readlink ENOENT")
  yield* k.symlink("b", `${dir}/a`)
  yield* k.symlink("a", `${dir}/b`)
  yield* refused(k.readText(`${dir}/a`), "open ELOOP")
  yield* k.symlink("dangling", `${dir}/c`)
  yield* refused(k.readText(`${dir}/c`), "open ENOENT")
})
check("rename replaces files, and refuses directories, other filesystems and itself", function* (k, dir) {
  yield* k.writeFile(`${dir}/a`, "a")
  yield* k.writeFile(`${dir}/b`, "b")
  yield* k.rename(`${dir}/a`, `${dir}/b`)
  assert.equal(yield* k.readText(`${dir}/b`), "a")
  yield* refused(k.rename(`${dir}/a`, `${dir}/c`), "rename ENOENT")
  yield* k.makeDirectory(`${dir}/d/inner`)
  yield* k.makeDirectory(`${dir}/e`)
  yield* refused(k.rename(`${dir}/b`, `${dir}/d`), "rename EISDIR")
  yield* refused(k.rename(`${dir}/d`, `${dir}/b`), "rename ENOTDIR")
  yield* refused(k.rename(`${dir}/e`, `${dir}/d`), "rename ENOTEMPTY")
  yield* refused(k.rename(`${dir}/d`, `${dir}/d/inner/again`), "rename EINVAL")
  yield* k.rename(`${dir}/d`, `${dir}/e`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/e`), ["inner"])
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`)
  yield* refused(k.rename(`${dir}/b`, `${dir}/m/b`), "rename EXDEV")
  yield* refused(k.rename(`${dir}/m`, `${dir}/n`), "rename EBUSY")
})
check("unlink removes files and links, and refuses directories", function* (k, dir) {
  yield* k.writeFile(`${dir}/f`, "x")
  yield* k.symlink("f", `${dir}/l`)
  yield* k.unlink(`${dir}/l`)
  assert.deepEqual(yield* k.readDirectory(dir), ["f"])
  yield* k.unlink(`${dir}/f`)
  yield* refused(k.unlink(`${dir}/f`), "unlink ENOENT")
  yield* refused(k.unlink(dir), "unlink EISDIR")
})
check("names that are too long", function* (k, dir) {
  yield* refused(k.writeFile(`${dir}/${"n".repeat(256)}`, ""), "open ENAMETOOLONG")
  yield* refused(k.readText(`/${"n/".repeat(3000)}`), "open ENAMETOOLONG")
  yield* k.writeFile(`${dir}/${"n".repeat(255)}`, "")
})

/** Watches a directory, and waits until a name in it was told. */
const watching = function* (k: K, path: string) {
  const told = new Set<string>()
  yield* k.watchDirectory(path, (name) => void told.add(name))
  return (name: string) => until(Effect.sync(() => told.delete(name)))
}
check("a watched directory tells what comes, changes, moves and goes in it", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/d`)
  yield* k.writeFile(`${dir}/d/old`, "x")
  const told = yield* watching(k, `${dir}/d`)
  yield* k.writeFile(`${dir}/d/new`, "x")
  yield* told("new")
  yield* k.writeFile(`${dir}/d/old`, "y")
  yield* told("old")
  yield* k.writeFile(`${dir}/outside`, "x")
  yield* k.rename(`${dir}/outside`, `${dir}/d/moved`)
  yield* told("moved")
  yield* k.rename(`${dir}/d/moved`, `${dir}/outside`)
  yield* told("moved")
  yield* k.unlink(`${dir}/d/old`)
  yield* told("old")
  yield* k.makeDirectory(`${dir}/d/inner`)
  yield* told("inner")
  yield* k.symlink("new", `${dir}/d/link`)
  yield* told("link")
})
check("what is inside of a directory in a watched one is not told", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/d/inner`)
  const names: Array<string> = []
  yield* k.watchDirectory(`${dir}/d`, (name) => void names.push(name))
  yield* k.writeFile(`${dir}/d/inner/file`, "x")
  yield* k.writeFile(`${dir}/d/last`, "x")
  yield* until(Effect.sync(() => names.includes("last")))
  assert.ok(!names.includes("file"), names.join())
})
check("a watch ends with its scope", function* (k, dir) {
  let ended = 0
  yield* Effect.scoped(k.watchDirectory(dir, () => void ended++))
  const told = yield* watching(k, dir)
  yield* k.writeFile(`${dir}/file`, "x")
  yield* told("file")
  assert.equal(ended, 0)
})
check("only directories that are there are watched", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "x")
  const watch = (path: string) => Effect.scoped(k.watchDirectory(path, () => {}))
  yield* refused(watch(`${dir}/missing`), "inotify_add_watch ENOENT")
  yield* refused(watch(`${dir}/file`), "inotify_add_watch ENOTDIR")
})

check("/proc and /sys take no new files", function* (k) {
  yield* refused(k.writeFile("/proc/kios-no-such", "x"), "open ENOENT")
  yield* refused(k.makeDirectory("/proc/kios-no-such"), "mkdir ENOENT")
  yield* refused(k.writeControl("/proc/sys/kernel/kios-no-such", "1"), "open ENOENT")
  yield* refused(k.writeFile("/sys/kios-no-such", "x"), "open EACCES")
  yield* refused(k.makeDirectory("/sys/kios-no-such"), "mkdir EPERM")
})
check("files of /proc have no size and yet a content", function* (k) {
  assert.equal((yield* k.stat("/proc/self/mountinfo"))?.size, 0)
  assert.match(yield* k.readText("/proc/sys/kernel/osrelease"), /^\d+\.\d+.*\n$/u)
  assert.match(yield* k.readText("/proc/sys/kernel/random/uuid"), /^[0-9a-f-]{36}\n$/u)
  assert.notEqual(
    yield* k.readText("/proc/sys/kernel/random/uuid"),
    yield* k.readText("/proc/sys/kernel/random/uuid"),
  )
})
check("a kernel parameter is read back as it was written, without the newline", function* (k) {
  const path = "/proc/sys/net/ipv4/ip_forward"
  for (const value of ["1", "0\n", "1\n", "0"]) {
    yield* k.writeControl(path, value)
    assert.equal(yield* k.readText(path), `${value.trim()}\n`)
  }
  yield* refused(k.writeControl(path, "many"), "write EINVAL")
})
