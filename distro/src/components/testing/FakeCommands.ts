import { Effect, Layer } from "effect"
import { existsSync } from "node:fs"
import {
  CAPTURE_LIMIT,
  CommandNotFound,
  CommandNotStarted,
  type CommandResult,
  CommandRunner,
  type CommandSpec,
  TAIL_LINES,
} from "../CommandRunner.ts"
import { LineSplitter } from "../LineSplitter.ts"

/** What a scripted program does: its status and output. `hang` never ends, until it is interrupted. */
export interface FakeOutcome {
  readonly exit?: number | string
  readonly stdout?: string
  readonly stderr?: string
  readonly hang?: boolean
}

/** A program by its name: sees what it was called with, may write files, tells how it ended. */
export type FakeProgram = (call: {
  readonly args: ReadonlyArray<string>
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}) => FakeOutcome | Promise<FakeOutcome>

/**
 * A {@link CommandRunner} with scripted programs; any other program is not
 * found. It keeps the rules of the real one (lines, tail, capture, missing
 * directories), and `CommandRunner.unit.test.ts` holds both to one contract.
 *
 * @returns The layer, and the calls made so far.
 */
export const fakeCommands = (programs: Readonly<Record<string, FakeProgram>>) => {
  const calls: Array<CommandSpec> = []
  const run = (spec: CommandSpec): Effect.Effect<CommandResult, CommandNotFound | CommandNotStarted> =>
    Effect.gen(function* () {
      calls.push(spec)
      const program = programs[spec.command]
      if (spec.cwd !== undefined && !existsSync(spec.cwd)) {
        const reason = `the directory ${spec.cwd} does not exist`
        return yield* new CommandNotStarted({ command: spec.command, reason })
      }
      if (program === undefined) return yield* new CommandNotFound({ command: spec.command })
      const env = Object.fromEntries(
        Object.entries(spec.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
      )
      const call = { args: spec.args, cwd: spec.cwd ?? process.cwd(), env }
      const outcome = yield* Effect.promise(async () => program(call))
      const tail: Array<string> = []
      const feed = (text: string | undefined, stream: "stdout" | "stderr") => {
        const splitter = new LineSplitter((line) => {
          tail.push(line)
          if (tail.length > TAIL_LINES) tail.shift()
          spec.onLine?.(line, stream)
        })
        splitter.push(Buffer.from(text ?? ""))
        splitter.end()
      }
      feed(outcome.stdout, "stdout")
      feed(outcome.stderr, "stderr")
      if (outcome.hang === true) return yield* Effect.never
      const stdout = spec.capture === true ? (outcome.stdout ?? "").slice(0, CAPTURE_LIMIT) : ""
      return { exit: outcome.exit ?? 0, stdout, tail }
    })
  return { layer: Layer.succeed(CommandRunner, { run }), calls }
}
