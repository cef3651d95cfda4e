// A real containerd under the real supervisor: what breaks it, what hangs it, and what is told of it.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import * as fs from "node:fs"
import { BootReport } from "@kios/core/BootReport"
import { type Event, Events, type Recorded } from "@kios/core/Events"
import type { Signal } from "@kios/core/Kernel"
import * as Kernel from "@kios/core/Kernel"
import { Kmsg } from "@kios/core/Kmsg"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import * as Readiness from "@kios/core/Readiness"
import { Shutdown } from "@kios/core/Shutdown"
import { Supervisor } from "@kios/core/Supervisor"
import { liveness } from "@kios/stages-runtime/containerd/Liveness"
import { awaitReady } from "@kios/stages-runtime/containerd/Probe"
import { tempDir } from "./support/http2Server.ts"
import { commandOf, containerdBinary } from "./support/realContainerd.ts"

const binary = containerdBinary()

const platform = (kmsg: Array<string>) =>
  Supervisor.layer.pipe(
    Layer.provideMerge(Shutdown.layer),
    Layer.provideMerge(BootReport.layer),
    Layer.provideMerge(Events.layer),
    Layer.provideMerge(Layer.merge(LinuxKernel.layer(), Kmsg.layerArray(kmsg))),
  )

/** Fails, with what was told so far, unless it holds within a minute and a half. */
const until = (what: string, kmsg: ReadonlyArray<string>, holds: Effect.Effect<boolean>) =>
  holds.pipe(
    Effect.flatMap((held) =>
      held ? Effect.void : Effect.fail(new Error(`${what}\n${kmsg.slice(-20).join("\n")}`)),
    ),
    Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: "90 seconds" }))),
  )

const of = <K extends Event["kind"]>(events: ReadonlyArray<Recorded>, kind: K) =>
  events.filter((event): event is Extract<Recorded, { kind: K }> => event.kind === kind)

describe.skipIf(binary === undefined)("containerd under supervision", () => {
  it.live(
    "one that exits at once is started again after a delay that grows up to the cap, and the console says why",
    () => {
      const kmsg: Array<string> = []
      return Effect.gen(function* () {
        const dir = yield* tempDir
        const { args, env } = commandOf(binary ?? "", dir)
        fs.writeFileSync(`${dir}/config.toml`, "version = 3\n[grpc\n")
        const supervisor = yield* Supervisor
        const events = yield* Events
        const process = yield* supervisor.supervise({
          name: "containerd",
          command: binary ?? "",
          args,
          env,
          readiness: Readiness.make("nothing", Effect.never),
          restart: { initial: "50 millis", maximum: "800 millis", stableAfter: "1 minute" },
        })
        yield* until(
          "eight deaths",
          kmsg,
          Effect.map(process.starts, (starts) => starts > 8),
        )
        const ended = of((yield* events.current).events, "process-ended").slice(0, 8)
        for (const [index, nominal] of [50, 100, 200, 400, 800, 800, 800, 800].entries()) {
          const delay = ended[index]?.nextStartInMs ?? Number.NaN
          assert.isAtLeast(delay, nominal * 0.8)
          assert.isAtMost(delay, nominal * 1.2)
          assert.deepInclude(ended[index], { exitCode: 1, signal: null, deaths: index + 1, wanted: false })
        }
        const first = kmsg.findIndex((line) =>
          /^err error containerd: ended with exit code 1 after \d+ ms \(death 1 in a row\), starting again in \d+ ms$/u.test(
            line,
          ),
        )
        assert.isAtLeast(first, 0, kmsg.join("\n"))
        // Its own words, right after.
        assert.match(
          kmsg.slice(first + 1, first + 4).join("\n"),
          /^err error containerd: said: .*(toml|config)/imu,
        )
      }).pipe(Effect.scoped, Effect.provide(platform(kmsg)))
    },
    120_000,
  )

  it.live(
    "one that is stopped, killed or aborted comes back, and how each run ended is known exactly",
    () => {
      const kmsg: Array<string> = []
      return Effect.gen(function* () {
        const dir = yield* tempDir
        const { address, args, env } = commandOf(binary ?? "", dir)
        const kernel = yield* Kernel.Kernel
        const supervisor = yield* Supervisor
        const events = yield* Events
        const process = yield* supervisor.supervise({
          name: "containerd",
          command: binary ?? "",
          args,
          env,
          log: { path: `${dir}/log`, maxBytes: 1_000_000 },
          readiness: Readiness.make("its API", Effect.orDie(awaitReady(address))),
          liveness: yield* liveness(address, { every: "1 second", timeout: "3 seconds", failures: 3 }),
          restart: { initial: "50 millis", maximum: "1 second", stableAfter: "1 minute" },
        })
        const pid = Effect.map(process.state, (state) => (state._tag === "Up" ? state.pid : undefined))
        const send = Effect.fnUntraced(function* (signal: Signal) {
          yield* process.awaitUp("60 seconds")
          const before = yield* pid
          if (before === undefined) return yield* Effect.die(new Error("it is not up"))
          yield* kernel.kill(before, signal)
          yield* until(
            `another containerd after ${signal}`,
            kmsg,
            Effect.map(pid, (now) => now !== undefined && now !== before),
          )
          const { events: all } = yield* events.current
          const [ended, more] = of(all, "process-ended").filter((event) => event.pid === before)
          assert.isUndefined(more, "a run ends once")
          return { ended, hung: of(all, "process-unresponsive").filter((event) => event.pid === before) }
        })
        const killed = yield* send("SIGKILL")
        assert.deepInclude(killed.ended, {
          signal: "SIGKILL",
          exitCode: null,
          oomKilled: false,
          wanted: false,
        })
        // Go prints all its goroutines and exits with 2.
        const aborted = yield* send("SIGABRT")
        assert.deepInclude(aborted.ended, { signal: null, exitCode: 2, reason: "exit code 2" })
        assert.isNotEmpty(aborted.ended?.lastLines ?? [])
        const stopped = yield* send("SIGSTOP")
        assert.strictEqual(stopped.hung.length, 1, kmsg.join("\n"))
        assert.match(stopped.ended?.reason ?? "", /^unresponsive: .* within 3s$/u)
        // It was woken up to end by itself.
        assert.deepInclude(stopped.ended, { exitCode: 0, signal: null, wanted: false })
        const { processes } = yield* events.current
        assert.strictEqual(processes[0]?.starts, (processes[0]?.deaths ?? 0) + 1)
      }).pipe(Effect.scoped, Effect.provide(platform(kmsg)))
    },
    240_000,
  )
})
