// PID 1 over a process that ends at once, thousands of times; started by soak.kernel.test.ts.
import { Supervisor } from "@kios/core/Supervisor"
import * as Readiness from "@kios/core/Readiness"
import { Effect } from "effect"
import { sample, type Sample } from "./memory.ts"
import type { Common } from "./namespace.ts"
import { run } from "./pidOne.ts"

export interface Options extends Common {
  /** Crashes before the first sample: code gets compiled, caches get filled. */
  readonly warmUp: number
  readonly crashes: number
  readonly samples: number
}

export interface Result {
  readonly samples: ReadonlyArray<Sample>
  readonly reasons: ReadonlyArray<string>
  readonly seconds: number
}

// Several at once, for speed and because a node has several.
const LOOPS = 4

run<Options>(({ agent, crashes, samples, warmUp }) =>
  Effect.scoped(
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const started = Date.now()
      const loops = yield* Effect.forEach(
        Array.from({ length: LOOPS }, (_, n) => n + 1),
        (code) =>
          supervisor.supervise({
            name: `crash-${code}`,
            command: agent,
            args: ["exit", String(code)],
            env: {},
            // Nobody asks: the process is gone before it could answer.
            readiness: Readiness.make("nothing", Effect.never),
            restart: { initial: "1 millis", maximum: "1 millis", stableAfter: "1 minute" },
          }),
      )
      const total = Effect.map(
        Effect.forEach(loops, (loop) => loop.starts),
        (starts) => starts.reduce((sum, each) => sum + each - 1, 0),
      )
      const until = Effect.fnUntraced(function* (count: number) {
        for (;;) {
          const now = yield* total
          if (now >= count) return now
          yield* Effect.sleep("5 millis")
        }
      })
      const taken: Array<Sample> = []
      for (let n = 0; n <= samples; n++)
        taken.push(sample(yield* until(warmUp + Math.round((crashes * n) / samples))))
      const deaths = yield* Effect.forEach(loops, (loop) => loop.lastDeath)
      return {
        samples: taken,
        reasons: deaths.map((death) => death?.reason ?? "none"),
        seconds: (Date.now() - started) / 1000,
      } satisfies Result
    }),
  ),
)
