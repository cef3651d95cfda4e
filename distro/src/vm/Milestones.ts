/**
 * What the lines of a console mean: firmware, kernel and init as typed events.
 *
 * Init reports through `/dev/kmsg`, so that a line reads `[   12.345678] kios: ...`:
 *
 * ```text
 * kios: milestone NAME [key=value ...]        pod-running pod=default/hello
 * kios: stage NAME up ms=12
 * kios: stage NAME failed ms=12 reason="..."
 * kios: stage NAME skipped reason="..."
 * kios: boot-failed stage=NAME reason="..."
 * kios: error kubelet: manifest-error file=... reason="..."
 * kios: error ...      kios: warn ...
 * ```
 *
 * Values with spaces are JSON strings. A `kios:` line of no such form is a
 * {@link KiosMessage}, never an error: a newer init may say more than we know.
 */
import type { Line } from "./Console.ts"

/** Where and when an event was seen. */
export interface Seen {
  /** The console line it was read from ({@link Line.index}). */
  readonly line: number
  /** Arrival on the host's monotonic clock, ns. */
  readonly at: bigint
  /** The kernel's timestamp, seconds since kernel start, when the line has one. */
  readonly kernelSeconds?: number
}

/** `key=value` pairs of a line of init. */
export type Fields = Readonly<Record<string, string>>

/** What a line meant. */
export type Meaning =
  /** The firmware or the EFI stub does something worth showing. */
  | { readonly _tag: "Firmware"; readonly message: string }
  /** The firmware or the EFI stub reports an error. */
  | { readonly _tag: "FirmwareError"; readonly message: string; readonly memory: boolean }
  /** The firmware found nothing it could boot and opened its own shell or menu. */
  | { readonly _tag: "FirmwareShell"; readonly message: string }
  /** The kernel's first line; `version` when it is the banner. */
  | { readonly _tag: "KernelStarted"; readonly version?: string }
  /** The kernel starts init. */
  | { readonly _tag: "InitStarted"; readonly path: string }
  | { readonly _tag: "Milestone"; readonly name: string; readonly fields: Fields }
  | { readonly _tag: "StageUp"; readonly stage: string; readonly ms: number }
  | { readonly _tag: "StageFailed"; readonly stage: string; readonly ms: number; readonly reason: string }
  | { readonly _tag: "StageSkipped"; readonly stage: string; readonly reason: string }
  | { readonly _tag: "BootFailed"; readonly stage: string; readonly reason: string }
  | { readonly _tag: "ManifestError"; readonly file: string; readonly reason: string }
  | { readonly _tag: "KiosError"; readonly message: string }
  | { readonly _tag: "KiosWarning"; readonly message: string }
  /** Anything else that init says. */
  | { readonly _tag: "KiosMessage"; readonly message: string }
  | { readonly _tag: "KernelPanic"; readonly reason: string }
  /** An oops, a BUG or a double fault: the kernel may go on, but is not well. */
  | { readonly _tag: "KernelFault"; readonly message: string }
  /** The kernel could not unpack the initramfs. */
  | { readonly _tag: "InitramfsFailed"; readonly reason: string }
  /** The kernel killed a process for want of memory. */
  | { readonly _tag: "OutOfMemory"; readonly process: string; readonly pid: number }
  /** The kernel leaves: `power-off`, `restart` or `halt`. */
  | { readonly _tag: "SystemStopping"; readonly action: "power-off" | "restart" | "halt" }

/** A line's meaning, with where and when it was seen. */
export type VmEvent = Meaning & Seen

/** Names of milestones and stages: kebab-case. */
const name = /^[a-z0-9][a-z0-9-]*$/

const pair = /\s*([A-Za-z][A-Za-z0-9_.-]*)=("(?:[^"\\]|\\.)*"|[^\s"]\S*|(?=\s|$))/y

/**
 * Reads `key=value key="JSON string"` from `text`; stops at the first thing
 * that is none. A repeated key keeps its last value.
 *
 * @example
 * ```ts
 * import { parseFields } from "@kios/distro/vm/Milestones"
 *
 * parseFields('ms=12 reason="no such device"') // { ms: "12", reason: "no such device" }
 * ```
 */
export const parseFields = (text: string): Fields => {
  const fields: Record<string, string> = Object.create(null) as Record<string, string>
  pair.lastIndex = 0
  for (let match = pair.exec(text); match !== null; match = pair.exec(text)) {
    const [, key = "", value = ""] = match
    fields[key] = value.startsWith('"') ? unquote(value) : value
  }
  return { ...fields }
}

const unquote = (quoted: string): string => {
  try {
    return String(JSON.parse(quoted))
  } catch {
    return quoted.slice(1, -1) // e.g. a raw control character inside
  }
}

/** What follows `kios: `. */
const parseKios = (text: string): Meaning => {
  const [verb = "", subject = ""] = text.split(/\s+/, 2)
  const rest = text.slice(verb.length).trimStart()
  switch (verb) {
    case "milestone":
      if (name.test(subject))
        return { _tag: "Milestone", name: subject, fields: parseFields(rest.slice(subject.length)) }
      break
    case "stage": {
      const outcome = /^([a-z0-9][a-z0-9-]*)\s+(up|failed|skipped)(?=\s|$)/.exec(rest)
      if (outcome === null) break
      const [matched, stage = "", what] = outcome
      const fields = parseFields(rest.slice(matched.length))
      const ms = /^\d+(\.\d+)?$/.test(fields["ms"] ?? "") ? Number(fields["ms"]) : 0
      const reason = fields["reason"] ?? "no reason given"
      if (what === "up") return { _tag: "StageUp", stage, ms }
      if (what === "failed") return { _tag: "StageFailed", stage, ms, reason }
      return { _tag: "StageSkipped", stage, reason }
    }
    case "boot-failed": {
      const fields = parseFields(rest)
      return {
        _tag: "BootFailed",
        stage: fields["stage"] ?? "unknown",
        reason: fields["reason"] ?? (rest === "" ? "no reason given" : rest),
      }
    }
    case "manifest-error": {
      const fields = parseFields(rest)
      return {
        _tag: "ManifestError",
        file: fields["file"] ?? "unknown",
        reason: fields["reason"] ?? (rest === "" ? "no reason given" : rest),
      }
    }
    case "error":
    case "error:":
      // A stage's error with a form of its own: `error kubelet: manifest-error file=...`.
      if (/^(?:[a-z0-9-]+: )?manifest-error /.test(rest))
        return parseKios(rest.slice(rest.indexOf("manifest-error ")))
      return { _tag: "KiosError", message: rest }
    case "warn":
    case "warn:":
      return { _tag: "KiosWarning", message: rest }
  }
  return { _tag: "KiosMessage", message: text }
}

/** Lines of the kernel; `undefined` for the many that we do not care about. */
const parseKernel = (text: string): Meaning | undefined => {
  const panic = /Kernel panic - not syncing:\s*(.*)/.exec(text)
  if (panic !== null && !text.startsWith("---[ end")) return { _tag: "KernelPanic", reason: panic[1] ?? "" }
  const initramfs = /Initramfs unpacking failed:\s*(.*)/.exec(text)
  if (initramfs !== null) return { _tag: "InitramfsFailed", reason: initramfs[1] ?? "" }
  const oom =
    /(?:Out of memory|Memory cgroup out of memory): Killed process (\d+) \((.*?)\)(?= total-vm|, |$)/.exec(
      text,
    )
  if (oom !== null) return { _tag: "OutOfMemory", pid: Number(oom[1]), process: oom[2] ?? "" }
  if (/^(?:Run|run) (\S+) as init process/.test(text))
    return { _tag: "InitStarted", path: text.split(" ")[1] ?? "" }
  if (/^reboot: (?:Power down|System halted and powered off)/.test(text))
    return { _tag: "SystemStopping", action: "power-off" }
  if (text.startsWith("reboot: Restarting system")) return { _tag: "SystemStopping", action: "restart" }
  if (text.startsWith("reboot: System halted")) return { _tag: "SystemStopping", action: "halt" }
  if (
    /^(?:BUG: |Oops: |Oops\b.*\[#\d+\]|general protection fault|double fault|traps: PANIC|PANIC: |Internal error: )/.test(
      text,
    ) &&
    !text.startsWith("BUG: workqueue lockup")
  )
    return { _tag: "KernelFault", message: text }
  return undefined
}

/** Messages of firmware, systemd-stub (`FILE:LINE@FUNCTION: ...`) and the kernel's EFI stub (`EFI stub: ...`). */
const parseFirmware = (text: string): Meaning | undefined => {
  const memory =
    /out of (?:resources|memory)|cannot allocate|failed to allocate|BS->AllocatePages|insufficient memory|not enough memory/i.test(
      text,
    )
  const error = (): Meaning => ({ _tag: "FirmwareError", message: text, memory })
  // The stub asserts on every allocation: this is how it says that memory is short.
  if (/Assertion '.*' failed at /.test(text)) return error()
  if (text.startsWith("EFI stub: ERROR: ")) return error()
  if (text.startsWith("EFI stub: ")) return { _tag: "Firmware", message: text }
  // Not found is no error: firmware tries one entry after the other.
  if (/^BdsDxe: failed to (?:load|start) /.test(text))
    return /: Not Found$/i.test(text) ? { _tag: "Firmware", message: text } : error()
  if (/^BdsDxe: (?:loading|starting) /.test(text)) return { _tag: "Firmware", message: text }
  if (/^(?:BdsDxe: )?No bootable (?:option|device)/i.test(text))
    return { _tag: "FirmwareShell", message: text }
  if (
    /^(?:UEFI Interactive Shell|Shell>|Press (?:ESC in \d+ seconds|any key to enter the Boot Manager))/i.test(
      text,
    )
  )
    return { _tag: "FirmwareShell", message: text }
  if (
    /^(?:\S+:\d+@\w+: )?(?:Failed to |Error (?!code)|Unable to |Could not |Cannot |Kernel (?:is not|does not) )/.test(
      text,
    )
  )
    return /, (?:ignoring|proceeding without)\b/.test(text) ? { _tag: "Firmware", message: text } : error()
  if (
    /^(?:Out of [Rr]esources|Out of memory|Access Denied|Security Violation|Load Error|Image type .* not supported)\b/i.test(
      text,
    )
  )
    return error()
  if (/^!!!! .* Exception Type - /.test(text) || /^ASSERT(?:_EFI_ERROR)? /.test(text)) return error()
  if (/: Out of (?:resources|memory)\.?$/i.test(text)) return error()
  return undefined
}

/**
 * Reads lines in their order and says what each one means. It remembers whether
 * the kernel runs: the same words mean something else before and after. After a
 * restart of the guest it starts anew.
 *
 * @example
 * ```ts
 * import { MilestoneParser, type VmEvent } from "@kios/distro/vm/Milestones"
 *
 * const parser = new MilestoneParser()
 * const read = (line: Parameters<MilestoneParser["push"]>[0]): ReadonlyArray<VmEvent> => parser.push(line)
 * ```
 */
export class MilestoneParser {
  #kernelRuns = false
  #banner = false
  #shell = false

  /** The events of one line: mostly none, two for a first kernel line that means something itself. */
  push(line: Line): Array<VmEvent> {
    const seen: Seen = {
      line: line.index,
      at: line.at,
      ...(line.kernelSeconds === undefined ? {} : { kernelSeconds: line.kernelSeconds }),
    }
    const events: Array<VmEvent> = []
    const add = (meaning: Meaning | undefined) => {
      if (meaning !== undefined) events.push({ ...meaning, ...seen })
    }
    const text = line.message
    const banner = /^Linux version (\S+)/.exec(text)
    if (banner !== null && (!this.#kernelRuns || this.#banner)) {
      add({ _tag: "KernelStarted", version: banner[1] ?? "" })
      this.#kernelRuns = this.#banner = true
      return events
    }
    if (!this.#kernelRuns && line.kernelSeconds !== undefined) {
      add({ _tag: "KernelStarted" }) // quiet, or the first lines are lost
      this.#kernelRuns = true
    }
    // Firmware and shells print their own lines; init prints through the kernel
    // log, or straight to the console when it has none.
    const kios = /^kios: (.*)$/.exec(text)
    if (kios !== null) add(parseKios((kios[1] ?? "").trim()))
    else {
      const meaning = this.#kernelRuns ? parseKernel(text) : parseFirmware(text)
      // The shell repaints its prompt for every key and every second.
      if (meaning?._tag !== "FirmwareShell" || !this.#shell) add(meaning)
      if (meaning?._tag === "FirmwareShell") this.#shell = true
      if (meaning?._tag === "SystemStopping" && meaning.action === "restart")
        this.#kernelRuns = this.#banner = this.#shell = false
    }
    return events
  }
}

/**
 * Reads all lines at once.
 *
 * @example
 * ```ts
 * import { parseLines } from "@kios/distro/vm/Milestones"
 * import type { Qemu } from "@kios/distro/vm/Qemu"
 *
 * const soFar = (vm: Qemu) => parseLines(vm.console.tail(1000))
 * ```
 */
export const parseLines = (lines: Iterable<Line>): Array<VmEvent> => {
  const parser = new MilestoneParser()
  const events: Array<VmEvent> = []
  for (const line of lines) events.push(...parser.push(line))
  return events
}

/**
 * What a boot is to reach: milestones by name, pods as `namespace/name`.
 * Everything must be seen; an empty goal is reached by nothing.
 */
export interface Goal {
  readonly milestones?: ReadonlyArray<string>
  readonly pods?: ReadonlyArray<string>
}

/**
 * What is missing of a goal, in words: `["milestone kubelet-healthy", "pod default/hello running"]`.
 *
 * @example
 * ```ts
 * import { missingOf } from "@kios/distro/vm/Milestones"
 *
 * missingOf({ milestones: ["kubelet-healthy"] }, []) // ["milestone kubelet-healthy"]
 * ```
 */
export const missingOf = (goal: Goal, events: Iterable<VmEvent>): Array<string> => {
  const milestones = new Set<string>()
  const pods = new Set<string>()
  for (const event of events) {
    if (event._tag !== "Milestone") continue
    milestones.add(event.name)
    if (event.name === "pod-running" && event.fields["pod"] !== undefined) pods.add(event.fields["pod"])
  }
  return [
    ...(goal.milestones ?? [])
      .filter((wanted) => !milestones.has(wanted))
      .map((wanted) => `milestone ${wanted}`),
    ...(goal.pods ?? []).filter((wanted) => !pods.has(wanted)).map((wanted) => `pod ${wanted} running`),
  ]
}
