import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { chooseMirror, parseDeb822, parseOneLine } from "../../src/components/apt/DebianMirror.ts"
import { type DebianPin, readPins, servedPins, updatePins } from "../../src/components/apt/DebianPins.ts"
import { components } from "../../src/components/catalog.ts"
import { pinsFile } from "../../src/components/catalog/Recipe.ts"
import { renderProgress } from "../../src/components/Progress.ts"
import type { Source } from "../../src/components/Source.ts"
import * as Debian from "../../src/components/sources/Debian.ts"
import { fakeCommands, type FakeProgram } from "../../src/components/testing/FakeCommands.ts"
import { machine, temporaryDirectory, tool } from "./support.ts"

const DEB = "the bytes of a package"
const sha256 = createHash("sha256").update(DEB).digest("hex")
const MIRROR = "http://mirror.example/debian"

describe("the mirror of the machine", () => {
  it("is Debian's archive in either style, not its security archive, not another vendor's", () => {
    const oneLine = parseOneLine(
      [
        "# deb http://commented.example/debian trixie main",
        "deb-src http://source.example/debian trixie main",
        "deb [arch=amd64] https://vendor.example/apt bookworm main",
        "deb http://deb.example/debian-security bookworm-security main",
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64] http://deb.example/x bookworm main # ours",
      ].join("\n"),
    )
    assert.strictEqual(chooseMirror(oneLine), "http://deb.example/x")
    const deb822 = parseDeb822(
      "Types: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n" +
        "# comment\nTypes: deb deb-src\nURIs: http://on.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main contrib\n",
    )
    assert.strictEqual(chooseMirror(deb822), "http://on.example/debian")
    assert.deepStrictEqual(deb822[0]?.suites, ["bookworm", "bookworm-updates"])
    assert.isUndefined(chooseMirror(parseOneLine("deb https://vendor.example/apt bookworm main")))
    assert.isUndefined(chooseMirror(parseOneLine("deb http://archive.example/ubuntu noble main")))
  })
})

const OFFLINE = `E: Failed to fetch ${MIRROR}/dists/trixie/InRelease  Could not connect to mirror.example:80 (192.0.2.1). - connect (111: Connection refused)\n`

/** An apt that serves one version of `tool`, and a dpkg-deb that unpacks it. */
const archive = (options: {
  readonly serves?: string
  readonly bytes?: string
  readonly aptGet?: FakeProgram
  readonly dpkgDeb?: FakeProgram
  /** Asked to refresh the index, there is no network. */
  readonly offline?: boolean
}) => {
  const serves = options.serves ?? "1:2.0"
  const aptGet: FakeProgram = ({ args, cwd }) => {
    const lists = args.find((arg) => arg.startsWith("Dir::State="))!.slice("Dir::State=".length)
    if (args.includes("update")) {
      if (options.offline === true) return { exit: 100, stderr: OFFLINE }
      fs.writeFileSync(path.join(lists, "lists/x_Packages"), "")
      return {}
    }
    const wanted = args.at(-1)!
    if (wanted !== `tool:amd64=${serves}`) {
      return { exit: 100, stderr: `E: Version '${wanted.split("=")[1]}' for 'tool' was not found\n` }
    }
    fs.writeFileSync(path.join(cwd, `tool_${serves.replace(":", "%3a")}_amd64.deb`), options.bytes ?? DEB)
    return {}
  }
  return fakeCommands({
    "apt-get": options.aptGet ?? aptGet,
    "apt-cache": ({ args }) => {
      const known: Record<string, string> = {
        meta: `Package: meta\nVersion: 1\nDepends: tool (= ${serves}), other\nSHA256: ${sha256}\n`,
        tool: `Package: tool\nVersion: ${serves}\nSHA256: ${sha256}\n\nPackage: tool\nVersion: 0\nSHA256: 0\n`,
      }
      const names = args.slice(args.indexOf("--no-all-versions") + 1)
      const shown = names.flatMap((name) => known[name] ?? [])
      return { stdout: shown.join("\n"), exit: shown.length === names.length ? 0 : 100 }
    },
    "dpkg-deb":
      options.dpkgDeb ??
      (({ args }) => {
        const root = args[2]!
        fs.mkdirSync(path.join(root, "usr/lib"), { recursive: true })
        fs.mkdirSync(path.join(root, "usr/bin"))
        fs.writeFileSync(path.join(root, "usr/lib/tool-2"), "program", { mode: 0o751 })
        fs.symlinkSync("/usr/lib/tool-2", path.join(root, "usr/bin/tool"))
        return {}
      }),
  })
}

const start = (options: Parameters<typeof archive>[0], env: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const root = yield* temporaryDirectory
    const keyring = path.join(root, "keyring.gpg")
    fs.writeFileSync(keyring, "")
    const commands = archive(options)
    const etcApt = path.join(root, "apt")
    const there = machine({ root, commands: commands.layer, env: { KIOS_DEBIAN_MIRROR: MIRROR, ...env } })
    const pin = { package: "tool", version: "1:2.0", sha256 }
    const component = tool(
      Debian.source({
        suite: "trixie",
        arch: "amd64",
        etcApt,
        keyring,
        packages: [{ pin, files: [{ from: "usr/bin/tool", to: "bin/tool" }] }],
      }),
    )
    return { ...there, root, keyring, etcApt, component, calls: commands.calls }
  })

it.live("takes files out of the pinned package, through an apt root of its own", () =>
  Effect.gen(function* () {
    const { calls, component, resolve } = yield* start({})
    const resolved = yield* resolve(component)
    // The absolute symlink was followed inside the package, and the odd mode made a plain one.
    assert.deepInclude(resolved.files[0], { path: "bin/tool", size: 7, mode: 0o755 })
    assert.deepStrictEqual(resolved.parts, [
      {
        name: "tool",
        version: "1:2.0",
        purl: "pkg:deb/debian/tool@1%3A2.0?arch=amd64&distro=trixie",
        digest: `sha256:${sha256}`,
      },
    ])
    const flags = calls[0]!.args.join(" ")
    for (const key of ["Dir::State=", "Dir::Cache=", "Dir::Etc::SourceParts=-", "Dir::State::status="]) {
      assert.include(flags, key)
    }
    assert.deepStrictEqual(
      calls.map(
        (call) =>
          `${call.command} ${call.args.includes("update") ? "update" : call.args.at(-1)!.split("/").at(-1)}`,
      ),
      ["apt-get update", "apt-get tool:amd64=1:2.0", `dpkg-deb tool.unpacked`],
    )
  }),
)

it.live("the machine's hooks around an update are not run, its proxies are kept", () =>
  Effect.gen(function* () {
    const { cache, calls, component, etcApt, resolve } = yield* start({})
    fs.mkdirSync(etcApt)
    fs.writeFileSync(path.join(etcApt, "apt.conf"), `Acquire::http::Proxy "http://proxy.example";\n`)
    yield* resolve(component)
    const first = calls[0]!.env["APT_CONFIG"]!
    const last = path.join(cache.apt, "trixie-amd64/last.conf")
    assert.strictEqual(fs.readFileSync(first, "utf8"), `Dir::Etc::main "${last}";\n`)
    assert.match(fs.readFileSync(last, "utf8"), /proxy\.example[\s\S]*#clear APT::Update::Post-Invoke;/u)
  }),
)

it.live("a package with another digest is refused", () =>
  Effect.gen(function* () {
    const { component, contents, resolve } = yield* start({ bytes: "something else" })
    const error = yield* Effect.flip(resolve(component))
    assert.strictEqual(error._tag, "DigestMismatch")
    assert.include(error.message, "tool_1%3a2.0_amd64.deb from Debian trixie")
    assert.include(error.message, `expected sha256:${sha256}`)
    assert.deepStrictEqual(contents().components, [])
  }),
)

it.live("a version that is no longer served says what is, after an old index was refreshed", () =>
  Effect.gen(function* () {
    const { cache, calls, component, resolve } = yield* start({ serves: "1:2.1" })
    yield* Effect.flip(resolve(component))
    fs.writeFileSync(path.join(cache.apt, "trixie-amd64/updated"), String(Date.now() - 4_000_000))
    const error = yield* Effect.flip(resolve(component))
    assert.strictEqual(
      error.message,
      `Debian trixie no longer serves tool 1:2.0: it serves 1:2.1 now. Run "kios components update" to pin what is served.`,
    )
    assert.strictEqual(calls.filter((call) => call.args.includes("update")).length, 2)
    // An index of a moment ago is not asked for again.
    yield* Effect.flip(resolve(component))
    assert.strictEqual(calls.filter((call) => call.args.includes("update")).length, 2)
  }),
)

/** A machine whose archive has moved on from the pin of `tool` to 1:2.1. */
const movedOn = (options: Parameters<typeof archive>[0] = {}, env: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const there = yield* start({ serves: "1:2.1", ...options }, env)
    const { etcApt, keyring } = there
    const of = (pin: DebianPin, moved?: Source["moved"]) => ({
      ...tool(
        Debian.source({
          suite: "trixie",
          arch: "amd64",
          etcApt,
          keyring,
          packages: [{ pin, files: [{ from: "usr/bin/tool", to: "bin/tool" }] }],
          ...(moved === undefined ? {} : { moved }),
        }),
      ),
      version: pin.version,
    })
    const old = { package: "old-tool", version: "1:2.0", sha256: "0".repeat(64), follow: "meta" }
    const pins = { suite: "trixie", arch: "amd64", packages: { tool: old } } as const
    const component = of(old, (name) =>
      Effect.map(servedPins(pins, { etcApt, keyring, component: name }), ({ packages }) =>
        of(packages["tool"]!),
      ),
    )
    const warnings = () => there.events.flatMap((event) => (event._tag === "PinMoved" ? [event] : []))
    return { ...there, component, warnings }
  })

it.live(
  "where the archive has moved on, what it serves now is taken, checked and recorded as what it is",
  () =>
    Effect.gen(function* () {
      const { component, resolve, warnings } = yield* movedOn()
      const resolved = yield* resolve(component)
      assert.strictEqual(resolved.version, "1:2.1")
      assert.strictEqual(resolved.source.description, "Debian trixie tool 1:2.1")
      assert.deepInclude(resolved.parts[0], { name: "tool", version: "1:2.1", digest: `sha256:${sha256}` })
      const [warning] = warnings()
      assert.deepInclude(warning, { pinned: "1:2.0", served: "1:2.1" })
      assert.match(
        renderProgress(warning!),
        /^tool: WARNING: taking 1:2\.1 in place of the pinned 1:2\.0\. Debian trixie no longer serves old-tool 1:2\.0/u,
      )
      // The next build says so again, and downloads nothing.
      const again = yield* resolve(component)
      assert.deepStrictEqual([again.cached, again.key, warnings().length], [true, resolved.key, 2])
    }),
)

it.live("what is served now must have the digest of the signed index", () =>
  Effect.gen(function* () {
    const { component, contents, resolve } = yield* movedOn({ bytes: "something else" })
    assert.strictEqual((yield* Effect.flip(resolve(component)))._tag, "DigestMismatch")
    assert.deepStrictEqual(contents().components, [])
  }),
)

it.live("a locked build takes nothing but what is pinned", () =>
  Effect.gen(function* () {
    const { component, resolve, warnings } = yield* movedOn({}, { KIOS_LOCKED: "1" })
    const error = yield* Effect.flip(resolve(component))
    assert.strictEqual(error._tag, "PinNotServed")
    assert.include(error.message, `Run "kios components update"`)
    assert.deepStrictEqual(warnings(), [])
  }),
)

it.live("what a build has taken in place of a pin is found again without a network", () =>
  Effect.gen(function* () {
    const { cache, component, resolve, root } = yield* movedOn()
    const { key } = yield* resolve(component)
    fs.writeFileSync(path.join(cache.apt, "trixie-amd64/updated"), "0")
    const offline = machine({
      root,
      env: { KIOS_DEBIAN_MIRROR: MIRROR },
      commands: archive({ serves: "1:2.1", offline: true }).layer,
    })
    const again = yield* offline.resolve(component)
    assert.deepStrictEqual([again.key, again.cached], [key, true])
  }),
)

it.live("a kernel of today has today's release, in its version, its files and its attributes", () =>
  Effect.gen(function* () {
    const { etcApt, keyring, root } = yield* start({})
    const file = path.join(root, "debian.lock.json")
    const text = fs.readFileSync(pinsFile, "utf8")
    fs.writeFileSync(file, text.replaceAll(/6\.12\.\d+/gu, "6.12.1"))
    const kernelNow = "linux-image-6.12.999+deb13-cloud-amd64"
    const commands = fakeCommands({
      "apt-get": ({ args }) => {
        const state = args.find((arg) => arg.startsWith("Dir::State="))!.slice("Dir::State=".length)
        fs.writeFileSync(path.join(state, "lists/x_Packages"), "")
        return {}
      },
      "apt-cache": ({ args }) => {
        const show = (name: string, depends = "") =>
          `Package: ${name}\nVersion: 6.12.999-1\nDepends: ${depends}\nSHA256: ${sha256}\n`
        const known = [
          show("linux-image-cloud-amd64", `${kernelNow} (= 6.12.999-1)`),
          show(kernelNow),
          show(`${kernelNow}-unsigned`),
        ]
        return { stdout: known.filter((one) => args.some((arg) => one.includes(`${arg}\n`))).join("\n") }
      },
    })
    const { kernel } = yield* components("x86_64", { pins: file, etcApt, keyring })
    assert.strictEqual(kernel.version, "6.12.1-1")
    const { provide } = machine({ root, commands: commands.layer, env: { KIOS_DEBIAN_MIRROR: MIRROR } })
    const now = yield* provide(kernel.sources[0].moved!("kernel"))
    assert.strictEqual(now.version, "6.12.999-1")
    assert.strictEqual(now.attributes["release"], "6.12.999+deb13-cloud-amd64")
    assert.include(now.provides, "lib/modules/6.12.999+deb13-cloud-amd64/")
    assert.deepStrictEqual(
      now.sources.map((source) => source.description),
      [`Debian trixie ${kernelNow} 6.12.999-1`, `Debian trixie ${kernelNow}-unsigned 6.12.999-1`],
    )
  }),
)

it.live("offline is called offline", () =>
  Effect.gen(function* () {
    const { component, resolve } = yield* start({ aptGet: () => ({ exit: 100, stderr: OFFLINE }) })
    const error = yield* Effect.flip(resolve(component))
    assert.strictEqual(error._tag, "NotAvailable")
    assert.match(
      error.message,
      /seems to be offline[\s\S]*offline: apt \(http:\/\/mirror\.example\/debian\): E: Failed to fetch/u,
    )
  }),
)

it.live("no mirror, no apt, no dpkg-deb and no keys are each named with what to do", () =>
  Effect.gen(function* () {
    const bare = yield* start({}, { KIOS_DEBIAN_MIRROR: "" })
    assert.include((yield* Effect.flip(bare.resolve(bare.component))).message, "Set KIOS_DEBIAN_MIRROR")
    const keyless = yield* start({})
    fs.rmSync(keyless.keyring)
    assert.include(
      (yield* Effect.flip(keyless.resolve(keyless.component))).message,
      "apt-get install -y debian-archive-keyring",
    )
    const { component, root } = yield* start({})
    const env = { KIOS_DEBIAN_MIRROR: MIRROR }
    const empty = machine({ root, env, commands: fakeCommands({}).layer })
    const error = yield* Effect.flip(empty.resolve(component))
    assert.include(
      error.message,
      "apt-get is needed for reading the index of Debian trixie and not installed",
    )
  }),
)

it.live("a disk that fills up while unpacking is named with what is free", () =>
  Effect.gen(function* () {
    const { cache, component, contents, resolve } = yield* start({
      dpkgDeb: () => ({
        exit: 2,
        stderr: "tar: ./usr/lib/tool-2: Cannot write: No space left on device\n",
      }),
    })
    const error = yield* Effect.flip(resolve(component))
    assert.strictEqual(error._tag, "DiskFull")
    assert.match(error.message, /^No space left on device while unpacking tool_1%3a2\.0_amd64\.deb: /u)
    assert.include(error.message, cache.scratch)
    assert.match(error.message, /\([\d.]+ [KMG]B free\)/u)
    assert.deepStrictEqual(contents(), { components: [], scratch: [], locks: [] })
  }),
)

it.live("update pins what is served, follows metapackages, and rewrites nothing when nothing changed", () =>
  Effect.gen(function* () {
    const { etcApt, keyring, provide, root } = yield* start({ serves: "3.0" })
    const file = path.join(root, "debian.lock.json")
    const old = { package: "tool", version: "1:2.0", sha256: "0".repeat(64) }
    const packages = { tool: old, kernel: { ...old, package: "old", follow: "meta" } }
    fs.writeFileSync(file, JSON.stringify({ suite: "trixie", arch: "amd64", packages }))
    const changes = yield* provide(updatePins(file, { etcApt, keyring }))
    assert.deepStrictEqual(
      changes.map((change) => [change.name, change.from.version, change.to.package, change.to.version]),
      [
        ["tool", "1:2.0", "tool", "3.0"],
        ["kernel", "1:2.0", "tool", "3.0"],
      ],
    )
    const pins = yield* readPins(file)
    assert.deepStrictEqual(pins.packages["kernel"], {
      package: "tool",
      version: "3.0",
      sha256,
      follow: "meta",
    })
    const before = fs.statSync(file).mtimeMs
    assert.deepStrictEqual(yield* provide(updatePins(file, { etcApt, keyring })), [])
    assert.strictEqual(fs.statSync(file).mtimeMs, before)
  }),
)

it.live("pins that are written wrongly are named", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "debian.lock.json")
    fs.writeFileSync(file, "{")
    assert.include((yield* Effect.flip(readPins(file))).message, file)
    const packages = { tool: { package: "tool", version: "1", sha256: "12", extra: 1 } }
    fs.writeFileSync(file, JSON.stringify({ suite: "trixie", arch: "amd64", packages }))
    const { message } = yield* Effect.flip(readPins(file))
    assert.include(message, "expected 64 hex digits")
    assert.include(message, "extra")
  }),
)
