/** Who was killed by what, against what init tells in its events: the books of the soak test. */
import type { EventRecord, Recorded } from "@kios/core/Events"

/** What is sent. */
export type Sent = "SIGKILL" | "SIGABRT" | "SIGSTOP"

/** A signal that was sent to a process that was alive. */
export interface Kill {
  readonly daemon: string
  readonly signal: Sent
  readonly pid: number
  /** Milliseconds since the guest's kernel started. */
  readonly atMs: number
}

type Ended = Extract<Recorded, { readonly kind: "process-ended" }>

/** Whether a death is told as what the signal makes of a process. */
const tells: Readonly<Record<Sent, (death: Ended) => boolean>> = {
  SIGKILL: ({ reason, signal }) => signal === "SIGKILL" && reason === "signal SIGKILL",
  // Go's runtime makes exit code 2 of it, once it is up.
  SIGABRT: ({ exitCode, signal }) => exitCode === 2 || signal === "SIGABRT",
  // What hangs is ended by init: found by its probes, or, when it was not ready yet, by the time a start may take.
  SIGSTOP: ({ reason }) => /^(?:unresponsive: |not ready within )/.test(reason),
}

/** The books of all daemons. */
export interface Account {
  /** Kills whose process's end was not told. */
  readonly untold: ReadonlyArray<Kill>
  /** Ends that are not told as what they were, or that nobody caused. */
  readonly wrong: ReadonlyArray<string>
  /** Ends of the kubelet's own accord: it exits when it starts while containerd is away. */
  readonly own: number
  /** Ends by init of processes that answered too late: on a machine with little time for them. */
  readonly slow: number
  /** How long it took to end a process after SIGSTOP, ms. */
  readonly hangs: ReadonlyArray<number>
}

// An error at the start, and klog.Fatal.
const ownCodes: ReadonlyArray<number | null> = [1, 255]

const describe = (death: Ended): string =>
  `${death.process} run ${death.run}, pid ${death.pid}: ${death.reason} (exit code ${death.exitCode}, signal ${death.signal})`

/** Matches each end with the kill of the same process. */
export const match = (kills: ReadonlyArray<Kill>, events: ReadonlyArray<Recorded>): Account => {
  const pending = [...kills]
  const wrong: Array<string> = []
  const hangs: Array<number> = []
  let own = 0
  let slow = 0
  for (const event of events) {
    if (event.kind !== "process-ended") continue
    const at = pending.findIndex(({ daemon, pid }) => daemon === event.process && pid === event.pid)
    const [kill] = at < 0 ? [] : pending.splice(at, 1)
    if (kill === undefined) {
      if (tells.SIGSTOP(event)) slow++
      else if (event.process === "kubelet" && ownCodes.includes(event.exitCode)) own++
      else wrong.push(`${describe(event)}, and nobody killed it`)
    } else if (!tells[kill.signal](event)) wrong.push(`${describe(event)}, killed by ${kill.signal}`)
    else if (kill.signal === "SIGSTOP") hangs.push(event.atMs - kill.atMs)
  }
  return { untold: pending, wrong, own, slow, hangs }
}

/** Puts parts of the events together that overlap, each as /run/kios/events.json was at a time; fails when some are missing in between. */
export const append = (known: ReadonlyArray<Recorded>, part: EventRecord): ReadonlyArray<Recorded> => {
  const last = known.at(-1)?.sequence ?? (part.events[0]?.sequence ?? 1) - 1
  const fresh = part.events.filter(({ sequence }) => sequence > last)
  for (const [index, { sequence }] of fresh.entries())
    if (sequence !== last + 1 + index)
      throw new Error(`event ${last + 1 + index} is missing: the next that is kept is ${sequence}`)
  return [...known, ...fresh]
}
