import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { find, HostTools } from "../../src/image/HostTools.ts"
import { type InitramfsError, MissingTool } from "../../src/image/ImageError.ts"
import * as Initramfs from "../../src/image/Initramfs.ts"
import { failure, lacking, noise, scratch } from "./support.ts"

const text = (s: string) => ({ bytes: Buffer.from(s) })
const file = (p: string, s = ""): Initramfs.Entry => ({
  _tag: "File",
  path: p,
  mode: 0o644,
  content: text(s),
})

const sample = (dir: string): ReadonlyArray<Initramfs.Entry> => {
  const big = path.join(dir, "big")
  fs.writeFileSync(big, noise(3_000_001))
  return [
    { _tag: "File", path: "/init", mode: 0o755, content: { path: big } },
    { _tag: "Symlink", path: "lib64", target: "lib" },
    { _tag: "CharDevice", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { _tag: "Directory", path: "tmp", mode: 0o1777 },
    file("a/b/c", "abc"),
    file("a.b", "sorts between a and a/b"),
    file("empty"),
  ]
}

const write = (entries: ReadonlyArray<Initramfs.Entry>, output: string) =>
  Initramfs.write(entries, { output, compression: "none" })

describe("Initramfs", () => {
  for (const compression of ["none", "lz4", "zstd"] as const) {
    it.live.skipIf(compression === "lz4" && lacking("lz4"))(`round-trips, ${compression}`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const entries = sample(dir)
        const output = path.join(dir, "out", "initramfs")
        const written = yield* Initramfs.write(entries, { output, compression, level: 3 })
        const bytes = fs.readFileSync(output)
        assert.strictEqual(written.bytes, bytes.length)
        assert.strictEqual(written.sha256, crypto.createHash("sha256").update(bytes).digest("hex"))
        const back = yield* Initramfs.read({ path: output }, { contents: 100 })
        assert.deepStrictEqual(
          back.map((e) => [e.path, e.type, e.mode]),
          [
            ["a", "Directory", 0o755],
            ["a.b", "File", 0o644],
            ["a/b", "Directory", 0o755],
            ["a/b/c", "File", 0o644],
            ["dev", "Directory", 0o755],
            ["dev/console", "CharDevice", 0o600],
            ["empty", "File", 0o644],
            ["init", "File", 0o755],
            ["lib64", "Symlink", 0o777],
            ["tmp", "Directory", 0o1777],
          ],
        )
        const at = (p: string) => back.find((e) => e.path === p)!
        assert.strictEqual(at("a/b/c").content!.toString(), "abc")
        assert.strictEqual(at("lib64").target, "lib")
        assert.deepStrictEqual(
          [at("dev/console").header.rdevmajor, at("dev/console").header.rdevminor],
          [5, 1],
        )
        assert.strictEqual(
          at("init").sha256,
          crypto.createHash("sha256").update(noise(3_000_001)).digest("hex"),
        )
        assert.isUndefined(at("init").content)
        assert.deepStrictEqual(
          back.map((e) => e.header.ino),
          back.map((_, i) => i + 1),
        )
        assert.isTrue(back.every((e) => e.header.mtime === 0 && e.header.uid === 0 && e.header.gid === 0))
        // 124: header and name of TRAILER!!!, padded.
        assert.strictEqual(
          written.parts.reduce((sum, part) => sum + part.bytes, 124),
          written.uncompressedBytes,
        )
        assert.deepStrictEqual(fs.readdirSync(path.dirname(output)), ["initramfs"])
      }),
    )

    it.live.skipIf(compression === "lz4" && lacking("lz4"))(`same entries, same bytes, ${compression}`, () =>
      Effect.gen(function* () {
        const dirs = [yield* scratch, yield* scratch] as const
        const sums = []
        for (const [i, dir] of dirs.entries()) {
          const entries = i === 0 ? sample(dir) : sample(dir).toReversed()
          sums.push(
            (yield* Initramfs.write(entries, { output: path.join(dir, "x"), compression, level: 5 })).sha256,
          )
        }
        assert.strictEqual(sums[0], sums[1])
      }),
    )
  }

  it.live.skipIf(lacking("cpio"))("cpio reads it as we do", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const output = path.join(dir, "x.cpio")
      yield* write(sample(dir), output)
      const listed = execFileSync(find("cpio")!, ["-t", "--quiet", "-F", output], { encoding: "utf8" })
      const ours = yield* Initramfs.read({ path: output })
      assert.deepStrictEqual(
        listed.trim().split("\n"),
        ours.map((e) => e.path),
      )
      const into = path.join(dir, "into")
      fs.mkdirSync(into)
      execFileSync(find("cpio")!, ["-id", "--quiet", "-F", output, "a/b/c", "init", "lib64"], { cwd: into })
      assert.strictEqual(fs.readFileSync(path.join(into, "a/b/c"), "utf8"), "abc")
      assert.isTrue(noise(3_000_001).equals(fs.readFileSync(path.join(into, "init"))))
      assert.strictEqual(fs.readlinkSync(path.join(into, "lib64")), "lib")
    }),
  )

  it.live("reads archives that follow one another after zeros by 4", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const [one, two] = [path.join(dir, "1"), path.join(dir, "2")]
      yield* write([file("a", "1")], one)
      yield* write([file("b", "22")], two)
      const [a, b] = [fs.readFileSync(one), fs.readFileSync(two)]
      assert.strictEqual(a.length % 4, 0)
      const paths = (bytes: Buffer) => Effect.map(Initramfs.read({ bytes }), (es) => es.map((e) => e.path))
      assert.deepStrictEqual(yield* paths(Buffer.concat([a, b])), ["a", "b"])
      assert.deepStrictEqual(yield* paths(Buffer.concat([a, Buffer.alloc(512), b, Buffer.alloc(8)])), [
        "a",
        "b",
      ])
      const error = yield* failure(paths(Buffer.concat([a, Buffer.alloc(2), b])))
      assert.include(error.message, "no newc header here")
    }),
  )

  it.live("a cut or damaged archive is malformed, with the byte", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const output = path.join(dir, "x")
      yield* write([file("a/long-name", "some content"), file("z")], output)
      const whole = fs.readFileSync(output)
      for (let n = 0; n < whole.length - 3; n++) {
        const error = yield* failure(Initramfs.read({ bytes: whole.subarray(0, n) }))
        assert.strictEqual(error._tag === "InitramfsError" && error.reason, "Malformed", `cut at ${n}`)
      }
      const error = yield* failure(Initramfs.read({ bytes: Buffer.from("28b52ffd0000000000", "hex") }))
      assert.match(error.message, /cannot be decompressed/u)
    }),
  )

  const refused: ReadonlyArray<
    readonly [string, ReadonlyArray<Initramfs.Entry>, InitramfsError["reason"], string]
  > = [
    ["a path twice", [file("/a/b"), file("a/b/")], "DuplicatePath", "a/b"],
    ["a file below a file", [file("a"), file("a/b")], "ParentNotDirectory", "a/b"],
    [
      "a file below a link",
      [{ _tag: "Symlink", path: "l", target: "x" }, file("l/b")],
      "ParentNotDirectory",
      "l/b",
    ],
    ["..", [file("a/../b")], "InvalidPath", "a/../b"],
    ["an empty path", [file("/")], "InvalidPath", "/"],
    ["the trailer's name", [file("TRAILER!!!")], "InvalidPath", "TRAILER!!!"],
    ["a name too long", [file(`${"n".repeat(255)}/`.repeat(16) + "x")], "PathTooLong", "n"],
    ["type bits in the mode", [{ _tag: "Directory", path: "d", mode: 0o40755 }], "InvalidMode", "d"],
    [
      "a device number",
      [{ _tag: "CharDevice", path: "d", mode: 0, major: 4096, minor: 0 }],
      "InvalidDevice",
      "d",
    ],
    ["a link to nothing", [{ _tag: "Symlink", path: "l", target: "" }], "InvalidPath", "l"],
  ]
  for (const [name, entries, reason, at] of refused) {
    it.live(`refuses ${name}`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const error = yield* failure(write(entries, path.join(dir, "x")))
        assert.strictEqual(error._tag === "InitramfsError" && error.reason, reason)
        assert.include(error.message, at)
        assert.deepStrictEqual(fs.readdirSync(dir), [])
      }),
    )
  }

  it.live("takes a path of 4095 bytes and refuses 4096", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const longest = `${"d".repeat(255)}/`.repeat(15) + "f".repeat(255)
      assert.strictEqual(longest.length, 4095)
      yield* write([file(longest)], path.join(dir, "x"))
      assert.strictEqual((yield* Initramfs.read({ path: path.join(dir, "x") })).at(-1)!.path, longest)
      const error = yield* failure(write([file(`${longest}f`)], path.join(dir, "y")))
      assert.strictEqual(error._tag === "InitramfsError" && error.reason, "PathTooLong")
    }),
  )

  it.live("refuses a file of 4 GiB and a source that is not a regular file", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const huge = path.join(dir, "huge")
      fs.writeFileSync(huge, "")
      fs.truncateSync(huge, 2 ** 32)
      const of = (source: string): ReadonlyArray<Initramfs.Entry> => [
        { _tag: "File", path: "bin/huge", mode: 0o755, content: { path: source } },
      ]
      const tooLarge = yield* failure(write(of(huge), path.join(dir, "x")))
      assert.strictEqual(tooLarge._tag === "InitramfsError" && tooLarge.reason, "FileTooLarge")
      assert.include(tooLarge.message, "bin/huge")
      assert.include(tooLarge.message, huge)
      const directory = yield* failure(write(of(dir), path.join(dir, "x")))
      assert.strictEqual(directory._tag === "InitramfsError" && directory.reason, "NotARegularFile")
      const absent = yield* failure(write(of(path.join(dir, "absent")), path.join(dir, "x")))
      assert.strictEqual(absent._tag, "ImageFileError")
      assert.include(absent.message, "no such file")
    }),
  )

  it.live("refuses a level that the compression does not have", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const error = yield* failure(
        Initramfs.write([], { output: path.join(dir, "x"), compression: "zstd", level: 22 }),
      )
      assert.include(error.message, "1 to 19")
    }),
  )

  it.live("without lz4: one error that names the package, and no file left", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const error = yield* failure(
        Initramfs.write([file("a")], { output: path.join(dir, "x"), compression: "lz4" }).pipe(
          Effect.provideService(HostTools, {
            has: () => false,
            run: () => Effect.die("unused"),
            open: () => {
              throw new MissingTool({ tool: "lz4", debianPackage: "lz4" })
            },
          }),
        ),
      )
      assert.include(error.message, "apt-get install -y lz4")
      assert.deepStrictEqual(fs.readdirSync(dir), [])
    }),
  )

  it.live("an interrupted build leaves no file", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const source = path.join(dir, "source")
      fs.writeFileSync(source, "")
      fs.truncateSync(source, 2 ** 32 - 1)
      const out = path.join(dir, "out")
      const entry: Initramfs.Entry = { _tag: "File", path: "f", mode: 0o644, content: { path: source } }
      for (const compression of ["none", "zstd"] as const) {
        const options = { output: path.join(out, "x"), compression, level: 1 }
        const fiber = yield* Effect.forkChild(Initramfs.write([entry], options))
        const begun = Effect.sync(() => fs.existsSync(out) && fs.readdirSync(out).length === 1)
        yield* begun.pipe(
          Effect.repeat({ until: (yes) => yes, schedule: Schedule.spaced("2 millis") }),
          Effect.timeout("10 seconds"),
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(fs.readdirSync(out), [], compression)
      }
    }),
  )
})
