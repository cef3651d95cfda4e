import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Component from "../../src/components/Component.ts"
import { DigestMismatch, PinNotServed, SourceUnavailable } from "../../src/components/ComponentError.ts"
import { cachePaths } from "../../src/components/Environment.ts"
import { filePath } from "../../src/components/Resolved.ts"
import type { Source } from "../../src/components/Source.ts"
import { machine, scripted, temporaryDirectory, tool } from "./support.ts"

const failing = (description: string, error: DigestMismatch | SourceUnavailable | PinNotServed): Source => ({
  kind: "failing",
  description,
  heavy: false,
  fingerprint: Effect.succeed({ description }),
  fetch: () => Effect.fail(error),
})
const offline = new SourceUnavailable({ source: "a", reason: "dial tcp: no such host", offline: true })

it.live("fetches once: the second time nothing is asked, and the record tells all", () =>
  Effect.gen(function* () {
    const { contents, events, resolve } = machine({ root: yield* temporaryDirectory })
    const { source, state } = scripted({ "bin/tool": "#!", "share/b": "" })
    const first = yield* resolve(tool(source))
    const second = yield* resolve(tool(source))
    assert.strictEqual(state.fetched, 1)
    assert.isFalse(first.cached)
    assert.isTrue(second.cached)
    assert.deepStrictEqual({ ...second, cached: false }, first)
    assert.deepStrictEqual(first.files[0], {
      path: "bin/tool",
      sha256: "3612ddaf46e149a4f583faf0face846585148f59e0ce2645594df83b5dc807e8",
      size: 2,
      mode: 0o755,
    })
    assert.strictEqual(fs.readFileSync(filePath(second, "bin/tool"), "utf8"), "#!")
    assert.deepStrictEqual(contents().scratch, [])
    assert.deepStrictEqual(contents().locks, [])
    assert.strictEqual(events.filter((event) => event._tag === "Resolved").length, 2)
    assert.throws(
      () => filePath(second, "bin/other"),
      /tool has no file bin\/other; it has bin\/tool, share\/b/u,
    )
  }),
)

it.live("uses the first source that is available, says why not the others, and records which", () =>
  Effect.gen(function* () {
    const { events, resolve } = machine({ root: yield* temporaryDirectory })
    const { source } = scripted({ "bin/tool": "x" }, { name: "second" })
    const resolved = yield* resolve(tool(failing("first", offline), source))
    assert.deepStrictEqual(resolved.source, { kind: "scripted", description: "second" })
    const skipped = events.find((event) => event._tag === "SourceSkipped")
    assert.deepInclude(skipped, { source: "first", reason: "offline: dial tcp: no such host" })
    // What is cached is preferred to asking an unavailable source again.
    assert.isTrue((yield* resolve(tool(failing("first", offline), source))).cached)
  }),
)

it.live("names every source with its reason when none is available", () =>
  Effect.gen(function* () {
    const { resolve } = machine({ root: yield* temporaryDirectory })
    const pin = new PinNotServed({ package: "p", suite: "trixie", wanted: "1", served: "2" })
    const error = yield* Effect.flip(resolve(tool(failing("A", offline), failing("B", pin))))
    assert.strictEqual(error._tag, "NotAvailable")
    assert.match(error.message, /1\. A: offline: dial tcp/u)
    assert.match(
      error.message,
      /2\. B: Debian trixie no longer serves p 1: it serves 2 now\. Run "kios components update"/u,
    )
    assert.notMatch(error.message, /seems to be offline/u)
    assert.match(error.message, /KIOS_COMPONENT_TOOL=\/path/u)
    const all = yield* Effect.flip(resolve(tool(failing("A", offline), failing("B", offline))))
    assert.match(all.message, /this machine seems to be offline/u)
  }),
)

it.live("a wrong digest ends it: no other source is asked and nothing enters the cache", () =>
  Effect.gen(function* () {
    const { contents, resolve } = machine({ root: yield* temporaryDirectory })
    const { source, state } = scripted({ "bin/tool": "x" })
    const wrong = new DigestMismatch({ component: "tool", file: "f", from: "u", expected: "a", got: "b" })
    const error = yield* Effect.flip(resolve(tool(failing("A", wrong), source)))
    assert.match(
      error.message,
      /f from u is not the file that the recipe pins\.\n {2}expected a\n {2}got {6}b/u,
    )
    assert.strictEqual(state.fetched, 0)
    assert.deepStrictEqual(contents(), { components: [], scratch: [], locks: [] })
  }),
)

it.live("a source that does not give what the component promises fails, and leaves nothing", () =>
  Effect.gen(function* () {
    const { contents, resolve } = machine({ root: yield* temporaryDirectory })
    const error = yield* Effect.flip(resolve(tool(scripted({ "bin/other": "x" }).source)))
    assert.match(error.message, /^tool: bin\/tool is not in script/u)
    assert.deepStrictEqual(contents(), { components: [], scratch: [], locks: [] })
  }),
)

it.live("a damaged entry is built again", () =>
  Effect.gen(function* () {
    const { resolve } = machine({ root: yield* temporaryDirectory })
    const { source, state } = scripted({ "bin/tool": "whole" })
    const first = yield* resolve(tool(source))
    const damage = [
      (file: string) => fs.truncateSync(file, 0),
      (file: string) => fs.rmSync(file),
      (file: string) => fs.chmodSync(file, 0o600),
      (file: string) => fs.writeFileSync(path.join(file, "../../../record.json"), "{"),
    ]
    for (const [index, harm] of damage.entries()) {
      harm(filePath(first, "bin/tool"))
      const again = yield* resolve(tool(source))
      assert.isFalse(again.cached)
      assert.strictEqual(state.fetched, index + 2)
      assert.strictEqual(fs.readFileSync(filePath(again, "bin/tool"), "utf8"), "whole")
    }
  }),
)

it.live("the key follows the recipe: another input is another entry, and both stay", () =>
  Effect.gen(function* () {
    const { contents, resolve } = machine({ root: yield* temporaryDirectory })
    const a = yield* resolve(tool(scripted({ "bin/tool": "a" }).source))
    const b = yield* resolve(tool(scripted({ "bin/tool": "b" }).source))
    assert.notStrictEqual(a.key, b.key)
    assert.lengthOf(contents().components, 2)
    assert.isTrue((yield* resolve(tool(scripted({ "bin/tool": "a" }).source))).cached)
  }),
)

it.live("an interrupted build leaves nothing, and the next one succeeds", () =>
  Effect.gen(function* () {
    const { contents, resolve } = machine({ root: yield* temporaryDirectory })
    const reached = yield* Deferred.make<void>()
    const before = Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
    const stuck = yield* Effect.forkChild(resolve(tool(scripted({ "bin/tool": "x" }, { before }).source)))
    yield* Deferred.await(reached)
    assert.lengthOf(contents().scratch, 1)
    yield* Fiber.interrupt(stuck)
    assert.deepStrictEqual(contents(), { components: [], scratch: [], locks: [] })
    assert.isFalse((yield* resolve(tool(scripted({ "bin/tool": "x" }).source))).cached)
  }),
)

it.live("two builds at the same time do the work once", () =>
  Effect.gen(function* () {
    const { resolve } = machine({ root: yield* temporaryDirectory })
    const gate = yield* Deferred.make<void>()
    const { source, state } = scripted({ "bin/tool": "x" }, { before: Deferred.await(gate) })
    const both = yield* Effect.forkChild(
      Effect.all([resolve(tool(source)), resolve(tool(source))], { concurrency: 2 }),
    )
    while (state.fetched === 0) yield* Effect.sleep("5 millis")
    yield* Deferred.succeed(gate, undefined)
    const [a, b] = yield* Fiber.join(both)
    assert.strictEqual(state.fetched, 1)
    assert.sameMembers([a.cached, b.cached], [true, false])
  }),
)

it.live("what a killed build left is swept; what a live one works on is not", () =>
  Effect.gen(function* () {
    const { cache, contents, resolve } = machine({ root: yield* temporaryDirectory })
    const namespace = fs.readlinkSync("/proc/self/ns/pid").replaceAll(/\D/gu, "")
    const stat = fs.readFileSync("/proc/self/stat", "utf8")
    const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
    const live = `tool.${process.pid}.${start}.${namespace}.aaaaaa`
    // The same pid with another start time is another process.
    fs.mkdirSync(path.join(cache.scratch, `tool.${process.pid}.1.${namespace}.bbbbbb/sub`), {
      recursive: true,
    })
    fs.mkdirSync(path.join(cache.scratch, live), { recursive: true })
    yield* resolve(tool(scripted({ "bin/tool": "x" }).source))
    assert.deepStrictEqual(contents().scratch, [live])
  }),
)

it.live("a variable replaces a component by a file of this machine, recorded as local", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const file = path.join(root, "mine")
    fs.writeFileSync(file, "mine")
    const { resolve } = machine({ root, env: { KIOS_COMPONENT_TOOL: file } })
    const { source, state } = scripted({ "bin/tool": "x" })
    const resolved = yield* resolve(tool(source))
    assert.deepStrictEqual(resolved.source, { kind: "local", description: `local ${file}` })
    assert.deepInclude(resolved.files[0], { path: "bin/tool", mode: 0o755, size: 4 })
    assert.strictEqual(state.fetched, 0)
    fs.writeFileSync(file, "changed")
    assert.strictEqual((yield* resolve(tool(source))).bytes, 7)
  }),
)

it.live("a local file can not stand for a component of several; a directory can", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const variable = "KIOS_COMPONENT_EFI_STUB"
    const { source } = scripted({ a: "x" })
    const pair = Component.make({
      name: "efi-stub",
      version: "1",
      license: "MIT",
      arch: "x86_64",
      provides: ["a", "sub/"],
      sources: [source],
    })
    fs.mkdirSync(path.join(root, "tree/sub"), { recursive: true })
    for (const name of ["a", "sub/b"]) fs.writeFileSync(path.join(root, "tree", name), name)
    const with_ = (value: string) => machine({ root, env: { [variable]: value } }).resolve(pair)
    const tree = yield* with_(path.join(root, "tree"))
    assert.deepStrictEqual(
      tree.files.map((file) => file.path),
      ["a", "sub/b"],
    )
    const one = yield* Effect.flip(with_(path.join(root, "tree/a")))
    assert.match(one.message, /KIOS_COMPONENT_EFI_STUB: .* is one file, and efi-stub has several/u)
    const none = yield* Effect.flip(with_(path.join(root, "absent")))
    assert.match(none.message, /KIOS_COMPONENT_EFI_STUB names failed: .*absent: ENOENT/u)
  }),
)

it.live("a cache that can not be written is named with what to do", () =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    fs.writeFileSync(path.join(root, "file"), "")
    const { resolve } = machine({ root, env: { KIOS_CACHE: path.join(root, "file/cache") } })
    const error = yield* Effect.flip(resolve(tool(scripted({ "bin/tool": "x" }).source)))
    assert.strictEqual(error._tag, "FileFailure")
    assert.match(error.message, /ENOTDIR/u)
  }),
)

it("finds the cache by KIOS_CACHE, XDG_CACHE_HOME and HOME, in this order", () => {
  assert.strictEqual(cachePaths({ KIOS_CACHE: "/a", XDG_CACHE_HOME: "/b", HOME: "/c" }).root, "/a")
  assert.strictEqual(cachePaths({ KIOS_CACHE: "", XDG_CACHE_HOME: "/b", HOME: "/c" }).root, "/b/kios")
  assert.strictEqual(cachePaths({ XDG_CACHE_HOME: "relative", HOME: "/c" }).root, "/c/.cache/kios")
})

it("refuses names that no variable could be made from", () => {
  assert.throws(() => Component.make({ ...tool(scripted({}).source), name: "A b" }), /component name "A b"/u)
})
