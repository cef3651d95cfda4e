// The root as the reference distro switches it. It is not switched back: this is a machine's last case.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import { bind, change, group, mountsAt, move, refused, tmpfs } from "./Case.ts"

const { cases, checkMachine } = group()
export { cases }

checkMachine("the switch of the root leaves one tmpfs with the image's directories on it", function* (k) {
  yield* RootSwitch.switchRoot(RootSwitch.reference)
  const names = "bin dev etc lib lib64 opt proc run sys tmp var"
  assert.deepEqual(yield* k.readDirectory("/"), names.split(" "))
  assert.deepEqual(yield* k.readDirectory("/../.."), names.split(" "))
  assert.deepEqual(yield* k.readDirectory("/proc"), [])
  yield* k.mount({ source: "proc", target: "/proc", fstype: "proc", flags: ["MS_NOSUID"] })
  const rows = []
  for (const target of ["/", "/bin", "/lib", "/lib64", "/proc"])
    for (const { flags, fstype, propagation, root } of yield* mountsAt(k, target))
      rows.push([target, fstype, root, flags, propagation].join(" "))
  assert.deepEqual(rows, [
    "/ tmpfs / ro,nosuid,nodev,noexec,relatime shared",
    "/bin rootfs /bin ro,nosuid,nodev,relatime shared",
    "/lib rootfs /lib ro,nosuid,nodev,relatime shared",
    "/lib64 rootfs /lib64 ro,nosuid,nodev,relatime shared",
    "/proc proc / rw,nosuid,relatime shared",
  ])
  const lines = yield* Effect.map(k.readText("/proc/self/mountinfo"), (text) => text.trim().split("\n"))
  assert.equal(lines.length, rows.length, "nothing of the old root can be seen")

  // Nobody makes it writable by a mount of their own: the filesystems themselves are read-only.
  yield* refused(k.writeFile("/file", "x"), "open EROFS")
  yield* refused(k.makeDirectory("/directory"), "mkdir EROFS")
  yield* refused(k.writeFile("/bin/file", "x"), "open EROFS")
  yield* tmpfs(k, "/tmp", [], "mode=1777,size=64k")
  assert.equal((yield* mountsAt(k, "/tmp"))[0]?.propagation, "shared")
  yield* k.makeDirectory("/tmp/bin")
  yield* bind(k, "/bin", "/tmp/bin")
  yield* change(k, "/tmp/bin", "MS_REMOUNT", "MS_BIND")
  assert.equal((yield* mountsAt(k, "/tmp/bin"))[0]?.flags, "rw,relatime")
  yield* refused(k.writeFile("/tmp/bin/file", "x"), "open EROFS")
  // PID 1 does, as it unlinks image archives: through one mount, while the others stay read-only.
  yield* change(k, "/tmp/bin", "MS_REMOUNT")
  yield* k.writeFile("/tmp/bin/file", "x")
  yield* refused(k.unlink("/bin/file"), "unlink EROFS")
  yield* k.unlink("/tmp/bin/file")
  yield* change(k, "/tmp/bin", "MS_REMOUNT", "MS_RDONLY")
  yield* change(k, "/tmp/bin", "MS_REMOUNT", "MS_BIND")
  yield* refused(k.writeFile("/tmp/bin/file", "x"), "open EROFS")
  yield* refused(move(k, "/", "/tmp/bin"), "mount ELOOP")
  yield* k.umount("/tmp/bin")
  yield* k.umount("/tmp")
  yield* refused(k.umount("/bin/missing"), "umount2 ENOENT")
  assert.equal(yield* k.stat("/newroot"), undefined)
  // Unmounting one's own root makes it read-only, which it is.
  yield* k.umount("/")
  assert.equal((yield* k.stat("/bin"))?.kind, "directory")
})
