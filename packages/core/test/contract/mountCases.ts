// Mounting, binding and remounting.
import * as assert from "node:assert/strict"
import type { MountFlag } from "@kios/core/Kernel"
import { bind, change, expectMounts, group, mountsAt, move, refused, tmpfs } from "./Case.ts"

const { cases, check } = group()
export { cases }

const attributes = ["MS_RDONLY", "MS_NOSUID", "MS_NODEV", "MS_NOEXEC"] as const
const shown = (flags: ReadonlyArray<MountFlag>) =>
  [
    flags.includes("MS_RDONLY") ? "ro" : "rw",
    ...(flags.includes("MS_NOSUID") ? ["nosuid"] : []),
    ...(flags.includes("MS_NODEV") ? ["nodev"] : []),
    ...(flags.includes("MS_NOEXEC") ? ["noexec"] : []),
    flags.includes("MS_NOATIME") ? "noatime" : "relatime",
  ].join(",")

check("every combination of mount flags is what mountinfo shows", function* (k, dir) {
  for (let bits = 0; bits < 16; bits++) {
    const flags = attributes.filter((_, index) => (bits & (1 << index)) !== 0)
    yield* tmpfs(k, dir, flags)
    const found = yield* mountsAt(k, dir)
    assert.equal(found.at(-1)?.flags, shown(flags))
    yield* k.umount(dir)
  }
})
check("a bind takes its flags from its source and not from the call", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a`)
  yield* k.makeDirectory(`${dir}/b`)
  yield* tmpfs(k, `${dir}/a`, ["MS_NOSUID", "MS_NOEXEC"])
  yield* bind(k, `${dir}/a`, `${dir}/b`, "MS_RDONLY", "MS_NODEV")
  yield* expectMounts(k, `${dir}/b`, "rw,nosuid,noexec,relatime")
})
check("every combination of flags that a bind is remounted with replaces the last", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a`)
  yield* k.makeDirectory(`${dir}/b`)
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  for (let bits = 15; bits >= 0; bits--) {
    const flags = attributes.filter((_, index) => (bits & (1 << index)) !== 0)
    yield* change(k, `${dir}/b`, "MS_REMOUNT", "MS_BIND", ...flags)
    yield* expectMounts(k, `${dir}/b`, shown(flags))
  }
  yield* k.writeFile(`${dir}/b/file`, "written")
})
check("a bind that is read-only refuses writes, its source does not", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a`)
  yield* k.makeDirectory(`${dir}/b`)
  yield* k.writeFile(`${dir}/a/old`, "old")
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  yield* change(k, `${dir}/b`, "MS_REMOUNT", "MS_BIND", "MS_RDONLY")
  yield* refused(k.writeFile(`${dir}/b/new`, "x"), "open EROFS")
  yield* refused(k.writeFile(`${dir}/b/old`, "x"), "open EROFS")
  yield* refused(k.writeControl(`${dir}/b/old`, "x"), "open EROFS")
  yield* refused(k.unlink(`${dir}/b/old`), "unlink EROFS")
  yield* refused(k.rename(`${dir}/b/old`, `${dir}/b/older`), "rename EROFS")
  yield* refused(k.symlink("old", `${dir}/b/link`), "symlink EROFS")
  yield* refused(k.makeDirectory(`${dir}/b/new`), "mkdir EROFS")
  yield* k.writeFile(`${dir}/a/new`, "x")
  assert.equal(yield* k.readText(`${dir}/b/new`), "x")
})
check("remounting a superblock read-only reaches its binds", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a`)
  yield* k.makeDirectory(`${dir}/b`)
  yield* tmpfs(k, `${dir}/a`)
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  yield* change(k, `${dir}/a`, "MS_REMOUNT", "MS_RDONLY")
  yield* refused(k.writeFile(`${dir}/b/new`, "x"), "open EROFS")
  yield* expectMounts(k, `${dir}/b`, "rw,relatime")
  yield* change(k, `${dir}/a`, "MS_REMOUNT")
  yield* k.writeFile(`${dir}/b/new`, "x")
})
check("a remount keeps the access times' flag unless it names one", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a`)
  yield* tmpfs(k, `${dir}/a`, ["MS_NOATIME"])
  yield* change(k, `${dir}/a`, "MS_REMOUNT", "MS_BIND", "MS_NOSUID")
  yield* expectMounts(k, `${dir}/a`, "rw,nosuid,noatime")
  yield* change(k, `${dir}/a`, "MS_REMOUNT", "MS_BIND", "MS_RELATIME")
  yield* expectMounts(k, `${dir}/a`, "rw,relatime")
})
check("a mount hides what is below and umount shows it again", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* k.writeFile(`${dir}/m/below`, "below")
  yield* tmpfs(k, `${dir}/m`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/m`), [])
  yield* k.writeFile(`${dir}/m/above`, "above")
  yield* k.umount(`${dir}/m`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/m`), ["below"])
})
check("mounts stack, and the last is the first to go", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`)
  yield* k.writeFile(`${dir}/m/first`, "")
  yield* tmpfs(k, `${dir}/m`, ["MS_NOEXEC"])
  assert.deepEqual(yield* k.readDirectory(`${dir}/m`), [])
  yield* expectMounts(k, `${dir}/m`, "rw,relatime", "rw,noexec,relatime")
  yield* k.umount(`${dir}/m`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/m`), ["first"])
})
check("tmpfs takes mode and size, and refuses what it does not know", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`, [], "mode=0750,size=64k")
  assert.equal((yield* k.stat(`${dir}/m`))?.mode, 0o750)
  yield* refused(k.writeFile(`${dir}/m/big`, new Uint8Array(200_000)), "write ENOSPC")
  assert.equal((yield* k.stat(`${dir}/m/big`))?.size, 65_536)
  yield* k.unlink(`${dir}/m/big`)
  yield* k.writeFile(`${dir}/m/small`, new Uint8Array(4096))
  yield* refused(tmpfs(k, dir, [], "mode=0755,colour=red"), "mount EINVAL")
  yield* refused(tmpfs(k, dir, [], "mode=rwx"), "mount EINVAL")
})
check(
  "mount refuses: unknown type, missing target, missing source, a file for a directory",
  function* (k, dir) {
    yield* k.writeFile(`${dir}/file`, "")
    yield* k.makeDirectory(`${dir}/d`)
    yield* refused(k.mount({ source: "x", target: dir, fstype: "nosuchfs", flags: [] }), "mount ENODEV")
    yield* refused(tmpfs(k, `${dir}/missing`), "mount ENOENT")
    yield* refused(tmpfs(k, `${dir}/missing/deeper`), "mount ENOENT")
    yield* refused(tmpfs(k, `${dir}/file`), "mount ENOTDIR")
    yield* refused(tmpfs(k, `${dir}/file/below`), "mount ENOTDIR")
    yield* refused(bind(k, `${dir}/missing`, `${dir}/d`), "mount ENOENT")
    yield* refused(bind(k, `${dir}/d`, `${dir}/file`), "mount ENOTDIR")
    yield* refused(bind(k, `${dir}/file`, `${dir}/d`), "mount ENOTDIR")
  },
)
check("what is no mount point can not be remounted, moved or given a propagation", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/d`)
  yield* k.makeDirectory(`${dir}/e`)
  yield* refused(change(k, `${dir}/d`, "MS_REMOUNT", "MS_BIND", "MS_RDONLY"), "mount EINVAL")
  yield* refused(change(k, `${dir}/d`, "MS_REMOUNT", "MS_RDONLY"), "mount EINVAL")
  yield* refused(change(k, `${dir}/d`, "MS_SHARED"), "mount EINVAL")
  yield* refused(move(k, `${dir}/d`, `${dir}/e`), "mount EINVAL")
  yield* refused(change(k, dir, "MS_SHARED", "MS_PRIVATE"), "mount EINVAL")
})
check("a file can be bound over a file", function* (k, dir) {
  yield* k.writeFile(`${dir}/a`, "a")
  yield* k.writeFile(`${dir}/b`, "b")
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  assert.equal(yield* k.readText(`${dir}/b`), "a")
  yield* refused(k.unlink(`${dir}/b`), "unlink EBUSY")
  yield* refused(k.rename(`${dir}/b`, `${dir}/c`), "rename EBUSY")
  yield* k.umount(`${dir}/b`)
  assert.equal(yield* k.readText(`${dir}/b`), "b")
})
check("a bind shows a part of its source and writes reach both", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a/deep`)
  yield* k.makeDirectory(`${dir}/b`)
  yield* bind(k, `${dir}/a/deep`, `${dir}/b`)
  yield* k.writeFile(`${dir}/b/file`, "x")
  assert.equal(yield* k.readText(`${dir}/a/deep/file`), "x")
  const [mount] = yield* mountsAt(k, `${dir}/b`)
  assert.equal(mount?.root, "/a/deep")
})
check("MS_REC takes the mounts below along, a plain bind does not", function* (k, dir) {
  for (const name of ["a/inner", "plain", "deep"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* tmpfs(k, `${dir}/a/inner`)
  yield* k.writeFile(`${dir}/a/inner/file`, "x")
  yield* bind(k, `${dir}/a`, `${dir}/plain`)
  yield* bind(k, `${dir}/a`, `${dir}/deep`, "MS_REC")
  assert.deepEqual(yield* k.readDirectory(`${dir}/plain/inner`), [])
  assert.deepEqual(yield* k.readDirectory(`${dir}/deep/inner`), ["file"])
})
