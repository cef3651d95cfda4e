import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import * as Death from "@kios/core/Death"
import { device } from "@kios/core/Kmsg"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const recorded = (now?: () => number) => {
  const records: Array<string> = []
  const faults = Death.faults({ writeUnsafe: (severity, text) => records.push(`${severity} ${text}`) }, now)
  return { records, faults }
}

describe("faults", () => {
  it("are told at once, at severity crit, with where they come from", () => {
    const { faults, records } = recorded()
    faults.tell("uncaught exception", new Error("no such pod"))
    faults.tell("unhandled rejection", "a reason that is no error")
    assert.match(
      records[0] ?? "",
      /^crit error init: uncaught exception, going on: Error: no such pod\n +at /u,
    )
    assert.strictEqual(
      records[1],
      "crit error init: unhandled rejection, going on: a reason that is no error",
    )
  })

  it("are summed up: how many, and the first of them", () => {
    const { faults } = recorded()
    assert.isUndefined(faults.summary())
    faults.tell("a", new Error("one"))
    assert.strictEqual(faults.summary(), "1 fault: a: one")
    for (let n = 2; n <= 7; n++) faults.tell("a", new Error(String(n)))
    assert.strictEqual(faults.count(), 7)
    assert.strictEqual(faults.summary(), "7 faults: a: one; a: 2; a: 3; a: 4; a: 5 and 2 more")
  })

  it("that come in thousands do not drown the log, and are counted", () => {
    let now = 0
    const { faults, records } = recorded(() => now)
    for (let n = 0; n < 10_000; n++) faults.tell("uncaught exception", "again")
    assert.strictEqual(records.length, 20)
    assert.strictEqual(faults.count(), 10_000)
    now = 60_000
    faults.tell("uncaught exception", "again")
    assert.strictEqual(
      records[20],
      "crit error init: uncaught exception, going on: 9980 more were not told; again",
    )
    assert.isBelow(faults.summary()?.length ?? 0, 700)
  })
})

describe("fibers", () => {
  const run = <A, E>(effect: Effect.Effect<A, E>) => {
    const { faults, records } = recorded()
    return Effect.map(Effect.exit(Effect.provideContext(effect, Death.watchFibers(faults))), (exit) => ({
      exit,
      faults,
      records,
    }))
  }

  it.effect("that nobody waits for are told when they die", () =>
    Effect.gen(function* () {
      const { exit, faults } = yield* run(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkDetach(Effect.die(new Error("a bug")))
          yield* Fiber.await(fiber)
        }),
      )
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(faults.summary(), "1 fault: defect in a fiber: a bug")
    }),
  )

  it.effect("that fail, are interrupted, or whose defect is caught are no fault", () =>
    Effect.gen(function* () {
      const { faults } = yield* run(
        Effect.gen(function* () {
          yield* Fiber.await(yield* Effect.forkChild(Effect.fail("expected")))
          yield* Fiber.interrupt(yield* Effect.forkChild(Effect.never))
          yield* Effect.catchCause(Effect.die("handled where it happens"), () => Effect.void)
        }),
      )
      assert.strictEqual(faults.count(), 0)
    }),
  )

  it.effect("that hand a defect on tell it once", () =>
    Effect.gen(function* () {
      const { exit, faults } = yield* run(
        Effect.gen(function* () {
          const inner = Effect.forkChild(Effect.die(new Error("a bug")))
          const outer = yield* Effect.forkChild(Effect.flatMap(inner, Fiber.join))
          return yield* Fiber.join(outer)
        }),
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.strictEqual(faults.count(), 1)
    }),
  )
})

describe("a process that refuses to die", () => {
  const program = (body: string) => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-death-"))
    const log = path.join(directory, "kmsg")
    fs.writeFileSync(log, "")
    const script = path.join(directory, "program.ts")
    const core = (name: string) => JSON.stringify(new URL(`../src/${name}.ts`, import.meta.url).href)
    fs.writeFileSync(
      script,
      `import * as Death from ${core("Death")}
       import { device } from ${core("Kmsg")}
       const held = []
       const real = globalThis.setInterval
       globalThis.setInterval = (...args) => { const timer = real(...args); held.push(timer); return timer }
       const kmsg = device(${JSON.stringify(log)})
       const faults = Death.faults(kmsg)
       Death.logStandardError(${JSON.stringify(log)})
       Death.refuse(faults, kmsg)
       ${body}`,
    )
    const { status } = spawnSync(process.execPath, ["--conditions=@kios/source", script], {
      timeout: 60_000,
      killSignal: "SIGKILL",
      encoding: "utf8",
    })
    const text = fs.readFileSync(log, "utf8")
    fs.rmSync(directory, { recursive: true })
    return { status, text }
  }

  it("goes on after an exception and a rejection", () => {
    const { status, text } = program(
      `setImmediate(() => { throw new Error("thrown") })
       setImmediate(() => void Promise.reject(new Error("rejected")))
       const wait = setInterval(() => { if (faults.count() === 2) process.exit(5) }, 10)`,
    )
    assert.strictEqual(status, 5)
    assert.include(text, "<26>kios: error init: uncaught exception, going on: Error: thrown")
    assert.include(text, "<26>kios: error init: unhandled rejection, going on: Error: rejected")
    assert.include(text, "error init: exits with code 5: the kernel panics, and panic= decides")
  })

  it("goes on when its event loop has run empty", () => {
    const { status, text } = program(
      `const check = setInterval(() => { if (faults.count() === 1) process.exit(6) }, 10)
       for (const timer of held) timer.unref()`,
    )
    assert.strictEqual(status, 6)
    assert.include(text, "error init: empty event loop, going on: init had nothing left to wait for")
  })

  it("leaves what Node says when it gives up in the log", () => {
    const { text } = program(`process.abort()`)
    assert.include(text, "Native stack trace")
  })
})

it("standard error stays closed when there is no such device", () => {
  assert.doesNotThrow(() => device("/nonexistent/kmsg").writeUnsafe("crit", "nobody hears it"))
})
