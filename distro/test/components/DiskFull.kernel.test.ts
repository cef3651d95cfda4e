import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as path from "node:path"
import { CommandRunner } from "../../src/components/CommandRunner.ts"
import * as Component from "../../src/components/Component.ts"
import * as Debian from "../../src/components/sources/Debian.ts"
import * as Download from "../../src/components/sources/Download.ts"
import * as GoModule from "../../src/components/sources/GoModule.ts"
import { fakeCommands, type FakeProgram } from "../../src/components/testing/FakeCommands.ts"
import { machine, scripted, temporaryDirectory, tool } from "./support.ts"

const MIB = 1024 * 1024

/** A tmpfs of some MiB, mounted for one test. Needs root. */
const smallDisk = (mebibytes: number) =>
  Effect.gen(function* () {
    const directory = path.join(yield* temporaryDirectory, "disk")
    fs.mkdirSync(directory)
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", directory]),
      ),
      () => Effect.sync(() => execFileSync("umount", ["-l", directory])),
    )
    return directory
  })

/** A fake program that is the real one. */
const real =
  (command: string): FakeProgram =>
  async ({ args, cwd, env }) => {
    const run = CommandRunner.use((runner) => runner.run({ command, args, cwd, env, capture: true }))
    const { exit, stdout, tail } = await Effect.runPromise(run.pipe(Effect.provide(CommandRunner.layer)))
    return { exit, stdout, stderr: tail.join("\n") }
  }

const expectFull = (there: ReturnType<typeof machine>, component: Component.Component, doing: string) =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(there.resolve(component))
    assert.strictEqual(error._tag, "DiskFull", error.message)
    if (error._tag !== "DiskFull") return
    assert.include(error.doing, doing)
    assert.include(error.directory, there.cache.root)
    assert.isBelow(error.freeBytes!, 8 * MIB)
    assert.match(error.message, /No space left on device while .*\([\d.]+ [KM]B free\).* set KIOS_CACHE/u)
    assert.deepStrictEqual(there.contents(), { components: [], scratch: [], locks: [] })
    // Nothing is left of it: the disk can be used at once for what fits.
    const fits = yield* there.resolve(tool(scripted({ "bin/tool": "small" }).source))
    assert.isFalse(fits.cached)
  })

it.live("a download that does not fit", () =>
  Effect.gen(function* () {
    const body = randomBytes(4 * MIB)
    const server = createServer((_, response) => response.end(body))
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () => Effect.sync(() => server.close()),
    )
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/tool`
    const sha256 = createHash("sha256").update(body).digest("hex")
    const there = machine({ root: yield* smallDisk(2) })
    yield* expectFull(there, tool(Download.source({ url, sha256, to: "bin/tool" })), "downloading tool")
  }),
)

it.live("a package that does not fit when dpkg-deb unpacks it", () =>
  Effect.gen(function* () {
    const build = yield* temporaryDirectory
    fs.mkdirSync(path.join(build, "tree/DEBIAN"), { recursive: true })
    fs.writeFileSync(
      path.join(build, "tree/DEBIAN/control"),
      "Package: tool\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n",
    )
    // Zeros: a small package and a large file.
    fs.writeFileSync(path.join(build, "tree/tool"), Buffer.alloc(8 * MIB))
    execFileSync("dpkg-deb", ["-b", path.join(build, "tree"), path.join(build, "tool.deb")], {
      stdio: "ignore",
    })
    const deb = fs.readFileSync(path.join(build, "tool.deb"))
    const sha256 = createHash("sha256").update(deb).digest("hex")
    const keyring = path.join(build, "keyring")
    fs.writeFileSync(keyring, "")
    const commands = fakeCommands({
      "dpkg-deb": real("dpkg-deb"),
      "apt-get": ({ args, cwd }) => {
        if (!args.includes("update")) fs.writeFileSync(path.join(cwd, "tool_1_amd64.deb"), deb)
        return {}
      },
    })
    const env = { KIOS_DEBIAN_MIRROR: "http://mirror.example/debian" }
    const there = machine({ root: yield* smallDisk(2), env, commands: commands.layer })
    const pin = { package: "tool", version: "1", sha256 }
    const files = [{ from: "tool", to: "bin/tool" }] as const
    const source = Debian.source({ suite: "trixie", arch: "amd64", keyring, packages: [{ pin, files }] })
    yield* expectFull(there, tool(source), "unpacking tool_1_amd64.deb")
  }),
)

it.live("a Go build that runs out of room, with the real go", () =>
  Effect.gen(function* () {
    const directory = yield* temporaryDirectory
    fs.writeFileSync(path.join(directory, "go.mod"), "module example.org/tool\n\ngo 1.21\n")
    fs.writeFileSync(path.join(directory, "go.sum"), "")
    fs.writeFileSync(
      path.join(directory, "main.go"),
      `package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("tool") }\n`,
    )
    const version = /go\d+\.\d+\.\d+/u.exec(execFileSync("go", ["version"], { encoding: "utf8" }))![0]
    const root = yield* smallDisk(1)
    const home = process.env["HOME"]
    const there = machine({ root, env: { HOME: home }, commands: CommandRunner.layer })
    const bootstrap = tool(scripted({ "bin/go": "" }).source)
    const build = {
      directory,
      toolchain: { version, bootstrap },
      packages: ["example.org/tool"] as const,
      to: "bin",
    }
    yield* expectFull(there, tool(GoModule.source(build)), "building tool")
  }),
)
