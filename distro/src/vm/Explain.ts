/**
 * Why a boot did not reach its goal, in one sentence, and what to do about it.
 */
import type { VmEvent } from "./Milestones.ts"

/** How the run ended without reaching its goal. */
export type RunEnd =
  /** QEMU is gone. */
  | {
      readonly _tag: "Exited"
      readonly code: number | null
      readonly signal: NodeJS.Signals | null
      readonly stderr: string
      /** QMP's reason: `guest-shutdown`, `guest-reset`, `guest-panic`, `host-qmp-quit`, ... */
      readonly shutdownReason?: string
    }
  /** The time allowed has passed. */
  | { readonly _tag: "TimedOut"; readonly seconds: number }
  /** The machine stands still for a reason that time does not cure, e.g. a panic or the firmware's shell. */
  | { readonly _tag: "Halted" }
  /** QEMU stopped the guest: `internal-error`, `io-error`, ... (QMP query-status). */
  | { readonly _tag: "Stopped"; readonly status: string }

/** Facts of the run that help to tell causes apart. */
export interface ExplainContext {
  /** RAM given to the machine, MiB. */
  readonly memoryMiB?: number
  /** Size of the EFI, bytes. */
  readonly efiBytes?: number
  /** What was waited for: {@link import("./Milestones.ts").missingOf}. */
  readonly missing?: ReadonlyArray<string>
  /** The console's last line. */
  readonly lastLine?: string
}

const last = <T extends VmEvent["_tag"]>(events: ReadonlyArray<VmEvent>, tag: T) =>
  events.findLast((event): event is Extract<VmEvent, { _tag: T }> => event._tag === tag)

const clean = (text: string): string => text.trim().replace(/[\s.]+$/, "")

/**
 * How much memory to try: doubled, at least the 768 MiB that a node needs and,
 * with a large EFI, six times its size, since firmware and kernel hold several
 * copies of it at once (measured with OVMF and `-kernel`: 164 MB do not start in 768 MiB).
 */
const enoughMemory = ({ memoryMiB, efiBytes }: ExplainContext): number =>
  Math.max(768, 2 * (memoryMiB ?? 0), Math.ceil((6 * (efiBytes ?? 0)) / 2 ** 20 / 256) * 256)

const moreMemory = (context: ExplainContext): string =>
  `give the virtual machine more memory${
    context.memoryMiB === undefined ? "" : ` than ${context.memoryMiB} MiB`
  }, e.g. ${enoughMemory(context)} MiB`

const efiSize = ({ efiBytes }: ExplainContext): string =>
  efiBytes === undefined ? "" : ` of ${Math.round(efiBytes / 1e6)} MB`

const waiting = ({ missing }: ExplainContext): string =>
  missing === undefined || missing.length === 0 ? "" : `; still missing: ${missing.join(", ")}`

/**
 * One sentence that says why the boot did not reach its goal. The causes are
 * tried from the most telling to the least: what init or the kernel said about
 * itself comes before how QEMU ended, which only follows from it.
 *
 * @example
 * explain(events, { _tag: "TimedOut", seconds: 60 }, { memoryMiB: 512 })
 * // "the kernel could not unpack the initramfs into 512 MiB of memory (write error): give ..."
 */
export const explain = (
  events: ReadonlyArray<VmEvent>,
  end: RunEnd,
  context: ExplainContext = {},
): string => {
  // Only the last start of the kernel counts; an earlier one was restarted.
  const start = events.findLastIndex((event) => event._tag === "KernelStarted")
  const boot = start < 0 ? events : events.slice(start)
  return (
    explainKernel(boot, context) ??
    explainInit(boot, context) ??
    (start < 0 ? explainFirmware(events, end, context) : undefined) ??
    explainEnd(boot, end, context)
  )
}

const explainKernel = (events: ReadonlyArray<VmEvent>, context: ExplainContext): string | undefined => {
  const panic = last(events, "KernelPanic")
  const initramfs = last(events, "InitramfsFailed")
  if (initramfs !== undefined) {
    const reason = clean(initramfs.reason)
    if (/write error|no space|memory/i.test(reason)) {
      const memory = context.memoryMiB === undefined ? "memory" : `${context.memoryMiB} MiB of memory`
      return `the kernel could not unpack the initramfs into ${memory} (${reason}): ${moreMemory(context)}`
    }
    // A warning that every second tool provokes by padding; it matters if there is no init then.
    if (panic !== undefined || last(events, "InitStarted") === undefined)
      return `the kernel could not unpack the initramfs (${reason}): the image is damaged or its compression is not built into the kernel; build it anew`
  }
  if (panic === undefined) return undefined
  const reason = clean(panic.reason)
  if (/\bmemory\b|no killable processes/i.test(reason))
    return `the kernel ran out of memory and panicked (${reason}): ${moreMemory(context)}`
  const killed = last(events, "OutOfMemory")
  if (/Attempted to kill init/.test(reason)) {
    const code = /exitcode=0x([0-9a-f]+)/i.exec(reason)
    const oom =
      killed === undefined ? "" : ` after the kernel had killed ${killed.process} for want of memory`
    const advice = killed === undefined ? "the console's lines before the panic say why" : moreMemory(context)
    return `init ended, which panics the kernel${oom}${code === null ? "" : ` (${waitStatus(Number.parseInt(code[1] ?? "0", 16))})`}: ${advice}`
  }
  if (/No working init found|Requested init .* failed/.test(reason))
    return `the kernel found no init that it can run (${reason}): is /init in the initramfs, executable, for this architecture, and are its loader and libraries there?`
  if (/Unable to mount root fs/.test(reason))
    return `the kernel found no initramfs and therefore looked for a root file system (${reason}): the image lacks its .initrd section, or the firmware could not pass it on for want of memory: ${moreMemory(context)}`
  const fault = last(events, "KernelFault")
  return `the kernel panicked: ${reason}${fault === undefined ? "" : ` (first it said: ${clean(fault.message)})`}`
}

/** A wait status as the kernel prints it in "Attempted to kill init! exitcode=". */
const waitStatus = (status: number): string => {
  const signal = status & 0x7f
  return signal === 0 ? `exit code ${(status >> 8) & 0xff}` : `killed by signal ${signal}`
}

const explainInit = (events: ReadonlyArray<VmEvent>, context: ExplainContext): string | undefined => {
  const killed = last(events, "OutOfMemory")
  const failed = last(events, "BootFailed")
  if (failed !== undefined) {
    const memory =
      killed === undefined
        ? ""
        : ` (the kernel had killed ${killed.process} for want of memory: ${moreMemory(context)})`
    return `stage ${failed.stage} failed and init gave up the boot: ${clean(failed.reason)}${memory}`
  }
  if (killed !== undefined)
    return `the guest ran out of memory and the kernel killed ${killed.process}: ${moreMemory(context)}`
  const manifests = events.filter((event) => event._tag === "ManifestError")
  const manifest = manifests.at(-1)
  if (manifest !== undefined && (context.missing ?? []).some((wanted) => wanted.startsWith("pod ")))
    return `the kubelet refused the manifest ${manifest.file}: ${clean(manifest.reason)}${waiting(context)}`
  const stage = last(events, "StageFailed")
  // A later success of the same stage takes the failure back.
  if (
    stage !== undefined &&
    !events.some((e) => e._tag === "StageUp" && e.stage === stage.stage && e.line > stage.line)
  )
    return `stage ${stage.stage} failed after ${stage.ms} ms: ${clean(stage.reason)}${waiting(context)}`
  return undefined
}

const explainFirmware = (
  events: ReadonlyArray<VmEvent>,
  end: RunEnd,
  context: ExplainContext,
): string | undefined => {
  const errors = events.filter((event) => event._tag === "FirmwareError")
  const memory = errors.find((error) => error.memory)
  if (memory !== undefined)
    return `the firmware has too little memory to load the EFI${efiSize(context)} (${clean(memory.message)}): ${moreMemory(context)}`
  const error = errors.at(-1)
  if (error !== undefined) {
    const secureBoot = /Access Denied|Security Violation/i.test(error.message)
      ? ": Secure Boot refuses the image; sign it with a key that the firmware trusts, or turn Secure Boot off"
      : ""
    return `the firmware could not start the EFI: ${clean(error.message)}${secureBoot}`
  }
  if (events.some((event) => event._tag === "FirmwareShell")) {
    // OVMF says "Not Found" of an image passed with -kernel for which it has no memory.
    if (
      context.memoryMiB !== undefined &&
      context.efiBytes !== undefined &&
      context.memoryMiB * 2 ** 20 < 4 * context.efiBytes
    )
      return `the firmware did not load the EFI${efiSize(context)} and went to its own shell, for which ${context.memoryMiB} MiB of memory are the likely cause: ${moreMemory(context)}`
    return `the firmware found nothing that it can boot and went to its own shell: is the file an EFI executable for this machine, and, on a disk, named /EFI/BOOT/BOOTX64.EFI on a FAT partition of type EFI System?`
  }
  if (end._tag === "TimedOut")
    return `the kernel printed nothing within ${end.seconds} s${
      context.lastLine === undefined ? "" : ` (the last line is "${clean(context.lastLine)}")`
    }: is console=ttyS0 on its command line, and is the image for this architecture? On a slow machine allow more time`
  return undefined
}

const explainEnd = (events: ReadonlyArray<VmEvent>, end: RunEnd, context: ExplainContext): string => {
  const stopping = last(events, "SystemStopping")
  const fault = last(events, "KernelFault")
  const error = last(events, "KiosError")
  const because =
    error !== undefined
      ? `; init's last error: ${clean(error.message)}`
      : fault !== undefined
        ? `; the kernel reported: ${clean(fault.message)}`
        : ""
  switch (end._tag) {
    case "Exited": {
      if (end.signal !== null || (end.code ?? 0) !== 0) {
        const how = end.signal === null ? `with exit code ${end.code}` : `by signal ${end.signal}`
        const said = clean(end.stderr.split("\n").slice(-5).join("\n"))
        return `QEMU ended ${how}${said === "" ? "" : `: ${said}`}${waiting(context)}`
      }
      const reset = stopping?.action === "restart" || end.shutdownReason === "guest-reset"
      if (reset && stopping === undefined)
        return `the guest was reset without a word from the kernel (a triple fault, or the firmware's doing)${because}${waiting(context)}`
      if (end.shutdownReason?.startsWith("host") === true && stopping === undefined)
        return `the virtual machine was ended from the host (${end.shutdownReason})${waiting(context)}`
      return `the guest ${reset ? "restarted" : "powered itself off"} before it had reached the goal${because}${waiting(context)}`
    }
    case "TimedOut":
      return `not reached within ${end.seconds} s${waiting(context)}${because}${
        context.lastLine === undefined ? "" : `; the last line is "${clean(context.lastLine)}"`
      }`
    case "Halted":
      return `the guest has stopped${because}${waiting(context)}`
    case "Stopped":
      return end.status === "internal-error"
        ? `QEMU stopped the guest with an internal error: its accelerator cannot run this guest; choose the tcg accelerator${waiting(context)}`
        : `QEMU stopped the guest (${end.status})${waiting(context)}`
  }
}
