import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as NpmPackage from "../../src/components/sources/NpmPackage.ts"
import { concatenate, strip } from "../../src/components/Transform.ts"
import { fakeCommands } from "../../src/components/testing/FakeCommands.ts"
import { machine, scripted, temporaryDirectory, tool } from "./support.ts"

const sha256 = createHash("sha256").update("program").digest("hex")

const start = (commands = fakeCommands({})) =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const directory = path.join(root, "node_modules/@scope/pkg")
    fs.mkdirSync(path.join(directory, "bin"), { recursive: true })
    // exports that hide package.json must not matter.
    fs.writeFileSync(path.join(directory, "package.json"), `{"version":"1.2.3","exports":{}}`)
    fs.writeFileSync(path.join(directory, "bin/tool"), "program")
    const from = path.join(root, "a/b")
    fs.mkdirSync(from, { recursive: true })
    const files = [{ from: "bin/tool", to: "bin/tool", sha256, executable: true }] as const
    const source = (version = "1.2.3") => NpmPackage.source({ name: "@scope/pkg", version, files, from })
    return { ...machine({ root, commands: commands.layer }), directory, source, commands }
  })

it.live("takes pinned files of the installed package, found upwards", () =>
  Effect.gen(function* () {
    const { resolve, source } = yield* start()
    const resolved = yield* resolve(tool(source()))
    assert.deepStrictEqual(resolved.files, [{ path: "bin/tool", sha256, size: 7, mode: 0o755 }])
    assert.strictEqual(resolved.parts[0]?.purl, "pkg:npm/%40scope/pkg@1.2.3")
  }),
)

it.live("another version, no package, and another content are each named", () =>
  Effect.gen(function* () {
    const { directory, resolve, source } = yield* start()
    const version = yield* Effect.flip(resolve(tool(source("1.2.4"))))
    assert.match(
      version.message,
      /version 1\.2\.3 is installed in .*, want 1\.2\.4\. Install with: npm install @scope\/pkg@1\.2\.4/u,
    )
    fs.writeFileSync(path.join(directory, "bin/tool"), "changed")
    assert.strictEqual((yield* Effect.flip(resolve(tool(source()))))._tag, "DigestMismatch")
    fs.rmSync(path.join(directory, "bin/tool"))
    assert.match(
      (yield* Effect.flip(resolve(tool(source())))).message,
      /bin\/tool is not in npm @scope\/pkg 1\.2\.3/u,
    )
    fs.rmSync(directory, { recursive: true })
    assert.match((yield* Effect.flip(resolve(tool(source())))).message, /the package is not installed/u)
  }),
)

it.live("stripping is recorded, is in the key, and names binutils when it is missing", () =>
  Effect.gen(function* () {
    const bare = yield* start()
    const error = yield* Effect.flip(bare.resolve(tool(strip(bare.source(), ["bin/tool"]))))
    assert.match(error.message, /^strip is needed for stripping tool .* apt-get install -y binutils$/u)
    const there = yield* start(
      fakeCommands({
        strip: ({ args }) => {
          if (args[0] === "--version") return { stdout: "GNU strip 2.40\nCopyright\n" }
          fs.writeFileSync(args[1]!, "small")
          return {}
        },
      }),
    )
    const plain = yield* there.resolve(tool(there.source()))
    const stripped = yield* there.resolve(tool(strip(there.source(), ["bin/tool"])))
    assert.notStrictEqual(stripped.key, plain.key)
    assert.strictEqual(stripped.bytes, 5)
    assert.deepStrictEqual(stripped.transforms, ["strip --strip-all bin/tool (GNU strip 2.40)"])
  }),
)

it.live("concatenates in the order of names, each file ended by a newline", () =>
  Effect.gen(function* () {
    const { resolve } = yield* start()
    const { source } = scripted({ "d/b.crt": "B", "d/a.crt": "A\n", "d/readme": "no", "bin/tool": "" })
    const resolved = yield* resolve(
      tool(concatenate(source, { directory: "d", suffix: ".crt", to: "all.crt" })),
    )
    assert.deepStrictEqual(
      resolved.files.map((file) => file.path),
      ["all.crt", "bin/tool"],
    )
    assert.strictEqual(fs.readFileSync(path.join(resolved.directory, "all.crt"), "utf8"), "A\nB\n")
    assert.deepStrictEqual(resolved.transforms, ["2 files of d concatenated into all.crt"])
  }),
)
