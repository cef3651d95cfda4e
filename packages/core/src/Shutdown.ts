/**
 * Going down in order, whoever asks for it: the power button, a signal to PID
 * 1, the system socket, a boot that failed.
 *
 * The first request starts it: what was registered with `before` happens,
 * then the stages are released in reverse. A second request makes it faster, a
 * third forces it. docs/shutdown.md has the steps and their deadlines.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Kernel } from "./Kernel.ts"

/** What the machine does when it is down; see reboot(2). */
export type ShutdownAction = "POWER_OFF" | "RESTART" | "HALT"

/** Who asks, and for what. */
export interface ShutdownRequest {
  readonly action: ShutdownAction
  /** In words that stand on the console after "asked by": `the power button`, `SIGTERM`. */
  readonly by: string
}

/** What has to happen before the machine goes down. */
export interface ShutdownStep {
  readonly name: string
  /** It is interrupted then, and the machine goes down without it. */
  readonly deadline: Duration.Input
  readonly run: Effect.Effect<void>
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
 * const powerOff = Shutdown.use((shutdown) => shutdown.request({ action: "POWER_OFF", by: "a test" }))
 * ```
 */
export class Shutdown extends Context.Service<Shutdown, ShutdownShape>()("kios/Shutdown") {
  /** Runs the steps at the first request and then makes the reboot(2) call: what a test of a stage wants. */
  static readonly layer: Layer.Layer<Shutdown, never, Kernel> = Layer.effect(
    Shutdown,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const { asked, runSteps, shutdown } = yield* coordinator
      yield* Effect.forkScoped(
        Effect.flatMap(Deferred.await(asked), ({ action }) =>
          Effect.andThen(runSteps, Effect.ignore(kernel.reboot(action))),
        ),
      )
      return shutdown
    }),
  )
}

/** What {@link "./Init.ts"} drives. */
export interface Coordinator {
  readonly shutdown: ShutdownShape
  /** The first request. */
  readonly asked: Deferred.Deferred<ShutdownRequest>
  /** Everything that was registered, in parallel, each no longer than its deadline. */
  readonly runSteps: Effect.Effect<void>
}

/** A coordinator that nobody has asked yet. */
export const coordinator: Effect.Effect<Coordinator> = Effect.gen(function* () {
  const asked = yield* Deferred.make<ShutdownRequest>()
  const steps = new Set<ShutdownStep>()
  const run = ({ deadline, name, run }: ShutdownStep) =>
    run.pipe(
      Effect.timeoutOrElse({
        duration: deadline,
        orElse: () =>
          Effect.logWarning(
            `shutdown: ${name} is not done within ${Duration.format(Duration.fromInputUnsafe(deadline))}, going down without it`,
          ),
      }),
      Effect.catchCause((cause) => Effect.logError(`shutdown: ${name}`, cause)),
    )
  return {
    asked,
    shutdown: {
      request: (request) => Effect.asVoid(Deferred.succeed(asked, request)),
      before: (step) =>
        Effect.acquireRelease(
          Effect.sync(() => void steps.add(step)),
          () => Effect.sync(() => void steps.delete(step)),
        ),
      requested: Effect.sync(() => Deferred.isDoneUnsafe(asked)),
    },
    runSteps: Effect.suspend(() =>
      Effect.forEach([...steps], run, { concurrency: "unbounded", discard: true }),
    ),
  }
})
