/**
 * One boot, measured.
 */
import * as VmRun from "@kios/distro/vm/VmRun"
import type { VmEvent } from "@kios/distro/vm/Milestones"
import type { VmError } from "@kios/distro/vm/VmError"
import { Data, Duration, Effect } from "effect"
import * as HostLoad from "./HostLoad.ts"

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

/**
 * Seconds by the host's clock. Milestones count from the kernel's start. The
 * kernel's own timestamps would be finer, but a kernel that calibrates its
 * clock in an emulated machine while the host is busy may be wrong by a third.
 */
export interface Sample extends Readonly<Record<Milestone, number>> {
  /** Power-on to the kernel's start. */
  readonly firmware: number
  /** Share of the host's processors, 0 to 1, that other programs took meanwhile; absent where the host does not tell. */
  readonly others?: number
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
  /** A guest that resets has failed: it does not boot again until the time is over. */
  readonly noReboot?: boolean
}

/** How QEMU is started for an image. */
export const options = (efi: string, machine: Machine) => ({
  efi,
  boot: "kernel" as const,
  memoryMiB: machine.memoryMiB,
  cpus: machine.cpus,
  network: "user" as const,
  accelerator: machine.accelerator,
  ...(machine.noReboot === undefined ? {} : { noReboot: machine.noReboot }),
})

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
 * The kernel's start on the host's clock: the last word of its EFI stub, which
 * then leaves the firmware's services, unpacks the kernel and enters it.
 * (`[    0.000000] Linux version` arrives a second later, when there is a console.)
 */
export const kernelStart = (events: ReadonlyArray<VmEvent>): bigint | undefined => {
  const banner = events.findIndex((event) => event._tag === "KernelStarted")
  const before = banner < 0 ? [] : events.slice(0, banner)
  const stub = before.findLast((event) => event._tag === "Firmware" && event.message.startsWith("EFI stub: "))
  return stub?.at ?? events[banner]?.at
}

/** The sample of a run's events, or what is missing of it. */
export const fromEvents = (
  events: ReadonlyArray<VmEvent>,
  startedAt: bigint,
  pod: string,
): Sample | { readonly missing: ReadonlyArray<string> } => {
  const start = kernelStart(events)
  if (start === undefined) return { missing: ["the kernel's start"] }
  const seconds = (from: bigint, to: bigint) => Number(to - from) / 1e9
  const found = milestones.map((name) => {
    const event = events.find(
      (one) =>
        one._tag === "Milestone" &&
        one.name === name &&
        (name !== "pod-running" || one.fields["pod"] === pod),
    )
    return { name, seconds: event === undefined ? undefined : seconds(start, event.at) }
  })
  const missing = found.flatMap((one) => (one.seconds === undefined ? [`milestone ${one.name}`] : []))
  if (missing.length > 0) return { missing }
  return {
    firmware: seconds(startedAt, start),
    ...(Object.fromEntries(found.map((one) => [one.name, one.seconds])) as Record<Milestone, number>),
  }
}

/**
 * Boots an EFI in QEMU until the pod runs, and switches it off.
 *
 * @param onMilestone is told each milestone as it happens, seconds since power-on.
 */
export const measure = (
  efi: string,
  machine: Machine,
  onMilestone: (name: string, seconds: number) => void = () => {},
): Effect.Effect<Sample, VmError | BootFailed> =>
  Effect.gen(function* () {
    let startedAt = 0n
    let pid = 0
    let before: HostLoad.Reading | undefined
    let after: HostLoad.Reading | undefined
    const result = yield* VmRun.run(
      {
        ...options(efi, machine),
        until: { milestones: [...milestones], pods: [machine.pod] },
        timeout: Duration.seconds(machine.timeoutSeconds),
      },
      (progress) =>
        Effect.sync(() => {
          if (progress._tag === "Started") {
            startedAt = progress.vm.startedAt
            pid = progress.vm.pid
            before = HostLoad.read(pid)
          }
          if (progress._tag !== "Event" || progress.event._tag !== "Milestone") return
          after = HostLoad.read(pid) ?? after
          onMilestone(progress.event.name, progress.seconds)
        }),
    )
    if (!result.reached) {
      const reason = result.reason ?? `missing: ${result.missing.join(", ")}`
      return yield* new BootFailed({ efi, reason, tail: result.tail.slice(-15) })
    }
    const sample = fromEvents(result.events, startedAt, machine.pod)
    if ("missing" in sample) {
      const reason = `on its console there was no ${sample.missing.join(", ")}`
      return yield* new BootFailed({ efi, reason, tail: result.tail })
    }
    const others = HostLoad.others(before, after)
    return { ...sample, ...(others === undefined ? {} : { others }) }
  })
