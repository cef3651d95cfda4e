/**
 * One boot, measured.
 */
import * as VmRun from "@kios/distro/vm/VmRun"
import type { VmEvent } from "@kios/distro/vm/Milestones"
import type { VmError } from "@kios/distro/vm/VmError"
import { Data, Duration, Effect } from "effect"

/** What is measured, in the order in which it happens. */
export const milestones = [
  "init",
  "containerd-exec",
  "containerd-ready",
  "kubelet-exec",
  "kubelet-healthy",
  "pod-running",
] as const

/** One of {@link milestones}. */
export type Milestone = (typeof milestones)[number]

/** Seconds. Milestones count from the kernel's start, by the kernel's clock. */
export interface Sample extends Readonly<Record<Milestone, number>> {
  /** Power-on to the kernel's start, by the host's clock. */
  readonly firmware: number
}

/** How the machine is made; the same for every image of a comparison. */
export interface Machine {
  readonly memoryMiB: number
  readonly cpus: number
  /** The pod that is waited for, `namespace/name`. */
  readonly pod: string
  /** One boot, seconds. */
  readonly timeoutSeconds: number
  readonly accelerator: "auto" | "tcg"
}

/** A boot that did not reach the pod. */
export class BootFailed extends Data.TaggedError("BootFailed")<{
  readonly efi: string
  readonly reason: string
  /** The console's last lines. */
  readonly tail: ReadonlyArray<string>
}> {
  override get message(): string {
    return `${this.efi} did not boot to the pod: ${this.reason}\n${this.tail.map((line) => `  | ${line}`).join("\n")}`
  }
}

/**
 * Seconds from power-on to the kernel's start. The kernel's first lines are
 * printed late, when there is a console, so that their arrival says nothing;
 * of all lines, the one that arrived soonest after its timestamp tells.
 */
export const firmwareSeconds = (events: ReadonlyArray<VmEvent>, startedAt: bigint): number | undefined => {
  const offsets = events.flatMap((event) =>
    event.kernelSeconds === undefined ? [] : [Number(event.at - startedAt) / 1e9 - event.kernelSeconds],
  )
  return offsets.length === 0 ? undefined : Math.max(0, Math.min(...offsets))
}

/** The sample of a run's events, or what is missing of it. */
export const fromEvents = (
  events: ReadonlyArray<VmEvent>,
  startedAt: bigint,
  pod: string,
): Sample | { readonly missing: ReadonlyArray<string> } => {
  const at = (name: Milestone) =>
    events.find(
      (event) =>
        event._tag === "Milestone" &&
        event.name === name &&
        (name !== "pod-running" || event.fields["pod"] === pod),
    )?.kernelSeconds
  const found = milestones.map((name) => [name, at(name)] as const)
  const firmware = firmwareSeconds(events, startedAt)
  const missing = found.flatMap(([name, seconds]) => (seconds === undefined ? [`milestone ${name}`] : []))
  if (missing.length > 0 || firmware === undefined) return { missing }
  return { firmware, ...(Object.fromEntries(found) as Record<Milestone, number>) }
}

/**
 * Boots an EFI in QEMU until the pod runs, and switches it off.
 *
 * @param onMilestone is told each milestone as it happens, seconds since the kernel's start.
 */
export const measure = (
  efi: string,
  machine: Machine,
  onMilestone: (name: string, seconds: number) => void = () => {},
): Effect.Effect<Sample, VmError | BootFailed> =>
  Effect.gen(function* () {
    let startedAt = 0n
    const result = yield* VmRun.run(
      {
        efi,
        boot: "kernel",
        memoryMiB: machine.memoryMiB,
        cpus: machine.cpus,
        network: "user",
        accelerator: machine.accelerator,
        until: { milestones: [...milestones], pods: [machine.pod] },
        timeout: Duration.seconds(machine.timeoutSeconds),
      },
      (progress) =>
        Effect.sync(() => {
          if (progress._tag === "Started") startedAt = progress.vm.startedAt
          if (progress._tag !== "Event" || progress.event._tag !== "Milestone") return
          onMilestone(progress.event.name, progress.event.kernelSeconds ?? progress.seconds)
        }),
    )
    if (!result.reached) {
      const reason = result.reason ?? `missing: ${result.missing.join(", ")}`
      return yield* new BootFailed({ efi, reason, tail: result.tail.slice(-15) })
    }
    const sample = fromEvents(result.events, startedAt, machine.pod)
    return "missing" in sample
      ? yield* new BootFailed({
          efi,
          reason: `no timestamp for ${sample.missing.join(", ")}`,
          tail: result.tail,
        })
      : sample
  })
