import { Context, Data, Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { LineSplitter } from "./LineSplitter.ts"

/** A program to run. No shell is involved. */
export interface CommandSpec {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Working directory; the build's own by default. It must exist. */
  readonly cwd?: string
  /** The whole environment of the program. Undefined values are left out. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Keep standard output (up to 32 MiB) for the result. */
  readonly capture?: boolean
  /** Called with each line as it is written. Must not throw. */
  readonly onLine?: (line: string, stream: "stdout" | "stderr") => void
}

/** How a program ended. */
export interface CommandResult {
  /** Exit status, or the name of the signal that ended it. */
  readonly exit: number | string
  /** Standard output if `capture` was set, else empty. */
  readonly stdout: string
  /** The last {@link TAIL_LINES} lines of both streams. */
  readonly tail: ReadonlyArray<string>
}

/**
 * Lines that are kept of a program's output for its error.
 *
 * @example
 * ```ts
 * import { CommandRunner, TAIL_LINES } from "@kios/distro/components/CommandRunner"
 * import { Effect } from "effect"
 *
 * const lastLines = CommandRunner.use((runner) =>
 *   Effect.map(runner.run({ command: "gcc", args: ["--version"], env: {} }), ({ tail }) => tail.slice(-TAIL_LINES)),
 * )
 * ```
 */
export const TAIL_LINES = 40

/**
 * Bytes of standard output that are kept when asked to.
 *
 * @example
 * ```ts
 * import { CAPTURE_LIMIT } from "@kios/distro/components/CommandRunner"
 *
 * const wasCut = (stdout: string) => Buffer.byteLength(stdout) >= CAPTURE_LIMIT
 * ```
 */
export const CAPTURE_LIMIT = 32 * 1024 * 1024

/**
 * There is no such program on the PATH.
 *
 * @example
 * ```ts
 * import { CommandRunner } from "@kios/distro/components/CommandRunner"
 * import { Effect } from "effect"
 *
 * const hasGcc = CommandRunner.use((runner) => runner.run({ command: "gcc", args: ["--version"], env: {} })).pipe(
 *   Effect.as(true),
 *   Effect.catchTag("CommandNotFound", () => Effect.succeed(false)),
 * )
 * ```
 */
export class CommandNotFound extends Data.TaggedError("CommandNotFound")<{ readonly command: string }> {
  override get message() {
    return `${this.command}: no such program on the PATH`
  }
}

/**
 * A program could not be started for another reason than its absence.
 *
 * @example
 * ```ts
 * import { CommandNotStarted } from "@kios/distro/components/CommandRunner"
 *
 * new CommandNotStarted({ command: "go", reason: "EACCES" }).message // "go could not be started: EACCES"
 * ```
 */
export class CommandNotStarted extends Data.TaggedError("CommandNotStarted")<{
  readonly command: string
  readonly reason: string
}> {
  override get message() {
    return `${this.command} could not be started: ${this.reason}`
  }
}

/**
 * Runs the programs of the build machine: apt, dpkg-deb, go, gcc, strip.
 * Interrupting ends the program's whole process group: SIGTERM, and SIGKILL
 * after two seconds.
 *
 * @example
 * ```ts
 * import { CommandRunner } from "@kios/distro/components/CommandRunner"
 * import { Effect } from "effect"
 *
 * const version = CommandRunner.use((runner) =>
 *   runner.run({ command: "gcc", args: ["--version"], env: { PATH: process.env["PATH"] }, capture: true }),
 * ).pipe(
 *   Effect.map((result) => result.stdout),
 *   Effect.provide(CommandRunner.layer),
 * )
 * ```
 */
export class CommandRunner extends Context.Service<
  CommandRunner,
  {
    readonly run: (spec: CommandSpec) => Effect.Effect<CommandResult, CommandNotFound | CommandNotStarted>
  }
>()("@kios/distro/components/CommandRunner") {
  /** Real processes. */
  static readonly layer = Layer.succeed(CommandRunner, { run: (spec) => runProcess(spec) })
}

const runProcess = (spec: CommandSpec): Effect.Effect<CommandResult, CommandNotFound | CommandNotStarted> =>
  Effect.callback((resume) => {
    if (spec.cwd !== undefined && !existsSync(spec.cwd)) {
      // spawn reports a missing directory as ENOENT of the program.
      const reason = `the directory ${spec.cwd} does not exist`
      return resume(Effect.fail(new CommandNotStarted({ command: spec.command, reason })))
    }
    const child = spawn(spec.command, [...spec.args], {
      ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
      env: Object.fromEntries(Object.entries(spec.env).filter(([, value]) => value !== undefined)),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    })
    const tail: Array<string> = []
    const kept: Array<Buffer> = []
    let size = 0
    const lines = (stream: "stdout" | "stderr") =>
      new LineSplitter((line) => {
        tail.push(line)
        if (tail.length > TAIL_LINES) tail.shift()
        spec.onLine?.(line, stream)
      })
    const out = lines("stdout")
    const err = lines("stderr")
    child.stdout.on("data", (chunk: Buffer) => {
      if (spec.capture === true && size < CAPTURE_LIMIT) {
        kept.push(chunk.subarray(0, CAPTURE_LIMIT - size))
        size += chunk.length
      }
      out.push(chunk)
    })
    child.stderr.on("data", (chunk: Buffer) => err.push(chunk))
    child.once("error", (cause: NodeJS.ErrnoException) =>
      resume(
        Effect.fail(
          cause.code === "ENOENT"
            ? new CommandNotFound({ command: spec.command })
            : new CommandNotStarted({ command: spec.command, reason: cause.code ?? cause.message }),
        ),
      ),
    )
    child.once("close", (code, signal) => {
      out.end()
      err.end()
      resume(
        Effect.succeed({
          exit: code ?? signal ?? "an unknown signal",
          stdout: Buffer.concat(kept).toString("utf8"),
          tail,
        }),
      )
    })
    return Effect.callback<void>((done) => {
      const pid = child.pid
      if (pid === undefined || child.exitCode !== null || child.signalCode !== null) {
        return done(Effect.void)
      }
      const signalGroup = (signal: NodeJS.Signals) => {
        try {
          process.kill(-pid, signal)
        } catch {
          // The group is gone already.
        }
      }
      const timer = setTimeout(() => signalGroup("SIGKILL"), 2000)
      child.once("exit", () => {
        clearTimeout(timer)
        done(Effect.void)
      })
      signalGroup("SIGTERM")
    })
  })
