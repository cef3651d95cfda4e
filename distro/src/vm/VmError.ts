/**
 * What can go wrong between the developer's machine and a virtual machine.
 *
 * Every error carries a `message` that says what was tried, what happened and
 * what to do about it; the other fields are for programs.
 */
import { Data } from "effect"

/**
 * A program or file that the host lacks; `install` is the command that brings it.
 *
 * @example
 * ```ts
 * import * as VmRun from "@kios/distro/vm/VmRun"
 * import { Effect } from "effect"
 *
 * const run = VmRun.run({ efi: "kios.efi", boot: "kernel", until: { milestones: ["boot-complete"] } }).pipe(
 *   Effect.catchTag("VmRequirementMissing", (error) => Effect.logError(`first: ${error.install}`)),
 * )
 * ```
 */
export class VmRequirementMissing extends Data.TaggedError("VmRequirementMissing")<{
  /** What is missing, e.g. `qemu-system-x86_64`. */
  readonly what: string
  /** Where it was looked for. */
  readonly searched: ReadonlyArray<string>
  /** The command that installs it on Debian and Ubuntu. */
  readonly install: string
}> {
  override get message(): string {
    return `${this.what} was not found (looked at ${this.searched.join(", ")}). Install it with: ${this.install}`
  }
}

/**
 * The options given make no virtual machine (bad port, missing disk, ...).
 *
 * @example
 * ```ts
 * import { VmOptionsInvalid } from "@kios/distro/vm/VmError"
 *
 * const text = new VmOptionsInvalid({ option: "memoryMiB", reason: "want 128 or more, got 1" }).message
 * ```
 */
export class VmOptionsInvalid extends Data.TaggedError("VmOptionsInvalid")<{
  readonly option: string
  readonly reason: string
}> {
  override get message(): string {
    return `the virtual machine cannot be started: ${this.option}: ${this.reason}`
  }
}

/**
 * A step on the host that prepares the machine failed: a directory, the firmware's variables, the ESP disk.
 *
 * @example
 * ```ts
 * import { VmPrepareFailed } from "@kios/distro/vm/VmError"
 *
 * const text = new VmPrepareFailed({ step: "copying the firmware", cause: new Error("ENOSPC") }).message
 * ```
 */
export class VmPrepareFailed extends Data.TaggedError("VmPrepareFailed")<{
  readonly step: string
  readonly cause: unknown
}> {
  override get message(): string {
    const reason = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `preparing the virtual machine failed while ${this.step}: ${reason}`
  }
}

/**
 * QEMU ended when it should have run.
 *
 * @example
 * ```ts
 * import * as Qemu from "@kios/distro/vm/Qemu"
 * import { Effect } from "effect"
 *
 * const start = Qemu.start({ efi: "kios.efi", boot: "kernel" }).pipe(
 *   Effect.tapError((error) => (error._tag === "QemuExited" ? Effect.logError(error.stderr) : Effect.void)),
 * )
 * ```
 */
export class QemuExited extends Data.TaggedError("QemuExited")<{
  readonly during: string
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** The end of QEMU's standard error. */
  readonly stderr: string
  readonly command: ReadonlyArray<string>
}> {
  override get message(): string {
    const how = this.signal === null ? `with exit code ${this.code}` : `by signal ${this.signal}`
    const said = this.stderr.trim() === "" ? "without a word on stderr" : `saying: ${this.stderr.trim()}`
    return `QEMU ended ${how} while ${this.during}, ${said}`
  }
}

/**
 * The machine protocol: QEMU did not answer, or answered with an error.
 *
 * @example
 * ```ts
 * import type { VmError } from "@kios/distro/vm/VmError"
 *
 * const isTimeout = (error: VmError) => error._tag === "QmpError" && error.reason === "timeout"
 * ```
 */
export class QmpError extends Data.TaggedError("QmpError")<{
  readonly operation: string
  /** `connect`, `closed` and `timeout` are about the socket; `refused` is QEMU's own error. */
  readonly reason: "connect" | "closed" | "timeout" | "refused"
  readonly detail: string
  /** QEMU's error class, when `reason` is `refused`. */
  readonly errorClass?: string
}> {
  override get message(): string {
    const refused = this.errorClass === undefined ? "" : ` (${this.errorClass})`
    return `QMP ${this.operation} failed (${this.reason}): ${this.detail}${refused}`
  }
}

/**
 * A command in the guest could not be run or its answer did not come.
 *
 * @example
 * ```ts
 * import type { Probe } from "@kios/distro/vm/Probe"
 * import { Effect } from "effect"
 *
 * const uptime = (probe: Probe) =>
 *   probe.exec("cat /proc/uptime", { timeout: "5 seconds" }).pipe(
 *     Effect.map(({ stdout }) => stdout),
 *     Effect.catchTag("ProbeError", (error) => Effect.succeed(error.message)),
 *   )
 * ```
 */
export class ProbeError extends Data.TaggedError("ProbeError")<{
  readonly operation: string
  /**
   * `connect`: nobody serves the port on the host; `timeout`: the guest did not
   * answer; `guest-timeout`: the guest stopped the script at its deadline;
   * `closed`: the machine went away; `protocol`: an answer that makes no sense;
   * `too-long`: the script is longer than the port accepts.
   */
  readonly reason: "connect" | "timeout" | "guest-timeout" | "closed" | "protocol" | "too-long"
  readonly detail: string
}> {
  override get message(): string {
    return `probe: ${this.operation} failed (${this.reason}): ${this.detail}`
  }
}

/** Everything that running a virtual machine fails with. */
export type VmError =
  | VmRequirementMissing
  | VmOptionsInvalid
  | VmPrepareFailed
  | QemuExited
  | QmpError
  | ProbeError
