/**
 * Init's executable evaluates its embedded program and nothing else, whoever
 * starts it and how: the file of the image itself, with its libraries, on the
 * development machine. What it may there do as PID 1 it does as nobody.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Initramfs from "../../src/image/Initramfs.ts"
import * as PortableExecutable from "../../src/image/PortableExecutable.ts"
import { efi, temporaryDirectory } from "./support.ts"

/** Files of a root, as a process sees them that is chrooted to it. */
const directory = "/run/kios-test"
const marker = `${directory}/ran`
const code = `require("fs").writeFileSync("${marker}", "x")`
const script = `${directory}/payload.cjs`
const module = `${directory}/payload.mjs`
const dataUrl = `data:text/javascript,import fs from "node:fs"; fs.writeFileSync("${marker}", "x")`
// "nobody": whatever is run by mistake can change its own root and no more.
const nobody = 65534

interface Attempt {
  /** What the refusal says, unless it is init's own word. */
  readonly said?: string
  readonly args?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}

const attempts: ReadonlyArray<Attempt> = [
  { args: ["-e", code] },
  { args: ["--eval", code] },
  { args: ["-p", code] },
  { args: [script] },
  { args: [module] },
  { args: ["-"] },
  { args: ["-i"] },
  { args: ["--require", script] },
  { args: ["--import", dataUrl] },
  { args: ["--input-type=module", "-e", `import "${module}"`] },
  { args: ["--experimental-default-type=module", module] },
  { args: ["--test", script] },
  { args: ["--build-snapshot", script] },
  { args: ["--experimental-sea-config", script] },
  { args: ["--inspect=127.0.0.1:9229", "-e", code] },
  { args: ["--inspect-brk=127.0.0.1:9229", script] },
  { env: { NODE_OPTIONS: `--require ${script}` } },
  { env: { NODE_OPTIONS: `--require=${script}` }, args: [script] },
  { env: { NODE_OPTIONS: `--import ${module}` } },
  { env: { NODE_OPTIONS: `--import="${dataUrl.replaceAll('"', "'")}"` } },
  { env: { NODE_OPTIONS: "--inspect=127.0.0.1:9229" } },
  // Node itself refuses this one in a program without options.
  { env: { NODE_REPL_EXTERNAL_MODULE: script }, said: "can't be used with kDisableNodeOptionsEnv" },
  { env: { NODE_PATH: directory, NODE_OPTIONS: "--require payload.cjs" } },
]

/** A root with init, what it is linked with, and a file in place of the kernel's log. */
class Root extends Context.Service<Root, string>()("test/Sealed/Root") {}

const RootLive = Layer.effect(
  Root,
  Effect.gen(function* () {
    const scratch = yield* temporaryDirectory
    const root = path.join(scratch, "root")
    const archive = path.join(scratch, "initramfs.img")
    yield* PortableExecutable.extract(yield* efi, ".initrd", archive)
    const entries = yield* Initramfs.read({ path: archive }, { contents: 2 ** 28 })
    for (const { content, mode, path: name, type } of entries)
      if (type === "File" && content !== undefined && /^\/?(?:init$|lib(?:64)?\/[^/]+\.so)/u.test(name)) {
        const file = path.join(root, name)
        fs.mkdirSync(path.dirname(file), { recursive: true })
        fs.writeFileSync(file, content, { mode })
      }
    for (const name of ["proc", "dev", directory]) fs.mkdirSync(path.join(root, name), { recursive: true })
    fs.writeFileSync(path.join(root, "dev/kmsg"), "")
    fs.writeFileSync(path.join(root, script), code)
    fs.writeFileSync(path.join(root, module), dataUrl.slice(dataUrl.indexOf(",") + 1))
    for (const name of [scratch, root, ...fs.readdirSync(root, { recursive: true, encoding: "utf8" })])
      fs.chownSync(path.resolve(root, name), nobody, nobody)
    return root
  }),
)

const found = (root: string, name: string): boolean => fs.existsSync(path.join(root, name))

/**
 * Runs init in that root, in namespaces of its own. Its standard input is a
 * program too, for those that would read it.
 */
const run = (root: string, { args = [], env = {} }: Attempt, asPidOne: boolean) => {
  fs.rmSync(path.join(root, marker), { force: true })
  fs.writeFileSync(path.join(root, "dev/kmsg"), "")
  const { status, stderr, stdout } = spawnSync(
    "setpriv",
    [
      `--reuid=${nobody}`,
      `--regid=${nobody}`,
      "--clear-groups",
      "unshare",
      "--map-root-user",
      "--mount",
      "--net",
      "--ipc",
      "--uts",
      "--fork",
      "--kill-child",
      `--root=${root}`,
      ...(asPidOne ? ["--pid", "--mount-proc=/proc"] : []),
      "/init",
      ...args,
    ],
    { env: { ...env, PATH: process.env["PATH"] ?? "" }, input: code, encoding: "utf8", timeout: 60_000 },
  )
  return {
    status,
    said: `${stdout}${stderr}`,
    log: fs.readFileSync(path.join(root, "dev/kmsg"), "utf8"),
    ran: found(root, marker),
  }
}

layer(RootLive, { excludeTestServices: true, timeout: "10 minutes" })("init's executable", (it) => {
  it.effect("is a Node that would run a program: without the seal the attempts below succeed", () =>
    Effect.gen(function* () {
      const root = yield* Root
      const control = path.join(root, "init.sealed")
      fs.renameSync(path.join(root, "init"), control)
      fs.copyFileSync(process.execPath, path.join(root, "init"))
      const { ran, said } = run(root, { args: [script] }, false)
      fs.renameSync(control, path.join(root, "init"))
      assert.isTrue(ran, said)
    }),
  )

  it.effect("runs no JavaScript by any argument or variable", () =>
    Effect.gen(function* () {
      const root = yield* Root
      for (const attempt of attempts) {
        const { ran, said, status } = run(root, attempt, false)
        const what = `${JSON.stringify(attempt)}: ${said}`
        assert.isFalse(ran, what)
        assert.isAbove(status ?? 0, 0, what)
        assert.include(said, attempt.said ?? "runs as PID 1 only", what)
        assert.notInclude(said, "Debugger listening", what)
      }
    }),
  )

  it.effect("runs its own program and no other as PID 1", () =>
    Effect.gen(function* () {
      const root = yield* Root
      // Each boots as far as it gets, and takes a second to shut down: one of each kind.
      for (const attempt of [
        { args: ["-e", code] },
        { args: [script] },
        { args: ["--inspect-brk=127.0.0.1:9229", script] },
        { env: { NODE_OPTIONS: `--require ${script}` } },
        { env: { NODE_OPTIONS: `--import ${module}` } },
      ]) {
        const { log, ran, said } = run(root, attempt, true)
        const what = `${JSON.stringify(attempt)}: ${said}\n${log}`
        assert.isFalse(ran, what)
        assert.include(log, ">kios: milestone init", what)
        assert.notInclude(said, "Debugger listening", what)
      }
    }),
  )
})
