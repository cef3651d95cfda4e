/**
 * containerd and the kubelet, killed at random moments: while they start, when
 * they are up, one of them, both at once. The killing is done by a script in
 * the guest, whose answers come when a burst is over.
 */
import { assert, type Vitest } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { random, record, scaled, seed, soaking } from "../../../../packages/core/test/support/Scale.ts"
import { hello, Node, processes } from "../support.ts"
import { type Death, deathOf, type Kill, match } from "./SoakAccount.ts"

const daemons = ["containerd", "kubelet"] as const
type Daemon = (typeof daemons)[number]

// 1 of 10 with both at once, each burst ending with a hang: see `plan`.
const bursts = scaled(1, 33)

interface Step {
  readonly signal: Kill["signal"]
  /** Seconds from the moment that a new process is seen to the signal. */
  readonly delay: number
}

/** What is done to each daemon in one burst, and whether it begins with both at once. */
interface Burst {
  readonly together: boolean
  readonly steps: Readonly<Record<Daemon, ReadonlyArray<Step>>>
}

const plan = (next: () => number): ReadonlyArray<Burst> => {
  const quick = (): Step => ({
    signal: next() < 0.5 ? "SIGKILL" : "SIGABRT",
    // Half of them while it is starting.
    delay: next() < 0.5 ? next() * 1.5 : 2 + next() * 6,
  })
  const each = (): ReadonlyArray<Step> => [
    { ...quick(), signal: "SIGKILL" },
    { ...quick(), signal: "SIGABRT" },
    ...Array.from({ length: scaled(1, 3) }, quick),
  ]
  return Array.from({ length: bursts }, (_, n) => ({
    together: n % 3 === 0,
    steps: { containerd: each(), kubelet: each() },
  }))
}

// The shell's `read` is a builtin: looking costs the guest no process.
const functions = String.raw`
now() { read -r seconds rest </proc/uptime; echo "$seconds"; }
life() { # NAME: sets pid, start and state of init's child of that name, or empties pid
  pid=
  read -r children </proc/1/task/1/children
  for each in $children; do
    { read -r name <"/proc/$each/comm"; } 2>/dev/null || continue
    [ "$name" = "$1" ] || continue
    { read -r line <"/proc/$each/stat"; } 2>/dev/null || continue
    set -- "$1" ${"$"}{line##*) }
    state=$2 start=${"$"}{21} pid=$each
    return
  done
}
alive() { [ -n "$pid" ] && [ "$state" != Z ] && [ "$state" != X ]; }
fresh() { # NAME KILLED: waits for a process that was not killed yet
  tries=0
  while life "$1"; ! alive || [ "$pid/$start" = "$2" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 3000 ] || { echo "late $1"; return 1; }
    sleep 0.1
  done
}
strike() { # NAME SIGNAL LIFE: kills that very process
  life "$1"
  alive && [ "$pid/$start" = "$3" ] && kill -s "$2" "$pid" && echo "kill $1 $2 $3 $(now)"
}
step() { # NAME SIGNAL SECONDS
  while fresh "$1" "$killed"; do
    mine=$pid/$start
    sleep "$3"
    if strike "$1" "SIG$2" "$mine"; then killed=$mine; return; fi
    echo "gone $1 $mine"
  done
}
`

const short = (signal: string) => signal.slice(3)

/** The script of one burst. `killed` are the processes that were killed before, by daemon. */
const script = (burst: Burst, killed: Readonly<Record<Daemon, string>>): string => {
  const own = (daemon: Daemon) =>
    burst.steps[daemon]
      .map(({ delay, signal }) => `step ${daemon} ${short(signal)} ${delay.toFixed(2)}`)
      .join("\n")
  const together = burst.together
    ? `fresh containerd '${killed.containerd}' && one=$pid/$start
fresh kubelet '${killed.kubelet}' && two=$pid/$start
strike containerd SIGKILL "$one" && first=$one
strike kubelet SIGKILL "$two" && second=$two
`
    : ""
  return `${functions}
first='${killed.containerd}' second='${killed.kubelet}'
${together}
( killed=$first
${own("containerd")}
fresh containerd "$killed" ) &
( killed=$second
${own("kubelet")}
fresh kubelet "$killed" ) &
wait`
}

/** What the pods are made of: shims, and what runs under them, by pid and start; not the timer of the probe's scripts. */
const podProcesses = Effect.map(processes, (all) => {
  const shims = all.filter(({ exe, host }) => host && exe === "/bin/containerd-shim-runc-v2")
  const parents = new Set(shims.map(({ pid }) => pid))
  return [...shims, ...all.filter(({ name, parent }) => parents.has(parent) && name !== "timeout")]
    .map(({ name, pid, start }) => `${name} ${pid} ${start}`)
    .sort()
})

interface Memory {
  readonly rss: number
  readonly anonymous: number
  readonly openFiles: number
}

/** Init's memory in KiB, the least of some moments: garbage comes and goes. */
const memory = Effect.gen(function* () {
  const { lines } = yield* Node
  const seen = yield* lines(
    "for n in 1 2 3 4 5 6; do grep -E '^(VmRSS|RssAnon):' /proc/1/status; sleep 0.5; done; ls /proc/1/fd | wc -l",
  )
  const least = (key: string) =>
    Math.min(...seen.flatMap((line) => (line.startsWith(key) ? [Number(/\d+/.exec(line)?.[0])] : [])))
  return {
    rss: least("VmRSS"),
    anonymous: least("RssAnon"),
    openFiles: Number(seen.at(-1)),
  } satisfies Memory
})

/** Tries until it succeeds, for four minutes: a start may be waiting for its back-off. */
const settled = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: "4 minutes" }))),
    Effect.mapError(
      (cause) => new Error(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`),
    ),
  )

const noZombies = Effect.gen(function* () {
  const { lines } = yield* Node
  const zombies = yield* lines("grep -h '^[0-9]* ([^)]*) Z 1 ' /proc/[0-9]*/stat 2>/dev/null || true")
  if (zombies.length > 0) return yield* Effect.fail(new Error(zombies.join(", ")))
})

export const soak = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect(
    "containerd and the kubelet, killed at random moments, come back each time; nothing else notices",
    () =>
      Effect.gen(function* () {
        const { lines, machine } = yield* Node
        const podsBefore = yield* podProcesses
        const before = machine.events().length
        const kills: Array<Kill> = []
        const killed: Record<Daemon, string> = { containerd: "", kubelet: "" }
        const samples: Array<Memory & { readonly kills: number }> = []
        const started = Date.now()
        const told = (): ReadonlyArray<Death> =>
          machine
            .events()
            .slice(before)
            .flatMap((event) => (event._tag === "KiosError" ? (deathOf(event.message) ?? []) : []))

        const planned = plan(random(seed))
        for (const burst of planned) {
          const said = yield* lines(script(burst, killed), 1500)
          assert.deepStrictEqual(
            said.filter((line) => line.startsWith("late ")),
            [],
          )
          for (const line of said) {
            const [verb, daemon, signal, life, at] = line.split(" ")
            if (verb !== "kill") continue
            const kill = { daemon, signal, life, at: Number(at) } as Kill & { readonly daemon: Daemon }
            kills.push(kill)
            killed[kill.daemon] = kill.life
          }
          yield* settled("the kubelet's health", lines("wget -qO- http://127.0.0.1:10248/healthz"))
          yield* settled("zombies", noZombies)
          samples.push({ ...(yield* memory), kills: kills.length })
          if (soaking) {
            const { anonymous, openFiles, rss } = samples.at(-1) ?? { anonymous: 0, openFiles: 0, rss: 0 }
            console.log(
              `${Math.round((Date.now() - started) / 1000)} s: ${kills.length} kills, ${told().length} ends told, init ${rss} KiB (anonymous ${anonymous}), ${openFiles} open files`,
            )
          }
        }

        const context = `KIOS_SEED=${seed}`
        const account = yield* settled(
          "each kill is told",
          Effect.suspend(() => {
            const account = match(kills, told())
            return account.untold.length === 0
              ? Effect.succeed(account)
              : Effect.fail(new Error(`${context}: ${JSON.stringify(account)}`))
          }),
        )
        assert.deepStrictEqual(account.wrong, [], context)
        for (const daemon of daemons) {
          const own = kills.filter((kill) => kill.daemon === daemon)
          const count = planned.reduce(
            (sum, burst) => sum + burst.steps[daemon].length + (burst.together ? 1 : 0),
            0,
          )
          assert.strictEqual(own.length, count, context)
        }
        assert.deepStrictEqual(yield* podProcesses, podsBefore, "the pods' processes are the same ones")
        yield* hello
        const [first] = samples
        const last = samples.at(-1)
        record("vm-kills", {
          figures: {
            kills: kills.length,
            restarts: told().length,
            "own exits": account.own,
            "wrong ends": account.wrong.length,
            "RSS at the start, KiB": first?.rss ?? 0,
            "RSS at the end, KiB": last?.rss ?? 0,
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
        if (first !== undefined && last !== undefined && soaking)
          assert.isAtMost(last.rss, first.rss * 1.05, `init's RSS, KiB: ${JSON.stringify(samples)}`)
      }),
    scaled(15, 120) * 60_000,
  )
}
