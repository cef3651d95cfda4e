/**
 * What going down decides, as a pure function: {@link step} takes a machine and
 * what happened and gives the next machine and what is told; {@link work} says
 * what goes on for as long as the machine stays so. `ShutdownCoordinator.ts`
 * does both, and nothing else.
 *
 *              request
 *   (up) ────────────────▶ boot ──▶ before ──▶ stages ──▶ processes ──▶ mounts ──▶ sync ──▶ wait ──▶ reboot
 *                           │         │          ▲                                 ▲          │        ▲
 *    second request:        └─────────┴──────────┘                                 │          └────────┤
 *      hurried              grace periods and deadlines are short from here on     │                   │
 *    third request, or                                                             │                   │
 *    the whole takes        boot, before, stages, processes, mounts ───────────────┘        wait ──────┘
 *    too long: forced
 *
 *   boot       stages that are still coming up are stopped
 *   before     what stages registered to happen first: the kubelet ends its pods
 *   stages     stages are released in reverse: kubelet, containers, containerd, filesystems
 *   processes  whoever is left is ended
 *   mounts     whatever is left is unmounted
 *   sync       sync(2)
 *   wait       after a boot that failed: what `panic=` says
 *   reboot     reboot(2)
 *
 * A phase ends when it is done or when its time is up, and then the next one
 * begins: no phase comes twice, none comes before an earlier one, and what is
 * late is left behind. Nothing keeps a machine from `reboot`, except that
 * `panic=0` waits for somebody.
 */
import type { ShutdownRequest } from "../Shutdown.ts"

export const phases = ["boot", "before", "stages", "processes", "mounts", "sync", "wait", "reboot"] as const

export type Phase = (typeof phases)[number]

/** Each is faster than the one before. */
export type Urgency = "ordered" | "hurried" | "forced"

export interface Machine {
  /** Undefined while nobody has asked. */
  readonly phase: Phase | undefined
  readonly urgency: Urgency
  /** The latest, whose action is taken. */
  readonly request: ShutdownRequest | undefined
  /** When somebody asked last, on the caller's clock. */
  readonly askedAt: number
}

export type Input =
  | { readonly _tag: "Requested"; readonly request: ShutdownRequest }
  | { readonly _tag: "Done"; readonly phase: Phase }
  | { readonly _tag: "TimeIsUp"; readonly phase: Phase; readonly urgency: Urgency }
  | { readonly _tag: "WholeTimeIsUp" }

/** How a phase ended: `cut` by a request that wanted it faster. */
export type Ending = "done" | "late" | "cut"

export type News =
  | { readonly _tag: "Asked"; readonly request: ShutdownRequest; readonly urgency: Urgency }
  | { readonly _tag: "TooLong" }
  | { readonly _tag: "Ended"; readonly phase: Phase; readonly how: Ending }

/** Milliseconds that a phase may take. */
export type Deadlines = Readonly<Record<Phase, number>>

/** What depends on the node. */
export interface Settings {
  /** What the steps of `before` may take, the longest of them. */
  readonly beforeMs: number
  /** What `wait` takes after a boot that failed; Infinity until somebody asks. */
  readonly waitMs: number
}

export const initial: Machine = { phase: undefined, urgency: "ordered", request: undefined, askedAt: 0 }

/** One press of a button may come by two ways, and hands tremble: a request this soon after another is the same. */
export const BOUNCE_MS = 1000

/** What all may take from the end of `before` up to reboot(2), the wait after a failed boot apart. */
export const MARGIN_MS = 120_000

const ordered: Deadlines = {
  boot: 5000,
  before: 0,
  stages: 60_000,
  processes: 20_000,
  mounts: 30_000,
  sync: 30_000,
  wait: 0,
  reboot: 10_000,
}
const hurried: Deadlines = {
  ...ordered,
  boot: 0,
  stages: 15_000,
  processes: 5000,
  mounts: 10_000,
  sync: 10_000,
}
const forced: Deadlines = { ...hurried, sync: 5000 }

/** What the phase may take. */
export const deadline = (settings: Settings, phase: Phase, urgency: Urgency): number => {
  // They have deadlines of their own, and a moment to be told that those are over.
  if (phase === "before") return settings.beforeMs + 1000
  if (phase === "wait") return urgency === "ordered" ? settings.waitMs + 1000 : 0
  return { ordered, hurried, forced }[urgency][phase]
}

const at = (phase: Phase): number => phases.indexOf(phase)

type Result = readonly [Machine, ReadonlyArray<News>]

const end = (machine: Machine, phase: Phase, how: Ending): Result => [
  { ...machine, phase: phases[at(phase) + 1] ?? "reboot" },
  [{ _tag: "Ended", phase, how }],
]

/** Goes to a later phase at once. */
const skipTo = (machine: Machine, to: Phase, told: News): Result => {
  const { phase } = machine
  if (phase === undefined || at(phase) >= at(to)) return [machine, [told]]
  return [{ ...machine, phase: to }, [told, { _tag: "Ended", phase, how: "cut" }]]
}

const hasten = (machine: Machine, told: News): Result => {
  const { phase, urgency } = machine
  if (phase === "wait") return skipTo(machine, "reboot", told)
  return skipTo(machine, urgency === "forced" ? "sync" : "stages", told)
}

/** What becomes of a machine, and what is told of it, in order; `now` in milliseconds of a clock that does not go back. */
export const step = (machine: Machine, input: Input, now: number): Result => {
  const same: Result = [machine, []]
  const { phase } = machine
  switch (input._tag) {
    case "Requested": {
      const { request } = input
      if (phase === undefined)
        return [
          { phase: "boot", urgency: "ordered", request, askedAt: now },
          [{ _tag: "Asked", request, urgency: "ordered" }],
        ]
      if (now - machine.askedAt < BOUNCE_MS) return same
      const urgency = machine.urgency === "ordered" ? "hurried" : "forced"
      return hasten({ ...machine, urgency, request, askedAt: now }, { _tag: "Asked", request, urgency })
    }
    case "Done":
      return input.phase === phase && phase !== "reboot" ? end(machine, phase, "done") : same
    case "TimeIsUp":
      return input.phase === phase && phase !== "reboot" && input.urgency === machine.urgency
        ? end(machine, phase, "late")
        : same
    case "WholeTimeIsUp":
      return phase === undefined || at(phase) >= at("wait") || machine.urgency === "forced"
        ? same
        : hasten({ ...machine, urgency: "forced" }, { _tag: "TooLong" })
  }
}

/** What goes on in this state, and how long it may. */
export const work = (
  settings: Settings,
  { phase, urgency }: Machine,
): { readonly phase: Phase; readonly deadlineMs: number; readonly whole: boolean } | undefined =>
  phase === undefined
    ? undefined
    : {
        phase,
        deadlineMs: deadline(settings, phase, urgency),
        whole: at(phase) >= at("stages") && at(phase) < at("wait") && urgency !== "forced",
      }
