/**
 * What is to be killed when, and the shell script that does it in the guest: a
 * signal has to come at its moment, and from outside each question takes longer
 * than containerd's start.
 */
import type { Sent } from "./SoakAccount.ts"

export const daemons = ["containerd", "kubelet"] as const
export type Daemon = (typeof daemons)[number]

/** One kill of the next life of a daemon. */
export interface Step {
  readonly signal: Sent
  /** From when `delay` counts: the process is there, or init has told that it is ready. */
  readonly from: "seen" | "ready"
  /** Seconds. */
  readonly delay: number
}

/** What is done to each daemon, both at the same time; it may begin with both dying at the same moment. */
export interface Burst {
  readonly together: boolean
  readonly steps: Readonly<Record<Daemon, ReadonlyArray<Step>>>
}

/** How long a soak is. */
export interface Length {
  readonly bursts: number
  /** Kills in a burst by SIGKILL and SIGABRT, 2 or more; one by SIGSTOP follows. */
  readonly quick: number
  /** Seconds for which a daemon is left alone before SIGSTOP, at the least. Its deaths are forgotten after a minute of being up, and a hang takes some of that to be found. */
  readonly calm: number
}

/** A plan by `next`, which gives numbers from 0 to 1. */
export const plan = ({ bursts, calm, quick }: Length, next: () => number): ReadonlyArray<Burst> => {
  const kill = (signal: Sent): Step =>
    // Half of them while it is starting.
    next() < 0.5
      ? { signal, from: "seen", delay: next() * 2 }
      : { signal, from: "ready", delay: next() ** 2 * 10 }
  const each = (): ReadonlyArray<Step> => {
    const signals = Array.from({ length: quick }, (_, n): Sent => (n % 2 === 0 ? "SIGKILL" : "SIGABRT"))
    // A start that never ends takes minutes to be given up: few of those.
    const early = bursts > 1 && next() < 0.06
    const hang: Step = early
      ? { signal: "SIGSTOP", from: "seen", delay: next() }
      : { signal: "SIGSTOP", from: "ready", delay: calm + next() * 8 }
    return [
      ...signals
        .map((signal) => ({ signal, at: next() }))
        .sort((a, b) => a.at - b.at)
        .map(({ signal }) => kill(signal)),
      hang,
    ]
  }
  return Array.from({ length: bursts }, (_, n) => ({
    together: n % 3 === 0,
    steps: { containerd: each(), kubelet: each() },
  }))
}

/** How many kills of a daemon a plan has. */
export const killsOf = (bursts: ReadonlyArray<Burst>, daemon: Daemon): number =>
  bursts.reduce((sum, { steps, together }) => sum + steps[daemon].length + (together ? 1 : 0), 0)

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
ready() { # PID: whether init has told that it is
  grep -A 3 '"kind": "process-ready"' /host/run/kios/events.json | grep -q "\"pid\": $1,"
}
strike() { # NAME SIGNAL LIFE: kills that very process
  life "$1"
  alive && [ "$pid/$start" = "$3" ] && kill -s "$2" "$pid" && echo "kill $1 $2 $3 $(now)"
}
step() { # NAME SIGNAL FROM SECONDS
  while fresh "$1" "$killed"; do
    mine=$pid/$start
    while [ "$3" = ready ] && alive && [ "$pid/$start" = "$mine" ] && ! ready "$pid"; do sleep 0.5; life "$1"; done
    sleep "$4"
    if strike "$1" "$2" "$mine"; then killed=$mine; return; fi
    echo "gone $1 $mine"
  done
}
`

/** The script of one burst. `killed` are the processes that were killed last, by daemon, as `PID/START`. */
export const script = (burst: Burst, killed: Readonly<Record<Daemon, string>>): string => {
  const own = (daemon: Daemon) =>
    burst.steps[daemon]
      .map(({ delay, from, signal }) => `step ${daemon} ${signal} ${from} ${delay.toFixed(2)}`)
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
