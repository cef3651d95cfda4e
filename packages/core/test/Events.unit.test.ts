import { assert, describe, expect, expectTypeOf, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as EventRecord from "@kios/core/EventRecord"
import * as Events from "@kios/core/Events"
import { events } from "@kios/core/EventStream"
import { keepFile } from "@kios/core/internal/keepFile"
import { Kernel } from "@kios/core/Kernel"
import { Kmsg } from "@kios/core/Kmsg"
import * as TestMachine from "@kios/core/testing/TestMachine"

const ended = (more: Partial<Extract<Events.Event, { kind: "process-ended" }>> = {}): Events.Event => ({
  kind: "process-ended",
  process: "agent",
  run: 1,
  pid: 12,
  exitCode: 3,
  signal: null,
  oomKilled: false,
  wanted: false,
  reason: "exit code 3",
  ranForMs: 1234.5,
  deaths: 1,
  nextStartInMs: 100,
  lastLines: ["one", "two", "three", "four"],
  ...more,
})

const every: ReadonlyArray<Events.Event> = [
  { kind: "process-started", process: "agent", run: 1, pid: 12 },
  { kind: "process-ready", process: "agent", run: 1, pid: 12, afterMs: 5 },
  ended(),
  { kind: "process-started", process: "agent", run: 2, pid: 13 },
  { kind: "process-ready", process: "agent", run: 2, pid: 13, afterMs: 812.4 },
  { kind: "process-unresponsive", process: "agent", run: 2, pid: 13, failures: 4, reason: "no answer" },
  { kind: "process-killed", process: "agent", run: 2, pid: 13, afterMs: 10_000 },
  { kind: "process-unkillable", process: "agent", run: 2, pid: 13, afterMs: 10_000 },
  ended({ run: 2, pid: 13, exitCode: null, signal: "SIGKILL", wanted: true, reason: "signal SIGKILL" }),
  ended({ run: 3, pid: null, exitCode: null, reason: "could not be started: ENOENT", lastLines: [] }),
  { kind: "process-stopped", process: "agent" },
  { kind: "output-dropped", process: "agent", bytes: 9 },
  { kind: "stage-failed", stage: "disk", criticality: "required", reason: "gone" },
  { kind: "stage-skipped", stage: "net", reason: "disk did not come up" },
  { kind: "module-refused", module: "loop", reason: "EPERM" },
  { kind: "manifest-error", file: "/m/a.yaml", reason: "no such kind" },
  { kind: "config-error", file: "/etc/x", line: 3, reason: "no such key" },
  { kind: "config-error", file: "/etc/y", line: null, reason: "empty" },
  { kind: "note", source: "disk", level: "notice", message: "grown" },
]

const run = <A, E>(
  body: (
    events: Events.EventsShape,
    machine: TestMachine.TestMachine,
  ) => Effect.Effect<A, E, Kernel | Kmsg | Events.Events>,
) => {
  const machine = TestMachine.make()
  return Events.Events.use((events) => body(events, machine)).pipe(
    Effect.provide(TestMachine.platform(machine)),
  )
}

describe("Events", () => {
  it.effect("what is told on the console, exactly", () =>
    run((events, machine) =>
      Effect.gen(function* () {
        for (const event of every) yield* events.publish(event)
        assert.deepStrictEqual(machine.kmsg, [
          "err error agent: ended with exit code 3 after 1235 ms (death 1 in a row), starting again in 100 ms",
          "err error agent: said: two",
          "err error agent: said: three",
          "err error agent: said: four",
          "info agent: started (run 2, pid 13)",
          "info agent: ready after 812 ms (run 2)",
          "err error agent: unresponsive: 4 probes failed in a row: no answer: ending it",
          "warning warn agent: did not end within 10000 ms of SIGTERM: killing it",
          "err error agent: pid 13 did not end within 10000 ms of SIGKILL: it waits in the kernel, for a disk perhaps",
          "info agent: ended as asked with signal SIGKILL after 1235 ms, starting it again",
          "err error agent: ended with could not be started: ENOENT after 1235 ms (death 1 in a row), starting again in 100 ms",
          "info agent: stopped",
          "warning warn agent: wrote more than is kept: 9 bytes of output dropped",
          "err error stage disk failed: gone",
          "warning warn stage net skipped: disk did not come up",
          "warning warn module loop was not loaded: EPERM",
          'err error kubelet: manifest-error file=/m/a.yaml reason="no such kind"',
          "err error /etc/x:3: no such key",
          "err error /etc/y: empty",
          "notice disk: grown",
        ])
      }),
    ),
  )

  it.effect("no more is told than the log takes, but all is kept", () =>
    run((events, machine) =>
      Effect.gen(function* () {
        yield* Kmsg.use((kmsg) => kmsg.logFrom("err"))
        yield* events.publish({ kind: "process-started", process: "agent", run: 2, pid: 13 })
        yield* events.record({ kind: "stage-failed", stage: "disk", criticality: "required", reason: "gone" })
        assert.deepStrictEqual(machine.kmsg, [])
        assert.strictEqual((yield* events.current).total, 2)
      }),
    ),
  )

  it.effect("are numbered and dated, and counted by process", () =>
    run((events) =>
      Effect.gen(function* () {
        for (const event of every) {
          yield* TestClock.adjust("1500 millis")
          yield* events.publish(event)
        }
        const { events: kept, processes, total } = yield* events.current
        assert.strictEqual(total, every.length)
        assert.deepStrictEqual(
          kept.map(({ sequence }) => sequence),
          every.map((_, index) => index + 1),
        )
        assert.deepInclude(kept[1], { atMs: 3000, time: "1970-01-01T00:00:03.000Z", severity: "debug" })
        assert.deepStrictEqual(processes, [
          {
            process: "agent",
            pid: null,
            starts: 2,
            deaths: 1,
            wantedEnds: 1,
            failedStarts: 1,
            unresponsive: 1,
          },
        ])
      }),
    ),
  )

  it.effect("are bounded: the last are kept, and no text is longer than a few lines", () =>
    run((events) =>
      Effect.gen(function* () {
        const long = "x".repeat(100_000)
        for (let n = 0; n < 1000; n++)
          yield* events.record(ended({ process: `p${n}`, reason: long, lastLines: Array(40).fill(long) }))
        const record = yield* events.current
        assert.strictEqual(record.total, 1000)
        assert.strictEqual(record.events.length, Events.KEPT)
        assert.strictEqual(record.events.at(-1)?.sequence, 1000)
        assert.isAtMost(record.processes.length, 64)
        assert.isBelow(JSON.stringify(record).length, 1024 * 1024)
      }),
    ),
  )

  it.effect("reach every listener, and one that is slow misses the oldest, as the numbers show", () =>
    run((service) =>
      Effect.gen(function* () {
        const quick = yield* Effect.forkChild(Stream.runCollect(Stream.take(events, 2)), {
          startImmediately: true,
        })
        const seen: Array<number> = []
        const slow = yield* Effect.forkChild(
          Stream.runForEach(events, ({ sequence }) =>
            Effect.andThen(
              Effect.sync(() => seen.push(sequence)),
              Effect.sleep("1 minute"),
            ),
          ),
          { startImmediately: true },
        )
        yield* TestClock.adjust(0)
        for (const event of every.slice(0, 2)) yield* service.record(event)
        assert.deepStrictEqual(
          (yield* Fiber.join(quick)).map(({ kind, sequence }) => [kind, sequence]),
          [
            ["process-started", 1],
            ["process-ready", 2],
          ],
        )
        for (let n = 0; n < 2000; n++) {
          yield* service.record(ended())
          // The listener has its turns, but not the time.
          yield* Effect.yieldNow
        }
        for (let minute = 0; minute < 1000; minute++) yield* TestClock.adjust("1 minute")
        assert.isBelow(seen.length, 1000)
        assert.strictEqual(seen.at(-1), 2002)
        assert.deepStrictEqual(
          seen,
          seen.toSorted((a, b) => a - b),
        )
        yield* Fiber.interrupt(slow)
      }),
    ),
  )
})

describe("EventRecord", () => {
  it("is the type that init writes", () => {
    expectTypeOf<typeof EventRecord.EventRecord.Type>().toExtend<Events.EventRecord>()
    expectTypeOf<Events.EventRecord>().toExtend<typeof EventRecord.EventRecord.Type>()
  })

  it.effect("reads what init writes, of every kind", () =>
    run((events, machine) =>
      Effect.gen(function* () {
        for (const event of every) yield* events.publish(event)
        const { changed, current } = events
        const file = { path: "/run/kios/events.json", changed, current, atMostEvery: "1 second" } as const
        const fiber = yield* Effect.forkChild(keepFile(file), { startImmediately: true })
        yield* TestClock.adjust(0)
        const text = machine.read("/run/kios/events.json")
        const record = yield* EventRecord.fromJson(text)
        assert.deepStrictEqual(record as unknown, JSON.parse(text))
        assert.deepStrictEqual(record, yield* current)
        assert.deepStrictEqual(
          new Set(record.events.map(({ kind }) => kind)).size,
          new Set(every.map(({ kind }) => kind)).size,
        )
        yield* Fiber.interrupt(fiber)
      }),
    ),
  )

  it.effect("the file is written again no more than once a second, and the last event is in it", () =>
    run((events, machine) =>
      Effect.gen(function* () {
        const { changed, current } = events
        const file = { path: "/run/kios/events.json", changed, current, atMostEvery: "1 second" } as const
        const fiber = yield* Effect.forkChild(keepFile(file), { startImmediately: true })
        for (let n = 0; n < 50; n++) {
          yield* events.record({ kind: "note", source: "test", level: "info", message: String(n) })
          yield* TestClock.adjust("100 millis")
        }
        yield* TestClock.adjust("1 second")
        assert.isAtMost(machine.log({ only: ["rename"] }).length, 7)
        const { events: kept } = yield* EventRecord.fromJson(machine.read("/run/kios/events.json"))
        assert.deepInclude(kept.at(-1), { kind: "note", message: "49" })
        yield* Fiber.interrupt(fiber)
      }),
    ),
  )

  it.effect("a file that cannot be written is told, and tried again", () =>
    run((events, machine) =>
      Effect.gen(function* () {
        machine.failOn("writeFile", "ENOSPC", { times: 1 })
        const { changed, current } = events
        const file = { path: "/run/kios/events.json", changed, current, atMostEvery: "1 second" } as const
        const fiber = yield* Effect.forkChild(keepFile(file), { startImmediately: true })
        yield* events.record(ended())
        yield* TestClock.adjust("1 second")
        assert.isTrue(
          machine.kmsg.some((line) => line.includes("ENOSPC")),
          machine.kmsg.join("\n"),
        )
        yield* events.record(ended())
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* EventRecord.fromJson(machine.read(file.path))).total, 2)
        yield* Fiber.interrupt(fiber)
      }),
    ),
  )

  it("says what is wrong with a file", () => {
    const message = (text: string) =>
      Effect.runSync(Effect.map(Effect.flip(EventRecord.fromJson(text)), (error) => error.message))
    assert.match(message("{"), /not an event record \(the content of \/run\/kios\/events\.json\): .*JSON/u)
    assert.include(message('{"version":2}'), '["version"]')
  })

  it("the published JSON Schema is up to date (vitest -u writes it)", async () => {
    const text = `${JSON.stringify(EventRecord.jsonSchema(), null, 2)}\n`
    await expect(text).toMatchFileSnapshot("../../../docs/reference/events.schema.json")
  })
})
