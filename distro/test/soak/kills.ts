// PID 1 over daemons that are killed at random moments; started by soak.kernel.test.ts.
import { Supervisor, type Supervised } from "@kios/core/Supervisor"
import { Effect } from "effect"
import { random } from "../../../packages/core/test/support/Scale.ts"
import { sample, type Sample } from "./memory.ts"
import type { Common } from "./namespace.ts"
import { alive, answers, others, run } from "./pidOne.ts"

/** What is sent, and how the end must be told then, from its beginning. */
const endings = {
  SIGKILL: "signal SIGKILL",
  SIGABRT: "signal SIGABRT",
  SIGSEGV: "signal SIGSEGV",
  SIGINT: "signal SIGINT",
  // The agent handles these, once it has come to that.
  SIGTERM: "exit code 15",
  SIGUSR1: "exit code 17",
  SIGUSR2: "exit code 18",
  // It hangs, and init finds out.
  SIGSTOP: "unresponsive: ",
} as const
type Sent = keyof typeof endings
const fatal = (Object.keys(endings) as ReadonlyArray<Sent>).filter((signal) => signal !== "SIGSTOP")
// The part of hangs in all kills: each takes seconds to be found, of one daemon of four.
const HANGS = 0.03

export interface Options extends Common {
  readonly seed: number
  readonly kills: number
  /** Kills before the first sample: code gets compiled, caches get filled. */
  readonly warmUp: number
  readonly samples: number
}

export interface Result {
  readonly kills: number
  /** By signal. */
  readonly sent: Readonly<Record<string, number>>
  /** By the state that the process was in. */
  readonly moments: Readonly<Record<string, number>>
  /** Starts beyond the first of each daemon. */
  readonly restarts: number
  /** Ends that were not told as what was sent. */
  readonly wrong: ReadonlyArray<string>
  readonly zombies: ReadonlyArray<string>
  /** Processes at the end, by name. */
  readonly left: ReadonlyArray<string>
  readonly samples: ReadonlyArray<Sample>
  readonly seconds: number
}

const DAEMONS = 4

run<Options>(({ agent, kills, name, samples, seed, warmUp }) =>
  Effect.scoped(
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const next = random(seed)
      const started = Date.now()
      const names = Array.from({ length: DAEMONS }, (_, n) => `${name}-${n}`)
      const daemons = yield* Effect.forEach(names, (socket) =>
        supervisor.supervise({
          name: socket,
          command: agent,
          args: [socket],
          env: {},
          readiness: answers(socket),
          liveness: alive(socket),
          restart: { initial: "1 millis", maximum: "16 millis", stableAfter: "40 millis" },
        }),
      )
      const up = Effect.forEach(daemons, (daemon) => daemon.awaitUp("2 minutes"), { discard: true })
      yield* up
      const restarts = Effect.map(
        Effect.forEach(daemons, (daemon) => daemon.starts),
        (starts) => starts.reduce((sum, each) => sum + each - 1, 0),
      )

      const sent: Record<string, number> = {}
      const moments: Record<string, number> = {}
      const wrong: Array<string> = []
      // The signal that each life was sent, by daemon: one life, one signal.
      const pending = new Map<
        Supervised,
        { readonly life: number; readonly signal: Sent; readonly when: string }
      >()

      /** Compares how the last life that was ended is told with what ended it. */
      const settle = Effect.fnUntraced(function* (daemon: Supervised) {
        const kill = pending.get(daemon)
        if (kill === undefined) return true
        if ((yield* daemon.starts) <= kill.life) return false
        const told = (yield* daemon.lastDeath)?.reason
        // A process that has just been started has not set its handlers.
        const early = kill.when === "Waiting" ? `signal ${kill.signal}` : undefined
        if (told?.startsWith(endings[kill.signal]) !== true && told !== early)
          wrong.push(`${kill.signal} while ${kill.when}: ${told}`)
        pending.delete(daemon)
        return true
      })

      let count = 0
      const kill = Effect.fnUntraced(function* (daemon: Supervised) {
        if (!(yield* settle(daemon))) return
        const state = yield* daemon.state
        if (state._tag !== "Waiting" && state._tag !== "Up") return
        const signal: Sent =
          state._tag === "Up" && (sent["SIGSTOP"] ?? 0) < count * HANGS
            ? "SIGSTOP"
            : (fatal[Math.floor(next() * fatal.length)] ?? "SIGKILL")
        pending.set(daemon, { life: yield* daemon.starts, signal, when: state._tag })
        process.kill(state.pid, signal)
        sent[signal] = (sent[signal] ?? 0) + 1
        moments[state._tag] = (moments[state._tag] ?? 0) + 1
        count++
      })

      const taken: Array<Sample> = []
      for (;;) {
        if (count >= kills) break
        const due = warmUp + ((kills - warmUp) * taken.length) / samples
        if (count >= due) taken.push(sample(count))
        // Now and then all at once; else whoever's turn it is, whatever it is doing.
        const together = next() < 0.05
        const chosen = together ? daemons : [daemons[Math.floor(next() * DAEMONS)] ?? daemons[0]!]
        for (const daemon of chosen) if (count < kills) yield* kill(daemon)
        yield* Effect.sleep(next() < 0.2 ? 0 : next() * 20)
      }
      yield* up
      // Up again may also be the life before the kill: a dead process is told of a moment later.
      const deadline = Date.now() + 120_000
      while (pending.size > 0 && Date.now() < deadline) {
        for (const daemon of pending.keys()) yield* settle(daemon)
        yield* Effect.sleep("5 millis")
      }
      yield* up
      for (const [daemon, each] of pending) wrong.push(`${daemon.name}: ${each.signal}, and nothing was told`)
      taken.push(sample(count))

      // Orphans live for a few milliseconds.
      while (others().length > DAEMONS && Date.now() < deadline) yield* Effect.sleep("5 millis")
      const left = others()
      return {
        kills: count,
        sent,
        moments,
        restarts: yield* restarts,
        wrong,
        zombies: left.filter(({ state }) => state === "Z").map((process) => `${process.name} ${process.pid}`),
        left: left.map((process) => process.name),
        samples: taken,
        seconds: (Date.now() - started) / 1000,
      } satisfies Result
    }),
  ),
)
