/** Who was killed by what, against what init told: the books of the soak test. */

/** A signal that was sent to a process that was alive. */
export interface Kill {
  readonly daemon: string
  readonly signal: "SIGKILL" | "SIGABRT" | "SIGSTOP"
  /** Pid and start of the process. */
  readonly life: string
  /** Seconds since the guest's kernel started. */
  readonly at: number
}

/** An end that init told. */
export interface Death {
  readonly daemon: string
  readonly reason: string
}

/** Reads the console's `containerd: ended with signal SIGKILL after 812 ms ...`. */
export const deathOf = (message: string): Death | undefined => {
  const found = /^(containerd|kubelet): ended with (.+?) after \d+ ms\b/.exec(message)
  return found === null ? undefined : { daemon: found[1] ?? "", reason: found[2] ?? "" }
}

/** How the end by a signal may be told. Go's runtime makes exit code 2 of a SIGABRT, once it is up. */
const reasons: Readonly<Record<Kill["signal"], ReadonlyArray<string>>> = {
  SIGKILL: ["signal SIGKILL"],
  SIGABRT: ["exit code 2", "signal SIGABRT"],
  SIGSTOP: [],
}

/** The books of one daemon or of several. */
export interface Account {
  /** Kills whose end was not told. */
  readonly untold: ReadonlyArray<Kill>
  /** Ends that nobody caused. */
  readonly wrong: ReadonlyArray<Death>
  /** Ends of the kubelet's own accord: it exits with 1 when it starts while containerd is away. */
  readonly own: number
}

/** Takes kills and ends in their order, daemon by daemon. */
export const match = (kills: ReadonlyArray<Kill>, deaths: ReadonlyArray<Death>): Account => {
  const untold: Array<Kill> = []
  const wrong: Array<Death> = []
  let own = 0
  for (const daemon of new Set([...kills, ...deaths].map((each) => each.daemon))) {
    const pending = kills.filter((kill) => kill.daemon === daemon)
    for (const death of deaths.filter((each) => each.daemon === daemon)) {
      const [kill] = pending
      if (kill !== undefined && reasons[kill.signal].includes(death.reason)) pending.shift()
      else if (daemon === "kubelet" && death.reason === "exit code 1") own++
      else wrong.push(death)
    }
    untold.push(...pending)
  }
  return { untold, wrong, own }
}
