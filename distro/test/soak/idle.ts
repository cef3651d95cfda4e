// PID 1 of a node on which nothing happens but its own probes, hours of them; started by soak.kernel.test.ts.
import { Supervisor } from "@kios/core/Supervisor"
import * as Liveness from "@kios/core/Liveness"
import * as Readiness from "@kios/core/Readiness"
import * as ContainerdLiveness from "@kios/stages-runtime/containerd/Liveness"
import { Effect } from "effect"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { sample, type Sample } from "./memory.ts"
import type { Common } from "./namespace.ts"
import { run } from "./pidOne.ts"

export interface Options extends Common {
  /** Of each daemon. */
  readonly probes: number
  readonly warmUp: number
  readonly samples: number
}

export interface Result {
  readonly samples: ReadonlyArray<Sample>
  readonly passed: number
  readonly failed: number
  readonly seconds: number
}

run<Options>(({ probes, result, samples, warmUp }) =>
  Effect.scoped(
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const started = Date.now()
      const address = path.join(path.dirname(result), "containerd.sock")
      const told: Array<number> = []
      yield* supervisor.supervise({
        name: "health-server",
        command: process.execPath,
        args: [
          "--no-warnings",
          "--conditions=@kios/source",
          fileURLToPath(new URL("healthServer.ts", import.meta.url)),
          address,
        ],
        env: {},
        readiness: Readiness.immediate,
        onLine: (line) => {
          if (/^\d+$/.test(line)) told.push(Number(line))
        },
      })
      const deadline = Date.now() + 60_000
      while (told.length === 0) {
        if (Date.now() > deadline) return yield* Effect.fail("the server does not start")
        yield* Effect.sleep("20 millis")
      }
      const kubelet = Liveness.httpOk(`http://127.0.0.1:${told[0]}/healthz`)
      const containerd = yield* ContainerdLiveness.liveness(address)
      const answers = { passed: 0, failed: 0 }
      const ask = (liveness: Liveness.Liveness) =>
        Effect.match(Liveness.ask(liveness), {
          onSuccess: () => void answers.passed++,
          onFailure: () => void answers.failed++,
        })
      const round = Effect.all([ask(kubelet), ask(containerd)], { concurrency: 2, discard: true })
      const taken: Array<Sample> = []
      for (let n = 0; n <= samples; n++) {
        const rounds = warmUp + Math.round((probes * n) / samples)
        const missing = rounds - (taken.at(-1)?.after ?? 0)
        yield* Effect.repeat(round, { times: missing - 1 })
        taken.push(sample(rounds))
      }
      return { samples: taken, ...answers, seconds: (Date.now() - started) / 1000 } satisfies Result
    }),
  ),
)
