import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { lockFile } from "../../src/components/LockFile.ts"
import { Progress, type ProgressEvent } from "../../src/components/Progress.ts"
import { temporaryDirectory } from "./support.ts"

const namespace = fs.readlinkSync("/proc/self/ns/pid")
const startOf = (pid: number) => {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!
}

/** A process of its own that does nothing, ended with the scope. */
const other = Effect.acquireRelease(
  Effect.callback<{ readonly pid: number; readonly end: () => void }>((resume) => {
    const child = spawn("sleep", ["1000"], { stdio: "ignore" })
    child.once("spawn", () =>
      resume(Effect.succeed({ pid: child.pid!, end: () => void child.kill("SIGKILL") })),
    )
  }),
  ({ end }) => Effect.sync(end),
)

it.live("waits for a lock that a living process holds, says for whom, and goes on when it dies", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "locks/tool")
    const { end, pid } = yield* other
    fs.mkdirSync(path.dirname(file))
    fs.writeFileSync(file, JSON.stringify({ pid, start: startOf(pid), namespace, id: "x" }))
    const events: Array<ProgressEvent> = []
    let mine = false
    const waiting = yield* lockFile(file, "tool", "building tool").pipe(
      Effect.andThen(
        Effect.sync(() => {
          mine = true
          return JSON.parse(fs.readFileSync(file, "utf8")) as { readonly pid: number }
        }),
      ),
      Effect.scoped,
      Effect.provideService(Progress, { report: (event) => events.push(event) }),
      Effect.forkChild,
    )
    const deadline = Date.now() + 5000
    while (events.length === 0 && Date.now() < deadline) yield* Effect.sleep("5 millis")
    assert.deepStrictEqual(events, [
      { _tag: "Waiting", component: "tool", reason: `process ${pid} is building tool (${file})` },
    ])
    assert.isFalse(mine)
    end()
    assert.strictEqual((yield* Fiber.join(waiting)).pid, process.pid)
    assert.lengthOf(events, 1, "it is said once")
    assert.deepStrictEqual(
      fs.readdirSync(path.dirname(file)),
      [],
      "the lock is gone and nothing else is left",
    )
  }),
)

it.live("takes over at once from a process that is gone, even if its pid is someone else's now", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "tool")
    const { pid } = yield* other
    fs.writeFileSync(file, JSON.stringify({ pid, start: "1", namespace, id: "x" }))
    yield* Effect.scoped(lockFile(file, "tool", "building"))
  }).pipe(Effect.timeout("5 seconds")),
)

it.live("judges a holder of another pid namespace by its signs of life", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "tool")
    const text = JSON.stringify({ pid: 1, start: "1", namespace: "pid:[1]", id: "x" })
    fs.writeFileSync(file, text)
    const waiting = yield* Effect.forkChild(Effect.scoped(lockFile(file, "tool", "building")), {
      startImmediately: true,
    })
    yield* Effect.sleep("50 millis")
    assert.strictEqual(fs.readFileSync(file, "utf8"), text, "fresh: it is respected")
    const old = new Date(Date.now() - 120_000)
    fs.utimesSync(file, old, old)
    yield* Fiber.join(waiting)
  }).pipe(Effect.timeout("5 seconds")),
)

it.live("many at once: one holds it at a time", () =>
  Effect.gen(function* () {
    const file = path.join(yield* temporaryDirectory, "tool")
    // All start from a lock that was left behind, and race for taking it over.
    fs.writeFileSync(file, JSON.stringify({ pid: process.pid, start: "1", namespace, id: "x" }))
    let holders = 0
    let most = 0
    const hold = Effect.gen(function* () {
      yield* lockFile(file, "tool", "building")
      most = Math.max(most, ++holders)
      yield* Effect.yieldNow
      holders--
    })
    yield* Effect.all(
      Array.from({ length: 5 }, () => Effect.scoped(hold)),
      { concurrency: "unbounded" },
    )
    assert.strictEqual(most, 1)
  }),
)
