import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Initramfs from "../../src/image/Initramfs.ts"
import * as Segments from "../../src/image/Segments.ts"
import { failure, lacking, noise, scratch } from "./support.ts"

const file = (name: string, content: string | Buffer): Initramfs.Entry => ({
  _tag: "File",
  path: name,
  mode: 0o644,
  content: { bytes: Buffer.from(content) },
})

const sha256 = (bytes: Uint8Array) => crypto.createHash("sha256").update(bytes).digest("hex")

describe("Segments", () => {
  for (const compression of ["none", "lz4", "zstd"] as const) {
    it.live.skipIf(compression === "lz4" && lacking("lz4"))(
      `what is kept is packed once, and all is read back, ${compression}`,
      () =>
        Effect.gen(function* () {
          const dir = yield* scratch
          const cache = path.join(dir, "cache")
          const big = noise(3_000_001)
          const build = (init: string) =>
            Segments.write(
              [
                { keep: true, compression, entries: [file("a/b", big), file("c", "")] },
                { keep: false, compression, entries: [file("init", init)] },
              ],
              { output: path.join(dir, "initramfs"), cache },
            )
          const output = () => fs.readFileSync(path.join(dir, "initramfs"))
          const packedAt = () =>
            fs
              .readdirSync(cache)
              .filter((name) => name.endsWith(".cpio"))
              .map((name) => [name, fs.statSync(path.join(cache, name)).mtimeMs])

          const first = yield* build("one")
          const once = packedAt()
          assert.strictEqual(once.length, 1)
          assert.deepStrictEqual([first.bytes, first.sha256], [output().length, sha256(output())])
          assert.deepStrictEqual(
            first.parts.map((part) => part.path),
            ["a", "a/b", "c", "init"],
          )

          const second = yield* build("two")
          assert.deepStrictEqual(packedAt(), once, "it was not packed again")
          assert.notStrictEqual(second.sha256, first.sha256)
          assert.deepStrictEqual(fs.readdirSync(dir).toSorted(), ["cache", "initramfs"])
          const back = yield* Initramfs.read({ path: path.join(dir, "initramfs") }, { contents: 100 })
          assert.deepStrictEqual(
            back.map((entry) => entry.path),
            ["a", "a/b", "c", "init"],
          )
          assert.strictEqual(back[1]?.sha256, sha256(big))
          assert.strictEqual(back[3]?.content?.toString(), "two")

          yield* build("one")
          assert.strictEqual(
            sha256(output()),
            first.sha256,
            "same entries, same bytes, from the cache or not",
          )
        }),
    )
  }

  it.live.skipIf(lacking("lz4"))(
    "each is packed in its own way; what is behind a damaged one is not read",
    () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const output = path.join(dir, "initramfs")
        const segment = (compression: "none" | "lz4" | "zstd", name: string) =>
          ({ keep: false, compression, entries: [file(name, noise(10_000))] }) as const
        yield* Segments.write(
          [
            segment("none", "a"),
            segment("zstd", "b"),
            segment("none", "c"),
            segment("zstd", "d"),
            segment("lz4", "e"),
            segment("lz4", "f"),
            segment("none", "g"),
          ],
          { output, cache: path.join(dir, "cache") },
        )
        const back = yield* Initramfs.read({ path: output })
        assert.deepStrictEqual(
          back.map((entry) => [entry.path, entry.sha256]),
          ["a", "b", "c", "d", "e", "f", "g"].map((name) => [name, sha256(noise(10_000))]),
        )
        const whole = fs.readFileSync(output)
        for (const at of [
          whole.indexOf("28b52ffd", 0, "hex") + 5000,
          whole.lastIndexOf("28b52ffd", undefined, "hex") + 4,
        ])
          for (const bytes of [
            whole.subarray(0, at),
            Buffer.concat([whole.subarray(0, at), Buffer.alloc(5000, 0xff)]),
          ]) {
            const error = yield* failure(Initramfs.read({ bytes }))
            assert.strictEqual(error._tag === "InitramfsError" && error.reason, "Malformed", error.message)
          }
      }),
  )

  it.live.skipIf(lacking("lz4"))(
    "what a stub puts behind what is packed by lz4 is an archive of its own",
    () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const stub = path.join(dir, "stub")
        yield* Initramfs.write([file(".extra/os-release", "ID=kios")], { output: stub, compression: "none" })
        for (let n = 0; n < 5; n++) {
          const output = path.join(dir, "initramfs")
          const entries = [file("a", noise(1000 + n))]
          const written = yield* Segments.write([{ keep: false, compression: "lz4", entries }], {
            output,
            cache: path.join(dir, "cache"),
          })
          assert.strictEqual(written.bytes % 4, 0)
          const own = fs.readFileSync(output)
          // Block by block, as the kernel does, which ends at a block of no length.
          let at = 4
          while (own.readUInt32LE(at) !== 0) at += 4 + own.readUInt32LE(at)
          assert.isAtMost(own.length - at, 4 + 3)
          const back = yield* Initramfs.read({ bytes: Buffer.concat([own, fs.readFileSync(stub)]) })
          assert.deepStrictEqual(
            back.map((entry) => entry.path),
            ["a", ".extra", ".extra/os-release"],
          )
        }
      }),
  )

  const key = (dir: string, entry: Initramfs.Entry, level: number) =>
    Effect.map(
      Segments.write([{ keep: true, entries: [entry], compression: "zstd", level }], {
        output: path.join(dir, "x"),
        cache: path.join(dir, "cache"),
      }),
      () => fs.readdirSync(path.join(dir, "cache")).filter((name) => name.endsWith(".cpio")).length,
    )

  it.live("another content, mode, name, target or level is another segment", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const source = path.join(dir, "source")
      fs.writeFileSync(source, "one")
      const of = (name: string, mode: number): Initramfs.Entry => ({
        _tag: "File",
        path: name,
        mode,
        content: { path: source },
      })
      assert.strictEqual(yield* key(dir, of("a", 0o644), 3), 1)
      assert.strictEqual(yield* key(dir, of("a", 0o644), 4), 2)
      assert.strictEqual(yield* key(dir, of("a", 0o755), 4), 3)
      assert.strictEqual(yield* key(dir, of("b", 0o755), 4), 4)
      assert.strictEqual(yield* key(dir, { _tag: "Symlink", path: "b", target: "a" }, 4), 5)
      assert.strictEqual(yield* key(dir, { _tag: "Symlink", path: "b", target: "c" }, 4), 6)
      fs.writeFileSync(source, "two")
      assert.strictEqual(yield* key(dir, of("a", 0o644), 3), 7)
      assert.strictEqual(yield* key(dir, of("a", 0o644), 3), 7)
    }),
  )

  it.live("the cache keeps the eight that were used last, and mends what was damaged", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const cache = path.join(dir, "cache")
      for (let n = 0; n < 8; n++) yield* key(dir, file("a", String(n)), 1)
      const old = new Date(1000)
      for (const name of fs.readdirSync(cache)) fs.utimesSync(path.join(cache, name), old, old)
      // Used now: it outlives the others.
      yield* key(dir, file("a", "3"), 1)
      const used = fs.readdirSync(cache).find((name) => fs.statSync(path.join(cache, name)).mtimeMs > 1000)
      for (let n = 8; n < 15; n++) assert.strictEqual(yield* key(dir, file("a", String(n)), 1), 8)
      assert.include(fs.readdirSync(cache), used)
      assert.strictEqual(fs.readdirSync(cache).length, 16)

      for (const name of fs.readdirSync(cache)) fs.writeFileSync(path.join(cache, name), "{}")
      yield* key(dir, file("a", "14"), 1)
      const back = yield* Initramfs.read({ path: path.join(dir, "x") }, { contents: 10 })
      assert.strictEqual(back[0]?.content?.toString(), "14")
    }),
  )

  it.live("a source that is not there is an error that names it", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const missing = path.join(dir, "missing")
      const entry: Initramfs.Entry = { _tag: "File", path: "a", mode: 0o644, content: { path: missing } }
      const error = yield* failure(key(dir, entry, 1))
      assert.include(error.message, missing)
      assert.deepStrictEqual(fs.readdirSync(dir), [])
      const half = Segments.write(
        [
          { keep: false, compression: "zstd", entries: [file("b", "fine")] },
          { keep: false, compression: "zstd", entries: [entry] },
        ],
        { output: path.join(dir, "x"), cache: path.join(dir, "cache") },
      )
      assert.include((yield* failure(half)).message, missing)
      assert.deepStrictEqual(fs.readdirSync(dir), [], "what was packed before is gone again")
    }),
  )
})
