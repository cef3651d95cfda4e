import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { imageCommand } from "../../src/cli/ImageCommand.ts"
import * as ImageOptions from "../../src/cli/ImageOptions.ts"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import { ComponentStore } from "../../src/components/ComponentStore.ts"
import * as DiskImage from "../../src/image/DiskImage.ts"
import { HostTools } from "../../src/image/HostTools.ts"
import { debugfs, espFile, fsck, makeEfi, tools } from "../image/disks.ts"
import { lacking, scratch } from "../image/support.ts"

const needed = [...tools, "qemu-img"] as const

/** Runs the command in this process; gives the lines that it printed. */
const kiosImage = (args: ReadonlyArray<string>) => {
  const lines: Array<string> = []
  const write = process.stdout.write
  return Effect.acquireUseRelease(
    Effect.sync(() => {
      process.stdout.write = ((text: string | Uint8Array) => {
        lines.push(String(text).trimEnd())
        return true
      }) as typeof write
    }),
    () => Effect.as(Command.runWith(imageCommand, { version: "0" })(args), lines),
    () => Effect.sync(() => void (process.stdout.write = write)),
  ).pipe(Effect.provide(Layer.mergeAll(NodeServices.layer, ComponentStore.live, CommandRunner.layer)))
}

/** The sentence that it ends with, which the user reads. */
const complaint = (args: ReadonlyArray<string>) =>
  Effect.map(Effect.flip(kiosImage(args)), (error) => `${error._tag}: ${error.message}`)

const small = ["--size", "100M", "--esp-size", "40M"]

describe("kios image", () => {
  it.live.skipIf(lacking(...needed))(
    "writes the EFI and the files, with their modes, as raw and as qcow2",
    () =>
      Effect.gen(function* () {
        const directory = yield* scratch
        const at = (name: string) => path.join(directory, name)
        const efi = makeEfi(directory)
        fs.mkdirSync(at("tree/meta/etc/kubernetes"), { recursive: true })
        fs.mkdirSync(at("tree/data/empty"), { recursive: true })
        fs.chmodSync(at("tree/meta/etc"), 0o711)
        fs.writeFileSync(at("tree/meta/etc/hostname"), "node-7\n")
        fs.symlinkSync("../hostname", at("tree/meta/etc/kubernetes/link"))
        fs.writeFileSync(at("secret"), "s", { mode: 0o600 })
        fs.writeFileSync(at("web.yaml"), "kind: Pod\n")
        const files = [
          ["--directory", at("tree")],
          ["--file", `${at("secret")}:/meta/etc/kubernetes/kubelet.conf`],
          ["--file", `${at("secret")}:modules/`],
          ["--manifest", at("web.yaml")],
        ].flat()
        const common = ["--efi", efi, ...small, ...files]
        const lines = yield* kiosImage([...common, "--json", "-o", at("a.img")])
        const told = JSON.parse(lines.at(-1) ?? "") as DiskImage.Info & {
          readonly event: string
          readonly format: string
        }
        assert.deepInclude(told, { event: "image", format: "raw", bytes: 100 * 2 ** 20 })
        const { partitions } = yield* DiskImage.inspect(at("a.img"))
        const [esp, data] = partitions
        assert.deepStrictEqual(
          partitions.map(({ size, type }) => [type, size / 2 ** 20]),
          [
            [DiskImage.ESP_TYPE, 40],
            [DiskImage.DATA_TYPE, 58],
          ],
        )
        fs.mkdirSync(at("sub"))
        fs.renameSync(at("a.img"), at("sub/a.img"))
        assert.isTrue(espFile(at("sub/a.img"), esp!, "EFI/BOOT/BOOTX64.EFI").equals(fs.readFileSync(efi)))
        fsck(directory, at("sub/a.img"), data!)
        const stat = (file: string) => debugfs(directory, at("sub/a.img"), data!, `stat ${file}`)
        assert.match(stat("/meta/etc"), /Type: directory +Mode: +0711/u)
        assert.match(stat("/meta/etc/kubernetes/kubelet.conf"), /Type: regular +Mode: +0600/u)
        assert.match(stat("/modules/secret"), /User: +0 +Group: +0/u)
        assert.match(stat("/meta/etc/kubernetes/link"), /Type: symlink[^]*Fast link dest: "\.\.\/hostname"/u)
        assert.match(stat("/data/empty"), /Type: directory +Mode: +0755/u)
        assert.match(stat("/meta/etc/kubernetes/manifests/web.yaml"), /Type: regular/u)

        // The same disk, and the same bytes each time.
        for (const name of ["b.qcow2", "c.qcow2"]) yield* kiosImage([...common, "-o", at(name)])
        assert.isTrue(fs.readFileSync(at("b.qcow2")).equals(fs.readFileSync(at("c.qcow2"))))
        execFileSync("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", at("b.qcow2"), at("sub/a.img")])
        assert.isBelow(fs.statSync(at("b.qcow2")).size, 10 * 2 ** 20)
      }),
  )

  it.live.skipIf(lacking(...needed))("takes the time of everything from SOURCE_DATE_EPOCH", () =>
    Effect.gen(function* () {
      const directory = yield* scratch
      const output = path.join(directory, "disk")
      const withEpoch = (epoch: string, run: Effect.Effect<unknown, unknown>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            const before = process.env["SOURCE_DATE_EPOCH"]
            process.env["SOURCE_DATE_EPOCH"] = epoch
            return before
          }),
          () => run,
          (before) =>
            Effect.sync(() => {
              if (before === undefined) delete process.env["SOURCE_DATE_EPOCH"]
              else process.env["SOURCE_DATE_EPOCH"] = before
            }),
        )
      const args = ["--efi", makeEfi(directory), ...small, "-o", output]
      yield* withEpoch("1700000000", kiosImage(args))
      const data = (yield* DiskImage.inspect(output)).partitions[1]!
      assert.match(debugfs(directory, output, data, "stat /meta/etc"), /mtime: 0x6553f100/u)
      const refused = yield* Effect.flip(withEpoch("tomorrow", kiosImage(args)))
      assert.include(String(refused), 'SOURCE_DATE_EPOCH: "tomorrow" is no whole number of seconds')
    }),
  )

  it.live("says in one sentence what is wrong, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const directory = yield* scratch
      const at = (name: string) => path.join(directory, name)
      const efi = makeEfi(directory, 1 << 20)
      fs.writeFileSync(at("big"), Buffer.alloc(70 << 20))
      fs.mkdirSync(at("tree"))
      execFileSync("mkfifo", [at("tree/fifo")])
      const before = fs.readdirSync(directory)
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [[...small, "--file", `${at("big")}:data/big`], "the data partition's files do not fit"],
        [[...small, "--file", `${at("big")}:data/big`], "(the disk, --size, has 100 MiB"],
        [["--size", "50M", "--esp-size", "40M"], "--size: 50 MiB leave no room for a data partition"],
        [["--esp-size", "36M", "--efi", makeEfi(at("tree"), 40 << 20)], "does not fit into an ESP of 36 MiB"],
        [["--file", `${at("big")}:../big`], `"../big" is no path on the data partition`],
        [["--file", `${at("big")}:meta/../../big`], "is no path on the data partition"],
        [["--directory", `${directory}:..`], "is no path on the data partition"],
        [["--file", `${at("none")}:data/x`], "cannot be read: ENOENT"],
        [["--file", `${at("tree")}:data/x`], "is a directory: use --directory"],
        [["--directory", at("big")], "is no directory: use --file"],
        [["--directory", at("tree")], "is no file, directory or symbolic link"],
        [["--manifest", at("none")], "cannot be read: ENOENT"],
        [["--label", "A B"], `label "A B" is not`],
        [[...small, "--file", `${efi}:modules`], "modules"],
      ]
      for (const [args, expected] of wrong) {
        const given = args.includes("--efi") ? args : ["--efi", efi, ...args]
        const said = yield* complaint([...given, "-o", at("disk")])
        assert.include(said, expected)
        assert.match(said, /^BadInput: /u)
        assert.deepStrictEqual(fs.readdirSync(directory), before)
      }
      assert.include(yield* complaint(["--efi", at("no.efi"), "-o", at("disk")]), "no.efi: does not exist")
    }),
  )

  it.live("names the Debian package of a program that is not installed", () =>
    Effect.gen(function* () {
      const directory = yield* scratch
      const said = yield* complaint([
        "--efi",
        makeEfi(directory),
        "--format",
        "qcow2",
        "-o",
        path.join(directory, "disk"),
      ]).pipe(
        Effect.provideService(HostTools, {
          has: (name) => name !== "qemu-img",
          run: () => Effect.die("unused"),
          open: () => assert.fail("unused"),
        }),
      )
      assert.match(said, /^MissingTool: .*"qemu-img".*apt-get install -y qemu-utils/su)
    }),
  )
})

describe("its words", () => {
  it("sizes", () => {
    assert.deepStrictEqual(["512M", "2G", "1T", "16T", "3GiB"].map(ImageOptions.parseSize), [
      512,
      2048,
      2 ** 20,
      2 ** 24,
      3072,
    ])
    for (const none of ["", "0M", "1", "1.5G", "-1G", "17T", "1K", "1g", "G"])
      assert.isUndefined(ImageOptions.parseSize(none), none)
  })

  it("files and directories", () => {
    assert.deepStrictEqual(ImageOptions.parsePlaced("a:b:meta/etc/c"), {
      source: "a:b",
      destination: "meta/etc/c",
    })
    for (const none of ["", "a", "a:", ":a"]) assert.isUndefined(ImageOptions.parsePlaced(none), none)
    assert.deepStrictEqual(ImageOptions.parseDirectory("d"), { source: "d", destination: "/" })
    assert.deepStrictEqual(ImageOptions.parseDirectory("d:meta/etc"), {
      source: "d",
      destination: "meta/etc",
    })
    assert.isUndefined(ImageOptions.parseDirectory(""))
  })

  it("knows what the node looks at", () => {
    for (const used of ["meta/etc/hostname", "/meta/etc/x", "modules/6.12/x.ko", "data/pods/x"])
      assert.isTrue(ImageOptions.isUsed(used), used)
    for (const unused of ["etc/hostname", "meta/etcetera", "x", "meta"])
      assert.isFalse(ImageOptions.isUsed(unused), unused)
  })
})
