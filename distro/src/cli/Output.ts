/**
 * How the command talks: lines for people on standard output, or one JSON
 * object a line for programs. Long work shows what it is at.
 */
import { Context, Effect, Layer } from "effect"
import { type ProgressEvent, renderProgress } from "../components/Progress.ts"

/** An ending that is not success, with the exit code that scripts see. */
export const exitCodes = {
  /** Something failed: the message says what. */
  failed: 1,
  /** The command line was wrong. */
  usage: 2,
  /** The machine ran, but did not reach what `--until` asked for. */
  notReached: 3,
} as const

export interface OutputShape {
  readonly json: boolean
  readonly width: number
  readonly color: boolean
  /** A line for people; nothing with `--json`. */
  readonly line: (text: string) => void
  /** An object for programs; nothing without `--json`. */
  readonly object: (value: Readonly<Record<string, unknown>>) => void
  /** What is going on right now: redrawn in place on a terminal, told now and then elsewhere; undefined: nothing any more. */
  readonly status: (text: string | undefined) => void
}

// Without a terminal, a long step says that it is alive this often.
const HEARTBEAT_MS = 30_000
const TICK_MS = 1000

/** Output of the command, as a service. */
export class Output extends Context.Service<Output, OutputShape>()("kios/cli/Output") {
  static readonly layer = (json: boolean): Layer.Layer<Output> =>
    Layer.effect(
      Output,
      Effect.acquireRelease(
        Effect.sync(() => make(json)),
        (output) => Effect.sync(() => output.status(undefined)),
      ),
    )
}

const make = (json: boolean): OutputShape => {
  const out = process.stdout
  const redraw = out.isTTY === true && !json
  const width = out.columns ?? 100
  let status: { readonly text: string; readonly since: number } | undefined
  let timer: NodeJS.Timeout | undefined
  let ticks = 0
  const erase = () => {
    if (redraw && status !== undefined) out.write("\r\u001b[K")
  }
  const draw = () => {
    if (status === undefined) return
    const seconds = Math.floor((Date.now() - status.since) / 1000)
    const text = `  ${status.text}${seconds < 2 ? "" : ` ... ${seconds} s`}`
    if (redraw) out.write(`\r\u001b[K${text.slice(0, width - 1)}`)
    else if (!json && ++ticks * TICK_MS >= HEARTBEAT_MS) {
      ticks = 0
      out.write(`${text}\n`)
    }
  }
  return {
    json,
    width,
    color: redraw && process.env["NO_COLOR"] === undefined,
    line: (text) => {
      if (json) return
      erase()
      out.write(`${text}\n`)
      if (redraw) draw()
    },
    object: (value) => {
      if (json) out.write(`${JSON.stringify(value)}\n`)
    },
    status: (text) => {
      erase()
      clearInterval(timer)
      timer = undefined
      status = text === undefined ? undefined : { text, since: Date.now() }
      ticks = 0
      if (status !== undefined) {
        if (redraw) draw()
        timer = setInterval(draw, TICK_MS)
      }
    },
  }
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`

/** Shows the steps of a build. */
export const buildReporter = (output: OutputShape) => {
  const running = new Map<string, string>()
  const show = () => output.status([...running.values()].at(-1))
  return {
    report: (event: ProgressEvent): void => {
      output.object({ event: "build", ...event })
      switch (event._tag) {
        case "StepStarted":
          running.set(event.component, `${event.component}: ${event.step}`)
          return show()
        case "Waiting":
          running.set(event.component, `${event.component}: waiting: ${event.reason}`)
          return show()
        case "SourceSkipped":
          return output.line(`- ${event.component}: not from ${event.source}: ${event.reason}`)
        case "PinMoved":
          return output.line(`! ${renderProgress(event)}`)
        case "StepDone":
          running.delete(event.component)
          // A component's own steps end in its Resolved line.
          if (["init", "images", "initramfs", "efi"].includes(event.component)) {
            output.line(`+ ${event.component}: ${event.step} (${event.seconds.toFixed(1)} s)`)
          }
          return show()
        case "Resolved":
          running.delete(event.component)
          output.line(
            `+ ${event.component} ${event.version}, ${megabytes(event.bytes)}, ${event.cached ? "cached" : `${event.source}, ${event.seconds.toFixed(1)} s`}`,
          )
          return show()
        case "Output":
          return
      }
    },
  }
}

/** A table of two columns, the second right-aligned. */
export const table = (rows: ReadonlyArray<readonly [string, string]>): string => {
  const left = Math.max(...rows.map(([name]) => name.length))
  const right = Math.max(...rows.map(([, value]) => value.length))
  return rows.map(([name, value]) => `  ${name.padEnd(left)}  ${value.padStart(right)}`).join("\n")
}

export { megabytes }
