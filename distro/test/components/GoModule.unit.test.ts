import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Component from "../../src/components/Component.ts"
import * as CProgram from "../../src/components/sources/CProgram.ts"
import * as GoModule from "../../src/components/sources/GoModule.ts"
import { fakeCommands, type FakeProgram } from "../../src/components/testing/FakeCommands.ts"
import { machine, scripted, temporaryDirectory, tool } from "./support.ts"

const BUILD_INFO = [
  "/x/tool: go1.26.8",
  "\tpath\texample.org/tool",
  "\tdep\texample.org/a\tv1.0.0\th1:aaa=",
  "\tdep\texample.org/b\tv1.0.0\th1:bbb=",
  "\t=>\texample.org/fork\tv2.0.0\th1:ccc=",
  "\tbuild\tCGO_ENABLED=0",
  "",
].join("\n")

/** A go of some version that can become any other, as GOTOOLCHAIN asks it to. */
const fakeGo =
  (version: string, build?: FakeProgram): FakeProgram =>
  (call) => {
    if (call.args[0] === "version" && call.args[1] === "-m") return { stdout: BUILD_INFO }
    if (call.args[0] === "version") {
      const wanted = call.env["GOTOOLCHAIN"]
      return { stdout: `go version ${wanted === "local" ? version : wanted} linux/amd64\n` }
    }
    if (build !== undefined) return build(call)
    fs.writeFileSync(path.join(call.args[call.args.indexOf("-o") + 1]!, "tool"), "program", { mode: 0o755 })
    return {}
  }

/** A gcc that has a static libc, and compiles to a file of its own. */
const gcc: FakeProgram = ({ args }) => {
  const at = args.indexOf("-o")
  if (at >= 0) fs.writeFileSync(args[at + 1]!, "program", { mode: 0o755 })
  return { stdout: args[0] === "--version" ? "gcc 12\n" : "/usr/lib/libc.a\n" }
}

const bootstrap = () => {
  const { source, state } = scripted({ "bin/go": "#!" })
  const component = Component.make({
    name: "go-bootstrap",
    version: "1.24",
    license: "BSD-3-Clause",
    arch: "x86_64",
    provides: ["bin/go"],
    sources: [source],
  })
  return { component, state }
}

const start = (programs: Record<string, FakeProgram>, build: Partial<GoModule.GoBuild> = {}) =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const directory = path.join(root, "module")
    fs.mkdirSync(directory)
    fs.writeFileSync(path.join(directory, "go.mod"), "module x\n")
    fs.writeFileSync(path.join(directory, "go.sum"), "")
    const boot = bootstrap()
    const commands = fakeCommands(programs)
    const toolchain = { version: "go1.26.8", bootstrap: boot.component }
    const component = tool(
      GoModule.source({ directory, toolchain, packages: ["example.org/tool"], to: "bin", ...build }),
    )
    const env = {
      GOPROXY: "http://proxy.example",
      GOFLAGS: "-mod=mod",
      GOEXPERIMENT: "x",
      CGO_LDFLAGS: "-lx",
    }
    const there = machine({ root, commands: commands.layer, env })
    return { ...there, directory, component, boot, calls: commands.calls }
  })

it.live("builds with the pinned toolchain and flags, whatever the machine's variables say", () =>
  Effect.gen(function* () {
    const options = { tags: ["a", "b"], ldflags: ["-s", "-X v=1"] }
    const { boot, calls, component, directory, resolve } = yield* start({ go: fakeGo("go1.26.8") }, options)
    const resolved = yield* resolve(component)
    const build = calls.find((call) => call.args[0] === "build")!
    assert.strictEqual(build.cwd, directory)
    assert.deepStrictEqual(
      build.args.filter((arg) => !arg.endsWith("/bin/")),
      [
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-tags",
        "a b",
        "-ldflags",
        "-s -X v=1",
        "-o",
        "example.org/tool",
      ],
    )
    assert.deepInclude(build.env, {
      GOTOOLCHAIN: "go1.26.8",
      GOFLAGS: "-mod=readonly",
      GOWORK: "off",
      CGO_ENABLED: "0",
      GOPROXY: "http://proxy.example",
      GOEXPERIMENT: undefined,
      CGO_LDFLAGS: undefined,
    })
    assert.deepStrictEqual(
      resolved.parts.map((part) => [part.purl, part.digest]),
      [
        ["pkg:golang/example.org/a@v1.0.0", "h1:aaa="],
        ["pkg:golang/example.org/fork@v2.0.0", "h1:ccc="],
        ["pkg:golang/stdlib@1.26.8", undefined],
      ],
    )
    assert.strictEqual(boot.state.fetched, 0)
    assert.strictEqual(resolved.facts["bootstrap"], "go 1.26.8 of the build machine")
  }),
)

it.live("go.mod, go.sum and flags are in the key; a warm build runs no program", () =>
  Effect.gen(function* () {
    const { calls, component, directory, resolve } = yield* start({ go: fakeGo("go1.26.8") })
    const first = yield* resolve(component)
    const before = calls.length
    assert.isTrue((yield* resolve(component)).cached)
    assert.strictEqual(calls.length, before)
    fs.appendFileSync(path.join(directory, "go.sum"), "example.org/a v1 h1:x=\n")
    assert.notStrictEqual((yield* resolve(component)).key, first.key)
  }),
)

it.live("a machine without Go, or with an old one, uses the bootstrap", () =>
  Effect.gen(function* () {
    for (const programs of [{}, { go: fakeGo("go1.19.8") }]) {
      const { boot, calls, component, resolve } = yield* start(programs)
      const error = yield* Effect.flip(resolve(component))
      // Scripted programs go by their name: the bootstrap's own path is not among them.
      assert.strictEqual(error._tag, "MissingTool")
      assert.strictEqual(boot.state.fetched, 1)
      assert.match(calls.at(-1)!.command, /components\/go-bootstrap-1\.24-[0-9a-f]{16}\/files\/bin\/go$/u)
      assert.strictEqual(calls.at(-1)!.env["GOTOOLCHAIN"], "go1.26.8")
    }
  }),
)

it.live("everything that a cgo build misses is named at once", () =>
  Effect.gen(function* () {
    const libraries = [{ pkgConfig: "libseccomp", package: "libseccomp-dev", license: "LGPL-2.1-only" }]
    const bare = yield* start({ go: fakeGo("go1.26.8") }, { cgo: { libraries } })
    assert.strictEqual(
      (yield* Effect.flip(bare.resolve(bare.component))).message,
      "gcc, pkg-config, libseccomp are needed for building tool and not installed. Install with: apt-get install -y gcc pkg-config libseccomp-dev",
    )
    const partly = yield* start(
      { go: fakeGo("go1.26.8"), gcc, "pkg-config": () => ({ exit: 1, stderr: "not found\n" }) },
      { cgo: { libraries } },
    )
    assert.match(
      (yield* Effect.flip(partly.resolve(partly.component))).message,
      /^libseccomp is needed .* apt-get install -y libseccomp-dev$/u,
    )
    const all = yield* start(
      { go: fakeGo("go1.26.8"), gcc, "pkg-config": () => ({ stdout: "2.5.4\n" }) },
      { cgo: { libraries } },
    )
    const resolved = yield* all.resolve(all.component)
    assert.deepInclude(resolved.parts[0], { name: "libseccomp", version: "2.5.4", license: "LGPL-2.1-only" })
    assert.strictEqual(resolved.facts["gcc"], "gcc 12")
  }),
)

const failing = (stderr: string) => start({ go: fakeGo("go1.26.8", () => ({ exit: 1, stderr })) })

it.live("a module with another checksum than go.sum's is refused", () =>
  Effect.gen(function* () {
    const { component, resolve } = yield* failing(
      "verifying example.org/a@v1.0.0: checksum mismatch\n\tdownloaded: h1:got=\n\tgo.sum:     h1:want=\n\nSECURITY ERROR\n",
    )
    const error = yield* Effect.flip(resolve(component))
    assert.deepInclude(error, {
      _tag: "DigestMismatch",
      file: "example.org/a@v1.0.0",
      expected: "h1:want=",
      got: "h1:got=",
    })
  }),
)

it.live("offline, a full disk and a failed build are told apart", () =>
  Effect.gen(function* () {
    const net = yield* failing(
      `go: example.org/a@v1: Get "http://proxy.example/a": dial tcp: lookup proxy.example: no such host\n`,
    )
    const offline = yield* Effect.flip(net.resolve(net.component))
    assert.match(offline.message, /seems to be offline[\s\S]*no such host/u)
    const disk = yield* failing(
      "compile: writing output: write /proc/b001/_pkg_.a: no space left on device\n",
    )
    const full = yield* Effect.flip(disk.resolve(disk.component))
    assert.deepInclude(full, { _tag: "DiskFull", doing: "building tool", directory: "/proc" })
    const code = yield* failing("# example.org/tool\n./main.go:1:1: syntax error\n")
    const failed = yield* Effect.flip(code.resolve(code.component))
    assert.strictEqual(failed._tag, "BuildFailed")
    assert.match(
      failed.message,
      /^tool: `go build .*` exited with 1:\n {2}# example\.org\/tool\n {2}\.\/main\.go:1:1: syntax error$/u,
    )
    assert.deepStrictEqual(code.contents(), { components: [], scratch: [], locks: [] })
  }),
)

it.live("a C program is compiled from the pinned source and from no other", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const file = path.join(root, "hello.c")
    fs.writeFileSync(file, "int main(void) { return 0; }\n")
    const sha256 = "6c5bba5e9a3f3e4a3e0d1e2fa2a0b0a0f6e7c0c5a9c9f7b3d1b7f1d0c3f4e5a6"
    const { resolve } = machine({ root, commands: fakeCommands({ gcc }).layer })
    const wrong = tool(CProgram.source({ from: { file }, sha256, flags: [], to: "bin/tool" }))
    const error = yield* Effect.flip(resolve(wrong))
    assert.strictEqual(error._tag, "DigestMismatch")
    const right = /got {6}sha256:([0-9a-f]{64})/u.exec(error.message)![1]!
    const resolved = yield* resolve(
      tool(CProgram.source({ from: { file }, sha256: right, flags: ["-Os"], to: "bin/tool" })),
    )
    assert.strictEqual(resolved.facts["gcc"], "gcc 12")
    const none = machine({ root, env: { KIOS_CACHE: path.join(root, "other") } })
    const missing = yield* Effect.flip(
      none.resolve(tool(CProgram.source({ from: { file }, sha256: right, flags: [], to: "bin/tool" }))),
    )
    assert.match(missing.message, /^gcc is needed for compiling tool .* apt-get install -y gcc$/u)
  }),
)
