// Init itself, as PID 1 of a pid namespace, over daemons that are killed or that crash without end.
import { assert, describe, it } from "@effect/vitest"
import { record, scaled, seed } from "../../../packages/core/test/support/Scale.ts"
import type { Options as CrashOptions, Result as CrashResult } from "./crashLoops.ts"
import type { Options as IdleOptions, Result as IdleResult } from "./idle.ts"
import type { Options as KillOptions, Result as KillResult } from "./kills.ts"
import { type Common, inNamespace } from "./namespace.ts"
import { growth, type Sample } from "./memory.ts"

type Own<Options> = Omit<Options, keyof Common>

const minutes = scaled(8, 60)
const kills = scaled(300, 2000)
const crashes = scaled(1500, 20_000)
const probes = scaled(700, 20_000)

const curves = (samples: ReadonlyArray<Sample>, x: string) => [
  {
    title: "live JavaScript objects",
    x,
    y: "MiB",
    points: samples.map(({ after, heapUsed }): [number, number] => [after, heapUsed / 2 ** 20]),
  },
  {
    title: "private memory (RssAnon)",
    x,
    y: "MiB",
    points: samples.map(({ after, rssAnon }): [number, number] => [after, rssAnon / 2 ** 20]),
  },
]

/** Nothing is kept of what is over: what a single kill or crash may leave behind is less than any object takes. */
const assertBounded = (samples: ReadonlyArray<Sample>, slack: number) => {
  const [first] = samples
  const last = samples.at(-1)
  if (first === undefined || last === undefined) return assert.fail("no samples")
  const described = JSON.stringify(samples.map(({ after, heapUsed }) => [after, heapUsed]))
  // `slack`: code that V8 compiles late, and tables that double, take some whatever the number of crashes.
  assert.isAtMost(growth(samples, "heapUsed"), slack + 16 * (last.after - first.after), described)
  assert.isAtMost(growth(samples, "external"), 64 * 1024, "memory outside of the heap")
  // Four daemons' pipes come and go.
  assert.isAtMost(growth(samples, "openFiles"), 8, "open files")
}

describe("PID 1 of a namespace", () => {
  it(
    `${kills} kills at random moments: restarts equal kills, each end is told, no zombies`,
    async () => {
      const options: Own<KillOptions> = { seed, kills, warmUp: 100, samples: 20 }
      const found = await inNamespace<Own<KillOptions>, KillResult>("kills.ts", options, minutes * 50_000)
      const context = `KIOS_SEED=${seed} ${JSON.stringify({ sent: found.sent, moments: found.moments })}`
      assert.deepStrictEqual(found.wrong, [], context)
      assert.deepStrictEqual(found.zombies, [], context)
      assert.deepStrictEqual(found.left, ["agent", "agent", "agent", "agent"], context)
      assert.strictEqual(found.kills, kills, context)
      assert.strictEqual(found.restarts, kills, context)
      assertBounded(found.samples, 1536 * 1024)
      record("namespace-kills", {
        figures: {
          kills: found.kills,
          restarts: found.restarts,
          "wrong ends": found.wrong.length,
          zombies: found.zombies.length,
          "heap growth, KiB": Math.round(growth(found.samples, "heapUsed") / 1024),
          seconds: Math.round(found.seconds),
          seed,
        },
        curves: curves(found.samples, "kills"),
      })
    },
    minutes * 60_000,
  )

  it(
    `${crashes} crashes: memory does not grow`,
    async () => {
      const options: Own<CrashOptions> = { warmUp: 1000, crashes, samples: 24 }
      const found = await inNamespace<Own<CrashOptions>, CrashResult>(
        "crashLoops.ts",
        options,
        minutes * 50_000,
      )
      assert.deepStrictEqual(found.reasons, ["exit code 1", "exit code 2", "exit code 3", "exit code 4"])
      assertBounded(found.samples, 512 * 1024)
      record("crash-loops", {
        figures: {
          crashes,
          "heap growth, KiB": Math.round(growth(found.samples, "heapUsed") / 1024),
          "RssAnon growth, KiB": Math.round(growth(found.samples, "rssAnon") / 1024),
          seconds: Math.round(found.seconds),
        },
        curves: curves(found.samples, "crashes"),
      })
    },
    minutes * 60_000,
  )

  it(
    `${probes} probes of each daemon, ${Math.round((probes * 5) / 3600)} h of a node: memory does not grow`,
    async () => {
      const options: Own<IdleOptions> = { warmUp: 500, probes, samples: 24 }
      const found = await inNamespace<Own<IdleOptions>, IdleResult>("idle.ts", options, minutes * 50_000)
      assert.strictEqual(found.passed + found.failed, 2 * (options.warmUp + probes))
      // Connections are cut now and then, and what was under way on them fails.
      assert.isAtMost(found.failed, (options.warmUp + probes) / 20)
      assertBounded(found.samples, 512 * 1024)
      record("idle", {
        figures: {
          "probes of each daemon": probes,
          "failed, for connections that were cut": found.failed,
          "heap growth, KiB": Math.round(growth(found.samples, "heapUsed") / 1024),
          "RssAnon growth, KiB": Math.round(growth(found.samples, "rssAnon") / 1024),
          seconds: Math.round(found.seconds),
        },
        curves: curves(found.samples, "probes"),
      })
    },
    minutes * 60_000,
  )
})
