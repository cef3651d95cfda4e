/**
 * A boot as lines, as it happens.
 */
import type { VmEvent } from "../vm/Milestones.ts"
import type { Progress } from "../vm/VmRun.ts"
import type { OutputShape } from "./Output.ts"

const at = (event: VmEvent) =>
  event.kernelSeconds === undefined ? "        " : `${event.kernelSeconds.toFixed(2).padStart(6)} s`

const fields = (values: Readonly<Record<string, string>>) =>
  Object.entries(values)
    .map(([key, value]) => ` ${key}=${value}`)
    .join("")

/** The line for an event; undefined for one that is not worth one. */
export const describe = (event: VmEvent): string | undefined => {
  switch (event._tag) {
    case "Firmware":
      return undefined
    case "FirmwareError":
    case "FirmwareShell":
      return `${at(event)}  ! firmware: ${event.message}`
    case "KernelStarted":
      return `${at(event)}  kernel${event.version === undefined ? "" : ` ${event.version}`}`
    case "InitStarted":
      return undefined
    case "Milestone":
      return `${at(event)}  * ${event.name}${fields(event.fields)}`
    case "StageUp":
      return `${at(event)}    ${event.stage} (${event.ms.toFixed(0)} ms)`
    case "StageFailed":
      return `${at(event)}  ! ${event.stage} failed: ${event.reason}`
    case "StageSkipped":
      return `${at(event)}  - ${event.stage} skipped: ${event.reason}`
    case "BootFailed":
      return `${at(event)}  ! boot failed at ${event.stage}: ${event.reason}`
    case "ManifestError":
      return `${at(event)}  ! manifest ${event.file}: ${event.reason}`
    case "KiosError":
      return `${at(event)}  ! ${event.message}`
    case "KiosWarning":
      return `${at(event)}  - ${event.message}`
    case "KiosMessage":
      return `${at(event)}    ${event.message}`
    case "KernelPanic":
      return `${at(event)}  ! kernel panic: ${event.reason}`
    case "KernelFault":
      return `${at(event)}  ! kernel: ${event.message}`
    case "InitramfsFailed":
      return `${at(event)}  ! the kernel could not unpack the image: ${event.reason}`
    case "OutOfMemory":
      return `${at(event)}  ! out of memory: ${event.process} (${event.pid}) was killed`
    case "SystemStopping":
      return `${at(event)}  ${event.action}`
  }
}

/** Shows one piece of progress. */
export const showEvent = (output: OutputShape, progress: Progress): void => {
  switch (progress._tag) {
    case "Event": {
      const { event, seconds } = progress
      const { at: _host, ...rest } = event
      output.object({ event: "boot", seconds, ...rest })
      if (event._tag === "KernelStarted") output.status("booting")
      const line = describe(event)
      if (line !== undefined) output.line(line)
      return
    }
    case "Stalled":
      return output.line(
        `          (silent for ${progress.silentSeconds.toFixed(0)} s after: ${progress.lastLine})`,
      )
    case "Started":
    case "Finished":
      return
  }
}
