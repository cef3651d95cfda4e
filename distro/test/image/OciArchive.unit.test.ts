import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as OciArchive from "../../src/image/OciArchive.ts"
import * as Tar from "../../src/image/Tar.ts"
import { failure, lacking, noise, scratch } from "./support.ts"

const long = `${"directory-with-a-long-name/".repeat(12)}file`
const split = `${"p".repeat(90)}/${"q".repeat(60)}/${"r".repeat(99)}`

const recipe = (dir: string): OciArchive.Recipe => {
  fs.writeFileSync(path.join(dir, "tool"), noise(2_500_000), { mode: 0o700 })
  fs.utimesSync(path.join(dir, "tool"), Math.random() * 1e9, Math.random() * 1e9)
  return {
    name: "localhost/kios/busybox:1.37",
    architecture: "amd64",
    files: [
      { path: "/bin/tool", mode: 0o4755, source: path.join(dir, "tool") },
      { path: "bin/sh", symlink: "tool" },
      { path: "home/user", directory: true, mode: 0o700, uid: 1000, gid: 3_000_000 },
      { path: long, mode: 0o644, source: { bytes: Buffer.from("long") } },
      { path: split, mode: 0o644, source: { bytes: Buffer.from("split") } },
      { path: "etc/motd-ü", mode: 0o644, source: { bytes: Buffer.from("") } },
    ],
    config: {
      entrypoint: ["/bin/tool"],
      cmd: ["-f"],
      env: ["PATH=/bin"],
      user: "1000:1000",
      labels: { b: "2", a: "1" },
    },
  }
}

const archiveOf = (entries: ReadonlyArray<Tar.Entry>) =>
  Effect.promise(async () => {
    const parts: Array<Uint8Array> = []
    for await (const part of Tar.stream(entries, { keepOrder: true })) parts.push(part)
    return Buffer.concat(parts)
  })

/** All files of an archive as path and bytes, by our reader. */
const filesOf = (file: string) =>
  Effect.promise(async () => {
    const files = new Map<string, Buffer>()
    await Tar.read(file, async (entry, content) => {
      const parts: Array<Uint8Array> = []
      for await (const part of content) parts.push(part)
      if (entry.type === "File") files.set(entry.path, Buffer.concat(parts))
    })
    return files
  })

/** An archive of one image. */
const buildOne = (image: OciArchive.Recipe, output: string) =>
  Effect.map(OciArchive.build([image], output), ({ images, ...archive }) => ({ ...archive, ...images[0]! }))

describe("OciArchive", () => {
  it.live("same recipe, same bytes, at different paths", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* scratch, yield* scratch]
      const a = yield* buildOne(recipe(one), path.join(one, "x.tar"))
      const shuffled = recipe(two)
      const b = yield* buildOne(
        {
          ...shuffled,
          files: shuffled.files.toReversed(),
          config: { ...shuffled.config, labels: { a: "1", b: "2" } },
        },
        path.join(two, "sub", "other.tar"),
      )
      assert.deepStrictEqual(a, b)
      assert.isTrue(
        fs.readFileSync(path.join(one, "x.tar")).equals(fs.readFileSync(path.join(two, "sub/other.tar"))),
      )
      assert.deepStrictEqual(fs.readdirSync(path.join(two, "sub")), ["other.tar"])
    }),
  )

  it.live("is what the specification asks for, and inspect says so", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const file = path.join(dir, "x.tar")
      const built = yield* buildOne(recipe(dir), file)
      const info = yield* OciArchive.inspect(file)
      assert.strictEqual(info.bytes, built.bytes)
      assert.strictEqual(info.images.length, 1)
      assert.deepInclude(info.images[0], {
        name: "localhost/kios/busybox:1.37",
        manifestDigest: built.manifestDigest,
        configDigest: built.configDigest,
        architecture: "amd64",
        os: "linux",
      })
      assert.strictEqual(info.images[0].layers[0]!.mediaType, "application/vnd.oci.image.layer.v1.tar")
      const files = yield* filesOf(file)
      const index = JSON.parse(files.get("index.json")!.toString())
      assert.deepStrictEqual(index.manifests[0].annotations, {
        "io.containerd.image.name": "localhost/kios/busybox:1.37",
        "org.opencontainers.image.ref.name": "1.37",
      })
      const config = JSON.parse(files.get(`blobs/sha256/${built.configDigest.slice(7)}`)!.toString())
      assert.deepStrictEqual(config.config, {
        User: "1000:1000",
        Env: ["PATH=/bin"],
        Entrypoint: ["/bin/tool"],
        Cmd: ["-f"],
        Labels: { a: "1", b: "2" },
      })
      assert.deepStrictEqual(config.rootfs.diff_ids, built.layerDigests)
    }),
  )

  it.live("images of one archive share the layers that they have in common", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const file = path.join(dir, "x.tar")
      const library = [{ path: "lib/c.so", mode: 0o644, source: { bytes: noise(300_000) } }]
      const image = (name: string, files: OciArchive.Recipe["files"]): OciArchive.Recipe => ({
        name: `localhost/kios/${name}:1`,
        architecture: "amd64",
        base: [library],
        files,
        config: { entrypoint: [`/bin/${name}`] },
      })
      const tool = { path: "bin/tool", mode: 0o755, source: { bytes: noise(1000) } }
      const built = yield* OciArchive.build(
        [image("a", [tool]), image("b", [{ ...tool, path: "bin/b" }]), image("bare", [])],
        file,
      )
      const [a, b, bare] = built.images.map(({ layerDigests }) => layerDigests)
      assert.deepStrictEqual([a?.length, b?.length, bare?.length], [2, 2, 1])
      assert.strictEqual(a?.[0], b?.[0])
      assert.strictEqual(a?.[0], bare?.[0])
      assert.notStrictEqual(a?.[1], b?.[1])
      assert.isBelow(built.bytes, 2 * 300_000)
      const { images } = yield* OciArchive.inspect(file)
      assert.deepStrictEqual(
        images.map(({ layers, manifestDigest, name }) => [name, manifestDigest, layers.map((l) => l.digest)]),
        built.images.map(({ layerDigests, manifestDigest, name }) => [
          name,
          manifestDigest,
          [...layerDigests],
        ]),
      )
      const alone = yield* OciArchive.build(
        [image("b", [{ ...tool, path: "bin/b" }])],
        path.join(dir, "b.tar"),
      )
      assert.deepStrictEqual(alone.images[0], built.images[1])
    }),
  )

  it.live("two images of one name are refused", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const error = yield* failure(OciArchive.build([recipe(dir), recipe(dir)], path.join(dir, "x.tar")))
      assert.include(error.message, "two images of this name")
    }),
  )

  it.live.skipIf(lacking("tar"))("GNU tar reads the layer: modes, owners, long names", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const file = path.join(dir, "x.tar")
      const built = yield* buildOne(recipe(dir), file)
      const layer = (yield* filesOf(file)).get(`blobs/sha256/${built.layerDigests[0]!.slice(7)}`)!
      const listed = execFileSync("tar", ["--numeric-owner", "--quoting-style=literal", "-tvf", "-"], {
        input: layer,
        encoding: "utf8",
        env: { ...process.env, LC_ALL: "C", TZ: "UTC" },
      })
        .trim()
        .split("\n")
      const find = (end: string) => listed.find((line) => line.endsWith(end))
      assert.match(find(" bin/tool")!, /^-rwsr-xr-x 0\/0 +2500000 1970-01-01 00:00/u)
      assert.match(find(" bin/sh -> tool")!, /^lrwxrwxrwx 0\/0/u)
      assert.match(find(" home/user/")!, /^drwx------ 1000\/3000000/u)
      assert.match(find(" home/")!, /^drwxr-xr-x 0\/0/u)
      assert.isDefined(find(` ${long}`))
      assert.isDefined(find(` ${split}`))
      assert.isDefined(find(" etc/motd-ü"))
      const own = path.join(dir, "layer.tar")
      fs.writeFileSync(own, layer)
      const ours: Array<string> = []
      yield* Effect.promise(() =>
        Tar.read(own, async (e) => void ours.push(e.type === "Directory" ? `${e.path}/` : e.path)),
      )
      assert.deepStrictEqual(
        ours,
        listed.map((line) => line.replace(/^.*1970-01-01 00:00 /u, "").replace(/ -> .*$/u, "")),
      )
    }),
  )

  it.live("every cut and every damaged blob is found", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const file = path.join(dir, "x.tar")
      const small = {
        ...recipe(dir),
        files: [{ path: "a", mode: 0o644, source: { bytes: Buffer.from("a") } }],
      }
      const built = yield* buildOne(small, file)
      const whole = fs.readFileSync(file)
      const broken = path.join(dir, "broken.tar")
      const reasonOf = (bytes: Buffer) =>
        Effect.gen(function* () {
          fs.writeFileSync(broken, bytes)
          const error = yield* failure(OciArchive.inspect(broken))
          assert.include(error.message, broken)
          return error._tag === "OciArchiveError" ? error.reason : error._tag
        })
      for (let n = 512; n < whole.length - 1024; n += 256) {
        assert.strictEqual(yield* reasonOf(whole.subarray(0, n)), "Truncated", `cut at ${n}`)
      }
      assert.strictEqual(yield* reasonOf(whole.subarray(0, 100)), "NotATar")
      assert.strictEqual(yield* reasonOf(noise(4096)), "NotATar")
      assert.strictEqual(yield* reasonOf(Buffer.alloc(4096)), "NotATar")
      fs.writeFileSync(broken, Buffer.concat([Buffer.from("1f8b0800", "hex"), Buffer.alloc(1000)]))
      assert.include((yield* failure(OciArchive.inspect(broken))).message, "gunzip")
      for (const digest of [built.manifestDigest, built.configDigest, built.layerDigests[0]!]) {
        const bytes = Buffer.from(whole)
        bytes[bytes.indexOf(`blobs/sha256/${digest.slice(7)}`) + 512]! ^= 1
        assert.strictEqual(yield* reasonOf(bytes), "BadDigest")
      }
      const header = Buffer.from(whole)
      header[header.indexOf("index.json")]! ^= 1
      assert.strictEqual(yield* reasonOf(header), "Truncated")
    }),
  )

  it.live("names what is missing or wrong in an archive that is whole", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const file = path.join(dir, "x.tar")
      const built = yield* buildOne(recipe(dir), file)
      const files = yield* filesOf(file)
      const broken = path.join(dir, "broken.tar")
      const inspectWith = (change: (files: Map<string, Buffer>) => void) =>
        Effect.gen(function* () {
          const copy = new Map(files)
          change(copy)
          const entries = [...copy].map(([at, bytes]): Tar.Entry => ({
            _tag: "File",
            path: at,
            mode: 0o644,
            content: { bytes },
          }))
          fs.writeFileSync(broken, yield* archiveOf(entries))
          const error = yield* failure(OciArchive.inspect(broken))
          return error._tag === "OciArchiveError" ? error.reason : error._tag
        })
      const blob = (digest: string) => `blobs/sha256/${digest.slice(7)}`
      const index = (edit: (index: any) => void) => (map: Map<string, Buffer>) => {
        const value = JSON.parse(map.get("index.json")!.toString())
        edit(value)
        map.set("index.json", Buffer.from(JSON.stringify(value)))
      }
      assert.strictEqual(yield* inspectWith((m) => m.delete("index.json")), "MissingIndex")
      assert.strictEqual(yield* inspectWith((m) => m.delete("oci-layout")), "MissingLayout")
      assert.strictEqual(yield* inspectWith((m) => m.delete(blob(built.manifestDigest))), "MissingBlob")
      assert.strictEqual(yield* inspectWith((m) => m.delete(blob(built.configDigest))), "MissingBlob")
      assert.strictEqual(yield* inspectWith((m) => m.delete(blob(built.layerDigests[0]!))), "MissingBlob")
      assert.strictEqual(yield* inspectWith((m) => m.set("index.json", Buffer.from("{"))), "BadJson")
      assert.strictEqual(yield* inspectWith(index((i) => (i.manifests[0].digest = "sha256:x"))), "BadJson")
      assert.strictEqual(yield* inspectWith(index((i) => (i.manifests[0].size += 1))), "BadSize")
      assert.strictEqual(yield* inspectWith(index((i) => (i.manifests = []))), "NoImage")
      const swapped = crypto.createHash("sha256").update("{}").digest("hex")
      const other = inspectWith((m) => {
        m.set(`blobs/sha256/${swapped}`, Buffer.from("{}"))
        index((i) => Object.assign(i.manifests[0], { digest: `sha256:${swapped}`, size: 2 }))(m)
      })
      assert.strictEqual(yield* other, "BadJson")
    }),
  )

  const bad: ReadonlyArray<readonly [string, (r: OciArchive.Recipe) => OciArchive.Recipe, string]> = [
    ["a name without a tag", (r) => ({ ...r, name: "localhost/kios/busybox" }), "host/path:tag"],
    ["a name without a host", (r) => ({ ...r, name: "busybox:1" }), "host/path:tag"],
    ["env without =", (r) => ({ ...r, config: { ...r.config, env: ["PATH"] } }), "NAME=value"],
    ["nothing to run", (r) => ({ ...r, config: {} }), "nothing to run"],
    [
      "a relative workingDir",
      (r) => ({ ...r, config: { ...r.config, workingDir: "x" } }),
      "does not begin with /",
    ],
    ["a path twice", (r) => ({ ...r, files: [...r.files, ...r.files] }), "listed twice"],
    [
      "a path out of the image",
      (r) => ({ ...r, files: [{ path: "../x", symlink: "y" }] }),
      "not a path inside",
    ],
    [
      "a source that is a directory",
      (r) => ({ ...r, files: [{ path: "x", mode: 0o644, source: "/" }] }),
      "regular file",
    ],
    [
      "a source that is not there",
      (r) => ({ ...r, files: [{ path: "x", mode: 0o644, source: "/absent" }] }),
      "no such file",
    ],
  ]
  for (const [name, change, detail] of bad) {
    it.live(`refuses ${name} and leaves nothing behind`, () =>
      Effect.gen(function* () {
        const dir = yield* scratch
        const out = path.join(dir, "out")
        fs.mkdirSync(out)
        const error = yield* failure(buildOne(change(recipe(dir)), path.join(out, "x.tar")))
        assert.include(error.message, detail)
        assert.deepStrictEqual(fs.readdirSync(out), [])
      }),
    )
  }
})
