import { Clock, Context, Effect } from "effect"

/** What a build tells while it runs. `component` is the name in the catalog. */
export type ProgressEvent =
  /** A step began: `fetch`, `build`, `strip` ... with a line for people. */
  | { readonly _tag: "StepStarted"; readonly component: string; readonly step: string }
  /** One line of a tool's output. */
  | { readonly _tag: "Output"; readonly component: string; readonly line: string }
  /** Another process works on the same thing; it is waited for. */
  | { readonly _tag: "Waiting"; readonly component: string; readonly reason: string }
  /** A source could not be used; the next one, if any, is tried. */
  | {
      readonly _tag: "SourceSkipped"
      readonly component: string
      readonly source: string
      readonly reason: string
    }
  /** What is pinned is not served any more; what is served now is taken. */
  | {
      readonly _tag: "PinMoved"
      readonly component: string
      readonly pinned: string
      readonly served: string
      readonly reason: string
    }
  | {
      readonly _tag: "StepDone"
      readonly component: string
      readonly step: string
      readonly seconds: number
    }
  /** The component is in the cache; `cached` says that it was there before. */
  | {
      readonly _tag: "Resolved"
      readonly component: string
      readonly version: string
      readonly source: string
      readonly seconds: number
      readonly bytes: number
      readonly cached: boolean
    }

/**
 * The listener for progress. Called synchronously and in order; it must not
 * throw. The default hears nothing.
 *
 * @example
 * ```ts
 * import { Progress, renderProgress } from "@kios/distro/components/Progress"
 * import { Effect } from "effect"
 *
 * const told = <A, E, R>(build: Effect.Effect<A, E, R>) =>
 *   Effect.provideService(build, Progress, {
 *     report: (event) => void process.stderr.write(`${renderProgress(event)}\n`),
 *   })
 * ```
 */
export const Progress = Context.Reference<{ readonly report: (event: ProgressEvent) => void }>(
  "@kios/distro/components/Progress",
  { defaultValue: () => ({ report: () => {} }) },
)

/**
 * Tell the listener.
 *
 * @example
 * ```ts
 * import { report } from "@kios/distro/components/Progress"
 *
 * const waiting = report({ _tag: "Waiting", component: "kernel", reason: "process 42 unpacks it" })
 * ```
 */
export const report = (event: ProgressEvent): Effect.Effect<void> =>
  Effect.map(Progress, (progress) => progress.report(event))

/**
 * Run an effect as a step that is announced when it starts and, with its seconds, when it succeeds.
 *
 * @example
 * ```ts
 * import { step } from "@kios/distro/components/Progress"
 * import { Effect } from "effect"
 *
 * const link = step("efi", "link", Effect.sleep("1 second"))
 * ```
 */
export const step = <A, E, R>(
  component: string,
  name: string,
  effect: Effect.Effect<A, E, R>,
): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const started = yield* Clock.monotonicTimeNanos
    yield* report({ _tag: "StepStarted", component, step: name })
    const value = yield* effect
    const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
    yield* report({ _tag: "StepDone", component, step: name, seconds })
    return value
  })

/**
 * One plain line for an event: what a CLI prints where there is no terminal to redraw.
 *
 * @example
 * ```ts
 * import { renderProgress } from "@kios/distro/components/Progress"
 *
 * renderProgress({ _tag: "StepStarted", component: "efi", step: "link" }) // "efi: link"
 * ```
 */
export const renderProgress = (event: ProgressEvent): string => {
  switch (event._tag) {
    case "StepStarted":
      return `${event.component}: ${event.step}`
    case "Output":
      return `${event.component}: | ${event.line}`
    case "Waiting":
      return `${event.component}: waiting: ${event.reason}`
    case "SourceSkipped":
      return `${event.component}: not from ${event.source}: ${event.reason}`
    case "PinMoved":
      return (
        `${event.component}: WARNING: taking ${event.served} in place of the pinned ${event.pinned}. ` +
        `${event.reason} --locked (KIOS_LOCKED=1) refuses this.`
      )
    case "StepDone":
      return `${event.component}: ${event.step}: done in ${event.seconds.toFixed(1)} s`
    case "Resolved":
      return (
        `${event.component} ${event.version}: ${(event.bytes / 1e6).toFixed(1)} MB ` +
        (event.cached ? "from the cache" : `from ${event.source} in ${event.seconds.toFixed(1)} s`)
      )
  }
}
