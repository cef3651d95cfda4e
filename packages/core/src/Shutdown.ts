/**
 * Going down in order, whoever asks for it: the power button, a signal to PID
 * 1, the system socket, a boot that failed.
 *
 * The first request starts it: what was registered with `before` happens while
 * every stage is still up, then the stages are released in reverse. A second
 * request makes it faster: what is waited for is waited for no longer. A third
 * forces it: sync(2) and reboot(2). What is decided when is drawn in
 * `internal/ShutdownMachine.ts`; docs/shutdown.md has the steps, their
 * deadlines and what is kept of them.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { BootReport } from "./BootReport.ts"
import { make } from "./internal/ShutdownCoordinator.ts"
import { Kernel } from "./Kernel.ts"
import type { Kmsg } from "./Kmsg.ts"

/** What the machine does when it is down; see reboot(2). */
export type ShutdownAction = "POWER_OFF" | "RESTART" | "HALT"

/** Who asks, and for what. */
export interface ShutdownRequest {
  readonly action: ShutdownAction
  /** In words that stand on the console as `by=`: `power button`, `SIGTERM`. */
  readonly by: string
}

/** What has to happen before the machine goes down. */
export interface ShutdownStep {
  /** Names it on the console and in the record. */
  readonly name: string
  /** It is interrupted then, and the machine goes down without it. */
  readonly deadline: Duration.Input
  /** Is interrupted when somebody asks a second time. */
  readonly run: Effect.Effect<void>
}

/** One step on the way down, as the boot report has it. Times are milliseconds since the kernel started. */
export interface ShutdownStepRecord {
  /** A phase (`stages`), or what was registered to come first (`before/kubelet`). */
  readonly name: string
  readonly startMs: number
  readonly endMs: number | null
  /** `late`: it was left behind at its deadline. `cut`: a second or third request ended it. */
  readonly outcome: "running" | "done" | "failed" | "late" | "cut"
  /** Who was killed, what was busy. */
  readonly remarks: ReadonlyArray<string>
}

/** A request, and when it came: milliseconds since the kernel started. */
export interface ShutdownRequestRecord extends ShutdownRequest {
  readonly atMs: number
}

/** How the machine goes down, as the boot report has it. */
export interface ShutdownRecord {
  /** In the order in which they came. */
  readonly requests: ReadonlyArray<ShutdownRequestRecord>
  readonly steps: ReadonlyArray<ShutdownStepRecord>
}

/** The operations behind {@link Shutdown}. */
export interface ShutdownShape {
  /** Returns at once. The first request starts it, the second makes it faster, the third forces it. */
  readonly request: (request: ShutdownRequest) => Effect.Effect<void>
  /**
   * Registers what must happen first, in parallel with the others, while every
   * stage is still up; until the scope closes.
   */
  readonly before: (step: ShutdownStep) => Effect.Effect<void, never, Scope.Scope>
  /** Whether the machine goes down. */
  readonly requested: Effect.Effect<boolean>
  /** Waits as long as a grace period lasts: that long, or no more than 2 seconds once somebody has asked twice. */
  readonly grace: (period: Duration.Input) => Effect.Effect<void>
  /** Puts on the console, and into the record of the shutdown, what happened on the way down. */
  readonly remark: (text: string) => Effect.Effect<void>
}

/**
 * The way down, as a service.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Shutdown } from "@kios/core/Shutdown"
 *
 * const flushBefore = Shutdown.use((shutdown) =>
 *   shutdown.before({ name: "flush", deadline: "5 seconds", run: Effect.log("flushing") }),
 * )
 * const powerOff = Shutdown.use((shutdown) => shutdown.request({ action: "POWER_OFF", by: "an example" }))
 * ```
 */
export class Shutdown extends Context.Service<Shutdown, ShutdownShape>()("kios/Shutdown") {
  /** Goes through what was registered and makes the reboot(2) call, releasing nothing: what a test of a stage wants. */
  static readonly layer: Layer.Layer<Shutdown, never, Kernel | Kmsg | BootReport> = Layer.effect(
    Shutdown,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const { drive, shutdown } = yield* make
      const reboot = (action: ShutdownAction) => Effect.ignore(kernel.reboot(action))
      yield* Effect.forkScoped(drive({ reboot }))
      return shutdown
    }),
  )
}
