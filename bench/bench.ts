/**
 * `npm run bench`: boots kiOS and its floor in turns and compares them.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Build from "@kios/distro/Build"
import { buildReporter, megabytes, Output } from "@kios/distro/cli/Output"
import { CommandRunner } from "@kios/distro/components/CommandRunner"
import { ComponentStore } from "@kios/distro/components/ComponentStore"
import { Progress } from "@kios/distro/components/Progress"
import { recipe } from "@kios/distro/recipe"
import { Cause, Clock, Data, Effect, Exit, Layer, Runtime } from "effect"
import { CliError, Command, Flag } from "effect/cli"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Comparison from "./Comparison.ts"
import * as FloorImage from "./FloorImage.ts"
import * as Picture from "./Picture.ts"
import * as Sample from "./Sample.ts"

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

const image = Effect.fnUntraced(function* (name: "kios" | "floor", directory: string) {
  const output = yield* Output
  const wanted =
    name === "kios" ? recipe : yield* FloorImage.of(recipe, path.join(directory, "build", "floor-files"))
  const built = yield* Build.build({ recipe: wanted, output: path.join(directory, `${name}.efi`) })
  output.line(
    `= ${built.efi}  ${megabytes(built.bytes)}, unpacked ${megabytes(built.initramfs.uncompressedBytes)}`,
  )
  return built
})

/** Above this share of the host's processors, other programs are part of the result. */
const QUIET = 0.1

const busy = (others: number | undefined): ReadonlyArray<string> =>
  others === undefined || others <= QUIET ? [] : [`others took ${Math.round(100 * others)} % of the host`]

const boot = Effect.fnUntraced(function* (title: string, efi: string, machine: Sample.Machine) {
  const output = yield* Output
  const said: Array<string> = []
  output.status(`${title}: firmware`)
  const sample = yield* Sample.measure(efi, machine, (name, seconds) => {
    said.push(`${name} ${seconds.toFixed(2)}`)
    output.status(`${title}: ${said.slice(-3).join(", ")}`)
  }).pipe(Effect.ensuring(Effect.sync(() => output.status(undefined))))
  const numbers = Sample.milestones.map((name) => `${name} ${sample[name].toFixed(2)}`)
  output.line(
    `+ ${title}: ${[`firmware ${sample.firmware.toFixed(2)}`, ...numbers, ...busy(sample.others)].join(", ")}`,
  )
  return sample
})

const count = (name: string, value: number, description: string) =>
  Flag.Int(name).pipe(Flag.withDefault(value), Flag.withDescription(`${description} (default ${value})`))

const bench = Command.make(
  "bench",
  {
    quick: Flag.Boolean("quick").pipe(
      Flag.withDefault(false),
      Flag.withDescription("At most 2 pairs of boots"),
    ),
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
    yield* within("timeout", flags.timeout, 10, 3600)
    const output = yield* Output
    const started = yield* Clock.monotonicTimeNanos
    const directory = path.resolve(flags.directory)
    const reporter = buildReporter(output)
    const [kios, floor] = yield* Effect.all([image("kios", directory), image("floor", directory)]).pipe(
      Effect.provideService(Progress, reporter),
      Effect.ensuring(Effect.sync(() => output.status(undefined))),
    )
    const machine: Sample.Machine = {
      memoryMiB: flags.memory,
      cpus: flags.cpus,
      pod: "default/hello",
      timeoutSeconds: flags.timeout,
      accelerator: flags.kvm ? "auto" : "tcg",
    }
    const number = flags.quick ? Math.min(2, flags.pairs) : flags.pairs
    const pairs: Array<Comparison.Pair> = []
    for (let pair = 1; pair <= number; pair++) {
      // Who goes first changes, so that being the second is nobody's advantage.
      const order = pair % 2 === 1 ? (["floor", "kios"] as const) : (["kios", "floor"] as const)
      const samples: { kios?: Sample.Sample; floor?: Sample.Sample } = {}
      for (const name of order)
        samples[name] = yield* boot(`${pair}/${number} ${name}`, { kios, floor }[name].efi, machine)
      pairs.push({ kios: samples.kios!, floor: samples.floor! })
    }

    const rows = Comparison.compare(pairs)
    const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
    const shares = pairs.flatMap((pair) => [pair.kios.others ?? 0, pair.floor.others ?? 0])
    const disturbed = Math.max(...shares)
    const note =
      `${number} pairs, ${flags.cpus} CPUs, ${flags.memory} MiB, QEMU ${flags.kvm ? "" : "without KVM "}` +
      `on ${os.cpus().length} host CPUs` +
      (disturbed > QUIET
        ? `; the host was busy (other programs took up to ${Math.round(100 * disturbed)} % of it)`
        : "")
    const json = path.join(directory, "bench.json")
    const svg = path.join(directory, "bench.svg")
    const document = {
      version: 1,
      finishedAt: new Date(yield* Clock.currentTimeMillis).toISOString(),
      seconds,
      host: {
        cpus: os.cpus().length,
        memoryBytes: os.totalmem(),
        loadAverage: os.loadavg(),
        others: disturbed,
      },
      machine,
      images: { kios, floor },
      pairs,
      rows,
    }
    yield* write(json, `${JSON.stringify(document, null, 2)}\n`)
    yield* write(svg, Picture.svg(rows, note))
    output.line(`\n${Comparison.render(rows)}\n\n${Picture.text(rows, output.width)}\n`)
    output.line(
      `${note}; ${seconds.toFixed(0)} s in all\nEFI: kios ${megabytes(kios.bytes)}, floor ${megabytes(floor.bytes)}\n${json}\n${svg}`,
    )
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
