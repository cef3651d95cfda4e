/**
 * containerd and the kubelet, killed at random moments: while they start, when
 * they are up, one of them, both at once, by signals that end them and by one
 * that makes them hang.
 */
import type { EventRecord, Recorded } from "@kios/core/Events"
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { random, record, scaled, seed, soaking } from "../../../../packages/core/test/support/Scale.ts"
import { Node, processes } from "../support.ts"
import { append, type Kill, match } from "./SoakAccount.ts"
import { type Daemon, daemons, killsOf, type Length, plan, script } from "./SoakScript.ts"

const length = scaled<Length>({ bursts: 1, quick: 2, calm: 0 }, { bursts: 25, quick: 7, calm: 45 })
// A burst with a start that hangs: minutes until it is given up, and the back-off.
const burstSeconds = 1500

/** What the pods are made of: shims, and what runs under them, by pid and start; not the timer of the probe's scripts. */
const podProcesses = Effect.map(processes, (all) => {
  const shims = all.filter(({ exe, host }) => host && exe === "/bin/containerd-shim-runc-v2")
  const parents = new Set(shims.map(({ pid }) => pid))
  return [...shims, ...all.filter(({ name, parent }) => parents.has(parent) && name !== "timeout")]
    .map(({ name, pid, start }) => `${name} ${pid} ${start}`)
    .sort()
})

interface Memory {
  readonly kills: number
  readonly rss: number
  readonly anonymous: number
  readonly openFiles: number
}

/**
 * Init's memory in KiB, the least of `readings` half a second apart: garbage comes and goes. After half a minute
 * without an event init gives back what it does not need.
 */
const memory = Effect.fnUntraced(function* (
  kills: number,
  readings: number,
): Effect.fn.Return<Memory, Error, Node> {
  const { lines } = yield* Node
  const seen = yield* lines(
    `for n in $(seq ${readings}); do grep -E '^(VmRSS|RssAnon):' /proc/1/status; sleep 0.5; done; ls /proc/1/fd | wc -l`,
    600,
  )
  const least = (key: string) =>
    Math.min(...seen.flatMap((line) => (line.startsWith(key) ? [Number(/\d+/.exec(line)?.[0])] : [])))
  return { kills, rss: least("VmRSS"), anonymous: least("RssAnon"), openFiles: Number(seen.at(-1)) }
})

/** Tries until it succeeds, for some minutes: a start may be waiting for its back-off. */
const settled = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: "6 minutes" }))),
    Effect.mapError(
      (cause) => new Error(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`),
    ),
  )

/** Init's events as the file has them now. */
const readEvents = Effect.gen(function* () {
  const { lines } = yield* Node
  return JSON.parse((yield* lines("cat /host/run/kios/events.json")).join("\n")) as EventRecord
})

const healthy = Effect.gen(function* () {
  const { lines } = yield* Node
  yield* lines("wget -qO- http://127.0.0.1:10248/healthz")
  const { events } = yield* readEvents
  for (const daemon of daemons) {
    const last = events.findLast((event) => "process" in event && event.process === daemon)
    if (last?.kind !== "process-ready")
      return yield* Effect.fail(new Error(`${daemon}: ${JSON.stringify(last)}`))
  }
})

const noZombies = Effect.gen(function* () {
  const { lines } = yield* Node
  const zombies = yield* lines("grep -h '^[0-9]* ([^)]*) Z 1 ' /proc/[0-9]*/stat 2>/dev/null || true")
  if (zombies.length > 0) return yield* Effect.fail(new Error(zombies.join(", ")))
})

const median = (values: ReadonlyArray<number>) =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** Hands over what is known so far: a soak that is cut short has shown something as well. */
const publish = (
  samples: ReadonlyArray<Memory>,
  kills: ReadonlyArray<Kill>,
  events: ReadonlyArray<Recorded>,
  started: number,
) => {
  const [first] = samples
  const last = samples.at(-1)
  const { hangs, own, slow, untold, wrong } = match(kills, events)
  const bySignal = (daemon: Daemon) =>
    (["SIGKILL", "SIGABRT", "SIGSTOP"] as const)
      .map((signal) => kills.filter((kill) => kill.daemon === daemon && kill.signal === signal).length)
      .join(" + ")
  record("node-kills", {
    figures: {
      "containerd: KILL + ABRT + STOP": bySignal("containerd"),
      "kubelet: KILL + ABRT + STOP": bySignal("kubelet"),
      "ends told": events.filter(({ kind }) => kind === "process-ended").length,
      "of those of its own accord": own,
      "of those for slowness": slow,
      "ends not told": untold.length,
      "ends told wrongly": wrong.length,
      "a hang ended after, s": Math.round(median(hangs) / 100) / 10,
      "RSS at the start, KiB": first?.rss ?? 0,
      "RSS at the end, KiB": last?.rss ?? 0,
      "anonymous at the start, KiB": first?.anonymous ?? 0,
      "anonymous at the end, KiB": last?.anonymous ?? 0,
      minutes: Math.round((Date.now() - started) / 60_000),
      seed,
    },
    curves: [
      {
        title: "init's RSS on the node",
        x: "kills",
        y: "MiB",
        points: samples.map(({ kills, rss }): [number, number] => [kills, rss / 1024]),
      },
    ],
  })
}

export const soak = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect(
    "containerd and the kubelet, killed at random moments, come back each time; nothing else notices",
    () =>
      Effect.gen(function* () {
        const { lines } = yield* Node
        const pods = yield* podProcesses
        yield* settled("both are up", healthy)
        const atStart = yield* readEvents
        // What happened before is not ours to account for.
        let events: ReadonlyArray<Recorded> = atStart.events.slice(-1)
        const kills: Array<Kill & { readonly daemon: Daemon }> = []
        const killed: Record<Daemon, string> = { containerd: "", kubelet: "" }
        const samples: Array<Memory> = []
        const started = Date.now()
        const bursts = plan(length, random(seed))

        for (const [index, burst] of bursts.entries()) {
          const said = yield* lines(script(burst, killed), burstSeconds)
          assert.deepStrictEqual(
            said.filter((line) => line.startsWith("late ")),
            [],
            `KIOS_SEED=${seed}`,
          )
          for (const line of said) {
            const [verb, daemon, signal, life = "", at] = line.split(" ")
            if (verb !== "kill") continue
            const kill = { daemon, signal, pid: Number.parseInt(life, 10), atMs: Number(at) * 1000 }
            kills.push(kill as (typeof kills)[number])
            killed[daemon as Daemon] = life
          }
          yield* settled("both are up again", healthy)
          yield* settled("no zombies", noZombies)
          events = append(events, yield* readEvents)
          // A soak takes the time to see what is left when it is quiet: at its two ends and between.
          const quiet = soaking && (index % 6 === 0 || index === bursts.length - 1)
          const now = yield* memory(kills.length, quiet ? 120 : 6)
          samples.push(now)
          publish(samples, kills, events.slice(1), started)
          if (soaking)
            console.log(
              `${Math.round((Date.now() - started) / 1000)} s: ${kills.length} kills, init ${now.rss} KiB (anonymous ${now.anonymous}), ${now.openFiles} open files, ${JSON.stringify({ ...match(kills, events.slice(1)), hangs: undefined })}`,
            )
        }

        const context = `KIOS_SEED=${seed}, kills: ${JSON.stringify(kills)}`
        const atEnd = yield* readEvents
        events = append(events, atEnd)
        const account = match(kills, events.slice(1))
        assert.deepStrictEqual(account.wrong, [], context)
        assert.deepStrictEqual(account.untold, [], context)
        // On a machine that has nothing else to do.
        if (soaking) assert.strictEqual(account.slow, 0, context)
        for (const daemon of daemons) {
          const own = kills.filter((kill) => kill.daemon === daemon)
          assert.strictEqual(own.length, killsOf(bursts, daemon), context)
          const ends = events
            .slice(1)
            .filter((event) => event.kind === "process-ended" && event.process === daemon).length
          const of = ({ processes }: EventRecord) => {
            const {
              deaths = 0,
              failedStarts = 0,
              starts = 0,
            } = processes.find((each) => each.process === daemon) ?? {}
            return { starts, deaths, failedStarts }
          }
          const [then, now] = [of(atStart), of(atEnd)]
          assert.deepStrictEqual(
            {
              starts: now.starts - then.starts,
              deaths: now.deaths - then.deaths,
              failedStarts: now.failedStarts - then.failedStarts,
            },
            { starts: ends, deaths: ends, failedStarts: 0 },
            context,
          )
        }
        assert.deepStrictEqual(yield* podProcesses, pods, "the pods' processes are the same ones")
        yield* settled("the sample pod answers", lines("wget -qO- http://127.0.0.1:8080/"))

        const [first] = samples
        const last = samples.at(-1)
        if (first === undefined || last === undefined) return assert.fail("no samples")
        assert.isAtMost(last.openFiles, first.openFiles + 8, "init's open files")
        if (soaking)
          assert.isAtMost(last.rss, first.rss * 1.05, `init's RSS, KiB: ${JSON.stringify(samples)}`)
      }),
    scaled(25, 240) * 60_000,
  )
}
