import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Layer } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { CommandRunner, type CommandSpec, TAIL_LINES } from "../../src/components/CommandRunner.ts"
import { fakeCommands } from "../../src/components/testing/FakeCommands.ts"
import { temporaryDirectory } from "./support.ts"

const env = { PATH: process.env["PATH"] }
const run = (spec: Partial<CommandSpec> & Pick<CommandSpec, "command" | "args">) =>
  CommandRunner.use((runner) => runner.run({ env, ...spec }))

/** What holds for real processes must hold for scripted ones: a fake that drifts fails here. */
const contract = (name: string, layer: Layer.Layer<CommandRunner>) =>
  describe(name, () => {
    it.live("gives lines with their stream as they are, the last one without an end too", () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const onLine = (line: string, stream: string) => lines.push(`${stream}:${line}`)
        const args = ["-c", "printf 'one\\ntwo\\r\\n\\nlast'; printf 'bad\\n' >&2"]
        const result = yield* run({ command: "sh", args, onLine })
        assert.deepStrictEqual(
          lines.filter((line) => line.startsWith("stdout")),
          ["stdout:one", "stdout:two", "stdout:last"],
        )
        assert.include(lines, "stderr:bad")
        assert.strictEqual(result.stdout, "", "output is kept only when asked for")
        assert.sameMembers([...result.tail], ["one", "two", "last", "bad"])
      }).pipe(Effect.provide(layer)),
    )
    it.live("keeps standard output byte for byte when asked to", () =>
      Effect.gen(function* () {
        const args = ["-c", "printf 'one\\ntwo\\r\\n\\nlast'; printf 'bad\\n' >&2"]
        const result = yield* run({ command: "sh", args, capture: true })
        assert.strictEqual(result.stdout, "one\ntwo\r\n\nlast")
      }).pipe(Effect.provide(layer)),
    )
    it.live("tells the exit status, and the signal that ended a program", () =>
      Effect.gen(function* () {
        assert.strictEqual((yield* run({ command: "sh", args: ["-c", "exit 3"] })).exit, 3)
        assert.strictEqual((yield* run({ command: "sh", args: ["-c", "kill -9 $$"] })).exit, "SIGKILL")
      }).pipe(Effect.provide(layer)),
    )
    it.live("keeps the last lines only", () =>
      Effect.gen(function* () {
        const result = yield* run({ command: "seq", args: ["1000"] })
        assert.lengthOf(result.tail, TAIL_LINES)
        assert.strictEqual(result.tail.at(-1), "1000")
      }).pipe(Effect.provide(layer)),
    )
    it.live("names a program that does not exist, and a directory that does not", () =>
      Effect.gen(function* () {
        const missing = yield* Effect.flip(run({ command: "no-such-program", args: [] }))
        assert.strictEqual(missing._tag, "CommandNotFound")
        const nowhere = yield* Effect.flip(run({ command: "seq", args: ["1"], cwd: "/no/such/directory" }))
        assert.strictEqual(nowhere._tag, "CommandNotStarted")
        assert.include(nowhere.message, "/no/such/directory does not exist")
      }).pipe(Effect.provide(layer)),
    )
    it.live("gives exactly the environment, without undefined values, and the directory", () =>
      Effect.gen(function* () {
        const directory = yield* temporaryDirectory
        const seen = yield* run({
          command: "env",
          args: [],
          env: { PATH: process.env["PATH"], A: "1", B: undefined },
          capture: true,
        })
        const names = seen.stdout.split("\n").map((line) => line.split("=")[0])
        assert.include(names, "A")
        assert.notInclude(names, "B")
        assert.notInclude(names, "HOME")
        const cwd = yield* run({ command: "pwd", args: [], cwd: directory, capture: true })
        assert.strictEqual(cwd.stdout.trim(), directory)
      }).pipe(Effect.provide(layer)),
    )
    it.live("can be interrupted", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(run({ command: "sleep", args: ["1000"] }), {
          startImmediately: true,
        })
        yield* Fiber.interrupt(fiber)
        assert.isTrue((yield* Fiber.await(fiber))._tag === "Failure")
      }).pipe(Effect.provide(layer)),
    )
  })

contract("real processes", CommandRunner.layer)
contract(
  "scripted programs",
  fakeCommands({
    sh: ({ args }) =>
      args[1] === "exit 3"
        ? { exit: 3 }
        : args[1]!.startsWith("kill")
          ? { exit: "SIGKILL" }
          : { stdout: "one\ntwo\r\n\nlast", stderr: "bad\n" },
    seq: ({ args }) => ({ stdout: Array.from({ length: Number(args[0]) }, (_, n) => `${n + 1}\n`).join("") }),
    env: ({ env: given }) => ({
      stdout: Object.entries(given)
        .map(([key, value]) => `${key}=${value}\n`)
        .join(""),
    }),
    pwd: ({ cwd }) => ({ stdout: `${cwd}\n` }),
    sleep: () => ({ hang: true }),
  }).layer,
)

it.live("interrupting ends the children of a program too", () =>
  Effect.gen(function* () {
    const directory = yield* temporaryDirectory
    const file = `${directory}/pid`
    const ready = `${directory}/ready`
    const script = `sleep 1000 & echo $! > ${file}; touch ${ready}; wait`
    const fiber = yield* Effect.forkChild(run({ command: "sh", args: ["-c", script] }))
    while (!existsSync(ready)) yield* Effect.sleep("5 millis")
    const pid = (yield* Effect.promise(() => readFile(file, "utf8"))).trim()
    yield* Fiber.interrupt(fiber)
    // The orphan is reaped by whoever is its parent now; until then it is a zombie.
    const gone = () => {
      try {
        return / Z /u.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
      } catch {
        return true
      }
    }
    const deadline = Date.now() + 5000
    while (!gone() && Date.now() < deadline) yield* Effect.sleep("5 millis")
    assert.isTrue(gone())
  }).pipe(Effect.provide(CommandRunner.layer)),
)
