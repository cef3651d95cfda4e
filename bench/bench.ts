/**
 * `npm run bench`: kiOS and its floor, compared: boots, the hand-over natively,
 * memory, scaling, and what a build takes.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Output } from "@kios/distro/cli/Output"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { recipe } from "@kios/distro/recipe"
import { Cause, Clock, Data, Duration, Effect, Exit, Layer, Runtime } from "effect"
import { CliError, Command, Flag } from "effect/cli"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Boots from "./boot/Boots.ts"
import type * as Sample from "./boot/Sample.ts"
import * as Rebuild from "./rebuild/Rebuild.ts"
import * as Images from "./Images.ts"
import * as Idle from "./memory/Idle.ts"
import * as Least from "./memory/Least.ts"
import * as Native from "./native/Native.ts"
import type { Part } from "./Part.ts"
import * as Pods from "./pods/Pods.ts"

const USAGE = 2

/** A number on the command line is out of its range. */
class BadNumber extends Data.TaggedError("BadNumber")<{
  readonly flag: string
  readonly value: number
  readonly range: string
}> {
  override readonly [Runtime.errorExitCode] = USAGE
  override get message(): string {
    return `--${this.flag} ${this.value}: want ${this.range}`
  }
}

/** A part that there is none of. */
class BadPart extends Data.TaggedError("BadPart")<{ readonly part: string }> {
  override readonly [Runtime.errorExitCode] = USAGE
  override get message(): string {
    return `--only ${JSON.stringify(this.part)}: want ${partNames.join(", ")}, one or more, with commas between`
  }
}

/** A result could not be written. */
class NotWritten extends Data.TaggedError("NotWritten")<{ readonly file: string; readonly cause: unknown }> {
  override get message(): string {
    return `${this.file} could not be written: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

const within = (flag: string, value: number, low: number, high: number) =>
  value >= low && value <= high
    ? Effect.void
    : Effect.fail(new BadNumber({ flag, value, range: `${low} to ${high}` }))

const write = (file: string, text: string) =>
  Effect.try({
    try: () => fs.writeFileSync(file, text),
    catch: (cause) => new NotWritten({ file, cause }),
  })

/** What can be measured, and what is unless `--only` says otherwise. */
const partNames = ["boot", "native", "stages", "pods", "memory", "least-memory", "build"] as const
const usual: ReadonlyArray<(typeof partNames)[number]> = ["boot", "native"]

/** The parts of `--only`, in the order of {@link partNames}. */
const chosen = (only: string) => {
  if (only === "") return Effect.succeed(usual)
  const wanted = only.split(",").map((name) => name.trim())
  const unknown = wanted.find((name) => !(partNames as ReadonlyArray<string>).includes(name))
  return unknown === undefined
    ? Effect.succeed(partNames.filter((name) => wanted.includes(name)))
    : Effect.fail(new BadPart({ part: unknown }))
}

const count = (name: string, value: number, description: string) =>
  Flag.Int(name).pipe(Flag.withDefault(value), Flag.withDescription(`${description} (default ${value})`))

const bench = Command.make(
  "bench",
  {
    quick: Flag.Boolean("quick").pipe(
      Flag.withDefault(false),
      Flag.withDescription("At most 2 pairs of boots, and 10 native rounds"),
    ),
    only: Flag.String("only").pipe(
      Flag.withDefault(""),
      Flag.withDescription(`What to measure: ${partNames.join(", ")} (default ${usual.join(",")})`),
    ),
    rounds: count("rounds", 30, "Native starts of each init"),
    idle: count("idle", 0, "memory: read once more after this many minutes"),
    pairs: count("pairs", 5, "Pairs of boots: one of kiOS, one of the floor"),
    memory: count("memory", 1536, "Memory of the machine, MiB"),
    cpus: count("cpus", 2, "Virtual CPUs"),
    timeout: count("timeout", 180, "Seconds that one boot may take"),
    kvm: Flag.Boolean("kvm").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Use KVM where it works; else every machine emulates, so that results compare"),
    ),
    directory: Flag.String("directory").pipe(
      Flag.withDefault("dist"),
      Flag.withDescription("Where the images, bench.json and bench.svg go (default dist)"),
    ),
  },
  Effect.fnUntraced(function* (flags) {
    yield* within("pairs", flags.pairs, 1, 100)
    yield* within("rounds", flags.rounds, 1, 1000)
    yield* within("idle", flags.idle, 0, 24 * 60)
    yield* within("timeout", flags.timeout, 10, 3600)
    const parts = yield* chosen(flags.only)
    const output = yield* Output
    const started = yield* Clock.monotonicTimeNanos
    const directory = path.resolve(flags.directory)
    const machine: Sample.Machine = {
      memoryMiB: flags.memory,
      cpus: flags.cpus,
      pod: "default/hello",
      timeoutSeconds: flags.timeout,
      accelerator: flags.kvm ? "auto" : "tcg",
    }
    const rounds = flags.quick ? Math.min(10, flags.rounds) : flags.rounds
    const results: Record<string, unknown> = {}
    const json = path.join(directory, "bench.json")
    // After each part: what was measured is there when a later one fails.
    const tell = Effect.fnUntraced(function* (name: string, { data, lines }: Part) {
      results[name] = data
      output.line(`\n${lines.join("\n")}\n`)
      const document = {
        version: 2,
        finishedAt: new Date(yield* Clock.currentTimeMillis).toISOString(),
        seconds: Number((yield* Clock.monotonicTimeNanos) - started) / 1e9,
        host: { cpus: os.cpus().length, memoryBytes: os.totalmem(), loadAverage: os.loadavg() },
        parts: results,
      }
      yield* write(json, `${JSON.stringify(document, null, 2)}\n`)
    })
    if (parts.includes("boot")) {
      const images = yield* Images.both(directory)
      const { part, svg } = yield* Boots.measure(
        images,
        machine,
        flags.quick ? Math.min(2, flags.pairs) : flags.pairs,
      )
      yield* tell("boot", part)
      yield* write(path.join(directory, "bench.svg"), svg)
    }
    if (parts.includes("native")) {
      if (process.getuid?.() === 0 || flags.only !== "")
        yield* tell("native", yield* Native.handOver(recipe, directory, rounds))
      else output.line("native: left out, because namespaces and cgroups of its own are for root")
    }
    if (parts.includes("stages"))
      yield* tell("stages", yield* Native.stages(recipe, directory, rounds, [0, 10, 30, 100]))
    if (parts.includes("pods")) yield* tell("pods", yield* Pods.measure(directory, machine, [1, 20, 60]))
    if (parts.includes("memory"))
      yield* tell("memory", yield* Idle.measure(directory, machine, Duration.minutes(flags.idle)))
    if (parts.includes("least-memory"))
      yield* tell("least-memory", yield* Least.measure(yield* Images.both(directory), machine))
    if (parts.includes("build")) yield* tell("build", yield* Rebuild.measure(directory, 3))

    const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
    output.line(`${seconds.toFixed(0)} s in all; ${json}`)
  }),
).pipe(
  Command.withDescription(
    "Boot kiOS and the floor (a static C init with the same kernel, containerd and kubelet) in turns, and compare",
  ),
)

const services = Layer.mergeAll(
  NodeServices.layer,
  ComponentStore.live,
  CommandRunner.layer,
  Output.layer(false),
)

Command.run(bench, { version: recipe.version }).pipe(
  Effect.provide(services),
  Effect.tapCause((cause) =>
    Effect.sync(() => {
      for (const reason of cause.reasons) {
        // The command-line library tells its own errors with the help text.
        if (Cause.isInterruptReason(reason)) continue
        if (Cause.isFailReason(reason) && CliError.isCliError(reason.error)) continue
        const error: unknown = Cause.isFailReason(reason) ? reason.error : reason.defect
        const bug = Cause.isFailReason(reason) ? "" : "bug: "
        const text = error instanceof Error ? (bug === "" ? error.message : error.stack) : String(error)
        process.stderr.write(`bench: ${bug}${text}\n`)
      }
    }),
  ),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) =>
      Exit.isFailure(exit) && CliError.isCliError(Cause.squash(exit.cause))
        ? onExit(USAGE)
        : Runtime.defaultTeardown(exit, onExit),
  }),
)
