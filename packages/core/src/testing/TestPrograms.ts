/**
 * Programs of an in-memory machine: what a file does when it is started.
 */
import * as Effect from "effect/Effect"
import type * as Duration from "effect/Duration"
import type { Signal } from "../Kernel.ts"

/** What a program can do, besides taking time. */
export interface ProgramContext {
  readonly pid: number
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  /** Writes a line to its output. */
  readonly print: (line: string) => Effect.Effect<void>
  /** Starts a child of its own, which becomes init's when this process ends. Returns its pid. */
  readonly fork: (program: Program) => Effect.Effect<number>
  /** Runs `handler` in the place of what the signal does by default. SIGKILL and SIGSTOP cannot be caught. */
  readonly onSignal: (signal: Signal, handler: Effect.Effect<void>) => Effect.Effect<void>
}

/** A program: it runs until the Effect ends, whose value is its exit code, or until a signal ends it. */
export type Program = (self: ProgramContext) => Effect.Effect<number>

/**
 * Runs until a signal ends it.
 *
 * @example
 * ```ts
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const machine = TestMachine.make({ programs: { "/bin/containerd": TestPrograms.forever } })
 * ```
 */
export const forever: Program = () => Effect.never

/**
 * Ends by itself, after a time on the test's clock.
 *
 * @example
 * ```ts
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const crashing = TestPrograms.exits(1, "3 seconds")
 * ```
 */
export const exits =
  (code: number, after: Duration.Input = 0): Program =>
  () =>
    Effect.as(Effect.sleep(after), code)

/**
 * Writes lines, then goes on as `then`.
 *
 * @example
 * ```ts
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const failing = TestPrograms.prints(["no such flag: --fast"], TestPrograms.exits(2))
 * ```
 */
export const prints =
  (lines: ReadonlyArray<string>, then: Program = exits(0)): Program =>
  (self) =>
    Effect.andThen(Effect.forEach(lines, self.print, { discard: true }), then(self))

/**
 * Runs as `then`, but takes no notice of these signals.
 *
 * @example
 * ```ts
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const stubborn = TestPrograms.ignoring(["SIGTERM"])
 * ```
 */
export const ignoring =
  (signals: ReadonlyArray<Signal>, then: Program = forever): Program =>
  (self) =>
    Effect.andThen(
      Effect.forEach(signals, (signal) => self.onSignal(signal, Effect.void), { discard: true }),
      then(self),
    )

/**
 * Starts children, then goes on as `then`; when that ends they are orphans.
 *
 * @example
 * ```ts
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const daemonizing = TestPrograms.leaving([TestPrograms.forever], TestPrograms.exits(0))
 * ```
 */
export const leaving =
  (children: ReadonlyArray<Program>, then: Program = exits(0)): Program =>
  (self) =>
    Effect.andThen(Effect.forEach(children, self.fork, { discard: true }), then(self))

/**
 * Runs as the first program the first time it is started, as the second the second time, and as the last ever after.
 *
 * @example
 * ```ts
 * import * as TestPrograms from "@kios/core/testing/TestPrograms"
 *
 * const flaky = TestPrograms.inTurn(TestPrograms.exits(1), TestPrograms.forever)
 * ```
 */
export const inTurn = (...programs: readonly [Program, ...Array<Program>]): Program => {
  let started = 0
  return (self) => {
    const program = programs[Math.min(started, programs.length - 1)] ?? programs[0]
    started++
    return program(self)
  }
}
