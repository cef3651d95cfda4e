import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as TestMachine from "@kios/core/testing/TestMachine"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import { outcome, up } from "./support.ts"

const image = {
  "/init": "init",
  "/bin/containerd": { content: "x", mode: 0o755 },
  "/lib/libc.so": "x",
  "/lib64/ld.so": "x",
  "/secret": "only in the image",
} as const
const machine = () => TestMachine.make({ files: image })

describe("root-switch", () => {
  it.effect("makes these calls, in this order", () =>
    Effect.gen(function* () {
      const subject = machine()
      yield* up(RootSwitch.stage, subject)
      const ro = "MS_REMOUNT|MS_BIND|MS_RDONLY|MS_NOSUID|MS_NODEV|MS_RELATIME"
      subject.expectCalls([
        'mkdir("/newroot", 0755)',
        'mount("kios-root", "/newroot", "tmpfs", MS_NOSUID|MS_NODEV|MS_NOEXEC, "mode=0755,size=1M,nr_inodes=1k")',
        ...["/bin", "/lib", "/lib64"].flatMap((directory) => [
          `mkdir("/newroot${directory}", 0755)`,
          `mount("${directory}", "/newroot${directory}", "none", MS_BIND)`,
          `mount("none", "/newroot${directory}", "none", ${ro})`,
        ]),
        ...RootSwitch.reference.directories.map((directory) => `mkdir("/newroot${directory}", 0755)`),
        'mount("none", "/", "none", MS_REMOUNT|MS_RDONLY)',
        'chdir("/newroot")',
        'mount(".", "/", "none", MS_MOVE)',
        'chroot(".")',
        'chdir("/")',
        'mount("none", "/", "none", MS_REMOUNT|MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC)',
        'mount("none", "/", "none", MS_REC|MS_SHARED)',
      ])
    }),
  )

  it.effect(
    "leaves a root with nothing but what was kept, all of it read-only, shared, nosuid and nodev",
    () =>
      Effect.gen(function* () {
        const subject = machine()
        yield* up(RootSwitch.stage, subject)
        assert.deepStrictEqual(
          subject.mounts().map(({ flags, propagation, target }) => [target, flags.join(","), propagation]),
          [
            ["/", "ro,nosuid,nodev,noexec,relatime", "shared"],
            ["/bin", "ro,nosuid,nodev,relatime", "shared"],
            ["/lib", "ro,nosuid,nodev,relatime", "shared"],
            ["/lib64", "ro,nosuid,nodev,relatime", "shared"],
          ],
        )
        assert.isFalse(subject.exists("/init"))
        assert.isFalse(subject.exists("/secret"))
        assert.isTrue(subject.exists("/bin/containerd"))
        const { kernel } = subject
        for (const path of ["/new", "/bin/new", "/etc/new"])
          assert.strictEqual((yield* Effect.flip(kernel.writeFile(path, "x"))).errno, "EROFS")
      }),
  )

  it.effect("links, files to remove and directories are the distro's to choose", () =>
    Effect.gen(function* () {
      const subject = machine()
      const stage = RootSwitch.make({
        keep: { "/bin": "programs" },
        directories: ["/proc"],
        links: { "/sbin": "bin" },
        remove: ["/secret", "/is-not-there"],
      })
      yield* up(stage, subject)
      assert.isTrue(subject.exists("/sbin/containerd"))
      assert.isFalse(subject.exists("/lib"))
      assert.include(subject.log({ only: ["unlink"] }), 'unlink("/is-not-there") = ENOENT')
    }),
  )

  for (const [what, errno, path] of [
    ["mkdir", "ENOSPC", "/newroot"],
    ["mount", "ENODEV", "/newroot"],
    ["mount", "ENOENT", "/newroot/bin"],
    ["mount", "EINVAL", "/newroot/lib64"],
    ["mount", "EBUSY", "/"],
    ["mkdir", "ENOSPC", "/newroot/opt"],
    ["chdir", "EACCES", "/newroot"],
    ["chroot", "EPERM", "."],
    ["chdir", "EIO", "/"],
  ] as const)
    it.effect(`${what} ${path}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const subject = machine()
        subject.failOn(what, errno, { path })
        assert.strictEqual(yield* outcome(RootSwitch.stage, subject), errno)
      }),
    )

  it.effect("an image without a directory to keep is a failed boot", () =>
    Effect.gen(function* () {
      const subject = TestMachine.make({ files: { "/bin/x": "" }, modules: {}, osrelease: "x" })
      assert.strictEqual(
        yield* outcome(
          RootSwitch.make({ ...RootSwitch.reference, keep: { "/bin": "programs", "/usr": "more" } }),
          subject,
        ),
        "ENOENT",
      )
    }),
  )
})
