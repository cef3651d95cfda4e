// What the Kernel door promises: the same assertions run on TestMachine and on Linux, so that the fake cannot drift.
import * as assert from "node:assert/strict"
import { Context, Deferred, Effect, type Scope } from "effect"
import { Kernel, type MountFlag, type SpawnSpec } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import * as Reaper from "@kios/core/Reaper"

/** What differs between the two sides: where a case may work, and how to start programs. */
export class Subject extends Context.Service<
  Subject,
  {
    /** An empty tmpfs of its own for each case. */
    readonly dir: string
    readonly exits: (code: number) => Pick<SpawnSpec, "command" | "args">
    readonly forever: Pick<SpawnSpec, "command" | "args">
    /** Prints `ready`, takes no notice of SIGTERM, and runs for ever. */
    readonly stubborn: Pick<SpawnSpec, "command" | "args">
    readonly prints: (lines: ReadonlyArray<string>) => Pick<SpawnSpec, "command" | "args">
    /** Leaves that many children behind, which end a moment later. */
    readonly leaves: (children: number) => Pick<SpawnSpec, "command" | "args">
  }
>()("test/Subject") {}

export interface Case {
  readonly name: string
  readonly run: Effect.Effect<void, unknown, Kernel | Subject | Scope.Scope>
}

const cases: Array<Case> = []
export const all: ReadonlyArray<Case> = cases

type K = Kernel["Service"]
type S = Subject["Service"]

const check = (
  name: string,
  // oxlint-disable-next-line typescript/no-explicit-any -- as Effect.gen has it
  body: (
    k: K,
    dir: string,
    subject: S,
  ) => Generator<Effect.Effect<any, unknown, Kernel | Scope.Scope>, void, any>,
) =>
  cases.push({
    name,
    run: Effect.gen(function* () {
      const kernel = yield* Kernel
      const subject = yield* Subject
      yield* Effect.gen(() => body(kernel, subject.dir, subject))
    }),
  })

const refused = (effect: Effect.Effect<unknown, KernelError>, expected: string) =>
  Effect.flatMap(Effect.flip(effect), (error) =>
    Effect.sync(() => assert.equal(`${error.syscall} ${error.errno}`, expected, error.message)),
  ).pipe(
    Effect.catchIf(
      (problem) => !(problem instanceof Error),
      () => Effect.die(new Error(`nothing failed, expected ${expected}`)),
    ),
  )

const tmpfs = (k: K, target: string, flags: ReadonlyArray<MountFlag> = [], options?: string) =>
  k.mount({
    source: "contract",
    target,
    fstype: "tmpfs",
    flags,
    ...(options === undefined ? {} : { options }),
  })
const bind = (k: K, source: string, target: string, ...flags: ReadonlyArray<MountFlag>) =>
  k.mount({ source, target, fstype: "none", flags: ["MS_BIND", ...flags] })
const change = (k: K, target: string, ...flags: ReadonlyArray<MountFlag>) =>
  k.mount({ source: "none", target, fstype: "none", flags })
const move = (k: K, source: string, target: string) =>
  k.mount({ source, target, fstype: "none", flags: ["MS_MOVE"] })

/** Mounts on a target, in the order of mountinfo: flags, and the propagation's kind. */
const mountsAt = (k: K, target: string) =>
  Effect.map(k.readText("/proc/self/mountinfo"), (text) =>
    text
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .filter((fields) => fields[4] === target)
      .map((fields) => ({
        flags: fields[5] ?? "",
        root: fields[3] ?? "",
        propagation: fields
          .slice(6, fields.indexOf("-"))
          .map((tag) => tag.replace(/:.*/u, ""))
          .join(" "),
        fstype: fields[fields.indexOf("-") + 1] ?? "",
      })),
  )
const expectMounts = (k: K, target: string, ...flags: ReadonlyArray<string>) =>
  Effect.map(mountsAt(k, target), (found) =>
    assert.deepEqual(
      found.map((mount) => mount.flags),
      flags,
    ),
  )

// --- mounts
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
check("MS_MOVE takes a mount with those below elsewhere", function* (k, dir) {
  for (const name of ["a", "b"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* tmpfs(k, `${dir}/a`, ["MS_NOSUID"])
  yield* k.makeDirectory(`${dir}/a/inner`)
  yield* tmpfs(k, `${dir}/a/inner`, ["MS_NODEV"])
  yield* move(k, `${dir}/a`, `${dir}/b`)
  yield* expectMounts(k, `${dir}/a`)
  yield* expectMounts(k, `${dir}/b`, "rw,nosuid,relatime")
  yield* expectMounts(k, `${dir}/b/inner`, "rw,nodev,relatime")
  assert.deepEqual(yield* k.readDirectory(`${dir}/a`), [])
})
check("MS_MOVE refuses: into itself, out of a shared parent, a file for a directory", function* (k, dir) {
  for (const name of ["a", "b"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* k.writeFile(`${dir}/file`, "")
  yield* tmpfs(k, `${dir}/a`)
  yield* k.makeDirectory(`${dir}/a/inner`)
  yield* refused(move(k, `${dir}/a`, `${dir}/a/inner`), "mount ELOOP")
  yield* refused(move(k, `${dir}/a`, `${dir}/file`), "mount EINVAL")
  yield* refused(move(k, `${dir}/missing`, `${dir}/b`), "mount ENOENT")
  yield* change(k, dir, "MS_SHARED")
  yield* refused(move(k, `${dir}/a`, `${dir}/b`), "mount EINVAL")
})
check("propagation is what mountinfo shows, and MS_REC sets it below", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`)
  const tag = (target: string) => Effect.map(mountsAt(k, target), (found) => found.at(-1)?.propagation)
  assert.equal(yield* tag(`${dir}/m`), "")
  yield* change(k, dir, "MS_SHARED")
  assert.equal(yield* tag(dir), "shared")
  assert.equal(yield* tag(`${dir}/m`), "")
  yield* change(k, dir, "MS_SHARED", "MS_REC")
  assert.equal(yield* tag(`${dir}/m`), "shared")
  yield* change(k, `${dir}/m`, "MS_UNBINDABLE")
  assert.equal(yield* tag(`${dir}/m`), "unbindable")
  yield* change(k, dir, "MS_PRIVATE", "MS_REC")
  assert.equal(yield* tag(dir), "")
  assert.equal(yield* tag(`${dir}/m`), "")
})
check("what is mounted on a shared mount is shared too and seen by its peers", function* (k, dir) {
  for (const name of ["a", "b"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* tmpfs(k, `${dir}/a`)
  yield* k.makeDirectory(`${dir}/a/inner`)
  yield* change(k, `${dir}/a`, "MS_SHARED")
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  yield* tmpfs(k, `${dir}/a/inner`)
  yield* k.writeFile(`${dir}/a/inner/file`, "x")
  assert.equal(yield* k.readText(`${dir}/b/inner/file`), "x")
  const [inner] = yield* mountsAt(k, `${dir}/a/inner`)
  assert.equal(inner?.propagation, "shared")
  yield* k.umount(`${dir}/b/inner`)
  assert.deepEqual(yield* k.readDirectory(`${dir}/a/inner`), [])
})
check("a slave sees its master's mounts, the master does not see the slave's", function* (k, dir) {
  for (const name of ["a", "b"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* tmpfs(k, `${dir}/a`)
  yield* k.makeDirectory(`${dir}/a/one`)
  yield* k.makeDirectory(`${dir}/a/two`)
  yield* change(k, `${dir}/a`, "MS_SHARED")
  yield* bind(k, `${dir}/a`, `${dir}/b`)
  yield* change(k, `${dir}/b`, "MS_SLAVE")
  const [slave] = yield* mountsAt(k, `${dir}/b`)
  assert.equal(slave?.propagation, "master")
  yield* tmpfs(k, `${dir}/a/one`)
  yield* tmpfs(k, `${dir}/b/two`)
  yield* expectMounts(k, `${dir}/b/one`, "rw,relatime")
  yield* expectMounts(k, `${dir}/a/two`)
})
check("an unbindable mount can not be bound", function* (k, dir) {
  for (const name of ["a", "b"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* tmpfs(k, `${dir}/a`)
  yield* change(k, `${dir}/a`, "MS_UNBINDABLE")
  yield* refused(bind(k, `${dir}/a`, `${dir}/b`), "mount EINVAL")
})
check("umount refuses: no mount point, nothing there, something mounted below", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* refused(k.umount(`${dir}/m`), "umount2 EINVAL")
  yield* refused(k.umount(`${dir}/missing`), "umount2 ENOENT")
  yield* tmpfs(k, `${dir}/m`)
  yield* k.makeDirectory(`${dir}/m/inner`)
  yield* tmpfs(k, `${dir}/m/inner`)
  yield* refused(k.umount(`${dir}/m`), "umount2 EBUSY")
  yield* k.umount(`${dir}/m`, ["MNT_DETACH"])
  yield* expectMounts(k, `${dir}/m`)
  yield* expectMounts(k, `${dir}/m/inner`)
})
check("umount refuses while the working directory is there, MNT_DETACH does not", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`)
  yield* k.chdir(`${dir}/m`)
  yield* refused(k.umount(`${dir}/m`), "umount2 EBUSY")
  yield* k.umount(`${dir}/m`, ["MNT_DETACH"])
  yield* k.chdir("/")
  yield* expectMounts(k, `${dir}/m`)
})
check("MNT_EXPIRE marks a mount at first and unmounts it when asked again", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* tmpfs(k, `${dir}/m`)
  yield* refused(k.umount(`${dir}/m`, ["MNT_EXPIRE", "MNT_DETACH"]), "umount2 EINVAL")
  yield* refused(k.umount(`${dir}/m`, ["MNT_EXPIRE"]), "umount2 EAGAIN")
  yield* k.umount(`${dir}/m`, ["MNT_EXPIRE"])
  yield* expectMounts(k, `${dir}/m`)
})
check("umount follows a symbolic link unless UMOUNT_NOFOLLOW", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* k.symlink("m", `${dir}/link`)
  yield* tmpfs(k, `${dir}/link`)
  yield* expectMounts(k, `${dir}/m`, "rw,relatime")
  yield* refused(k.umount(`${dir}/link`, ["UMOUNT_NOFOLLOW"]), "umount2 EINVAL")
  yield* k.umount(`${dir}/link`)
  yield* expectMounts(k, `${dir}/m`)
})
check("a device mount wants a device", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/m`)
  yield* k.writeFile(`${dir}/file`, "")
  const ext4 = (source: string) => k.mount({ source, target: `${dir}/m`, fstype: "ext4", flags: [] })
  yield* refused(ext4(`${dir}/missing`), "mount ENOENT")
  yield* refused(ext4(`${dir}/file`), "mount ENOTBLK")
  yield* refused(ext4("/dev/null"), "mount ENOTBLK")
})

// --- root and working directory
check("chroot bounds absolute paths but not the working directory", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/jail`)
  yield* k.writeFile(`${dir}/jail/inside`, "x")
  yield* k.chdir("/")
  yield* k.chroot(`${dir}/jail`)
  const outcome = yield* Effect.exit(
    Effect.gen(function* () {
      assert.equal(yield* k.readText("/inside"), "x")
      assert.equal(yield* k.readText("/../../inside"), "x")
      assert.equal(yield* k.stat("/proc"), undefined)
    }),
  )
  yield* k.chroot(".")
  yield* outcome
  assert.notEqual(yield* k.stat("/proc"), undefined)
})
check("chroot and chdir refuse what is no directory", function* (k, dir) {
  yield* k.writeFile(`${dir}/file`, "")
  yield* refused(k.chroot(`${dir}/file`), "chroot ENOTDIR")
  yield* refused(k.chroot(`${dir}/missing`), "chroot ENOENT")
  yield* refused(k.chdir(`${dir}/file`), "chdir ENOTDIR")
  yield* refused(k.chdir(`${dir}/missing`), "chdir ENOENT")
})
check("relative paths start at the working directory", function* (k, dir) {
  yield* k.makeDirectory(`${dir}/a/b`)
  yield* k.chdir(`${dir}/a/b`)
  yield* k.writeFile("here", "x")
  yield* k.writeFile("../there", "y")
  yield* k.chdir("/")
  assert.equal(yield* k.readText(`${dir}/a/b/here`), "x")
  assert.equal(yield* k.readText(`${dir}/a/there`), "y")
})

// --- files
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

// --- /proc and /sys
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

// --- machine
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
check("loading what is no module is refused", function* (k, dir) {
  yield* k.writeFile(`${dir}/not.ko`, "this is no module, but it is long enough to be looked at".repeat(10))
  yield* refused(k.loadModule(`${dir}/missing.ko`), "open ENOENT")
  // The kernel of a development machine may have been built without modules.
  const { errno } = yield* Effect.flip(k.loadModule(`${dir}/not.ko`))
  assert.ok(errno === "ENOEXEC" || errno === "ENOSYS", errno)
  yield* k.symlink("not.ko", `${dir}/link.ko`)
  yield* refused(k.loadModule(`${dir}/link.ko`), "open ELOOP")
})

// --- processes
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
  const child = yield* k.spawn({ ...subject.stubborn, env, onLine })
  yield* Deferred.await(ready)
  yield* k.kill(child.pid, "SIGTERM")
  yield* k.kill(child.pid, "SIGKILL")
  assert.deepEqual(yield* child.exit, { _tag: "Signaled", signal: "SIGKILL" })
})
check("every line that a process writes is told", function* (k, _dir, subject) {
  const lines: Array<string> = []
  const child = (yield* k.spawn({
    ...subject.prints(["one", "two", "three"]),
    env,
    onLine: (line) => lines.push(line),
  })) as {
    exit: Effect.Effect<unknown>
  }
  yield* child.exit
  yield* until(Effect.sync(() => lines.length === 3))
  assert.deepEqual(lines, ["one", "two", "three"])
})
check("output goes to a log file of bounded size", function* (k, dir, subject) {
  const log = { path: `${dir}/log`, maxBytes: 10 }
  for (const line of ["the first line", "the second line", "the third line"]) {
    const child = yield* k.spawn({ ...subject.prints([line]), env, log })
    yield* child.exit
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
  yield* refused(k.kill(-1, "SIGTERM"), "kill ESRCH")
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

// Polled, with a deadline: on Linux another process has to run meanwhile.
const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.flatMap((done) => (done ? Effect.succeed(true) : Effect.as(Effect.sleep("2 millis"), false))),
    Effect.repeat({ until: (done: boolean) => done }),
    Effect.timeout("10 seconds"),
  )
