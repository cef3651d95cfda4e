/**
 * What becomes of a boot when a system call fails, for every call that it
 * makes and every errno that the call may fail with: boots a pipeline on a
 * {@link "./TestMachine.ts"} once for each, and holds the outcome to what the
 * stage declares.
 *
 * A call that fails is its stage's failure, told with the errno: the boot's if
 * the stage is required, a degraded boot if it is optional. What a stage comes
 * up without it lists in `tolerates`; a stage with a `retry`, and a process
 * under supervision, may also come up after all.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type BootRecord, BootReport } from "../BootReport.ts"
import { Kernel } from "../Kernel.ts"
import type * as Stage from "../Stage.ts"
import { StageFailed } from "../StageError.ts"
import { attributed, type CallSite, type Fallible, nameOf } from "./CallSites.ts"
import * as TestMachine from "./TestMachine.ts"

export type { CallSite, Fallible } from "./CallSites.ts"

/**
 * The errnos that a call is failed with: of those in the ERRORS section of its
 * manual page, the ones that a right call can meet on a machine that is
 * broken, short of something, or built otherwise.
 *
 * @example
 * ```ts
 * import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
 *
 * const fewer = { ...ErrnoSweep.errnos, mount: ["ENODEV"] }
 * ```
 */
export const errnos: Readonly<Record<Fallible, ReadonlyArray<string>>> = {
  mount: ["EACCES", "EBUSY", "EINVAL", "EIO", "ENODEV", "ENOENT", "ENOMEM", "EPERM", "EROFS"],
  umount: ["EBUSY", "EINVAL", "EPERM"],
  chroot: ["EACCES", "EIO", "ENOENT", "ENOMEM", "EPERM"],
  chdir: ["EACCES", "EIO", "ENOENT", "ENOMEM"],
  loadModule: ["EEXIST", "EIO", "EKEYREJECTED", "ENOENT", "ENOEXEC", "ENOKEY", "ENOMEM", "EPERM"],
  setHostname: ["EINVAL", "EPERM"],
  linkUp: ["ENOBUFS", "ENODEV", "EPERM"],
  reboot: ["EINVAL", "EPERM"],
  setOpenFilesLimit: ["EINVAL", "EPERM"],
  openWatchdog: ["EACCES", "EBUSY", "ENODEV", "ENOENT", "ENOTTY"],
  setWatchdogTimeout: ["EINVAL", "EOPNOTSUPP"],
  feedWatchdog: ["EIO"],
  watchInput: ["EACCES", "ENODEV", "ENOENT", "ENOTTY"],
  disarmWatchdog: ["EIO"],
  spawn: ["EACCES", "EAGAIN", "ENOENT", "ENOEXEC", "ENOMEM"],
  openOutput: ["EMFILE", "ENFILE"],
  listen: ["EACCES", "EADDRINUSE", "EMFILE", "ENOSPC", "EROFS"],
  send: ["EAGAIN", "EPIPE"],
  sendPipe: ["EAGAIN", "EMFILE", "EPIPE"],
  kill: ["EPERM", "ESRCH"],
  peekDeadChild: ["ECHILD"],
  reap: ["ECHILD"],
  readFile: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOMEM"],
  readText: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOMEM"],
  readAt: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOMEM"],
  writeAt: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOMEM", "ENOSPC", "EPERM", "EROFS"],
  addPartition: ["EACCES", "EBUSY", "EINVAL", "ENOENT", "ENOMEM", "ENXIO"],
  resizePartition: ["EACCES", "EBUSY", "EINVAL", "ENOENT", "ENXIO"],
  resizeFilesystem: ["EBUSY", "EINVAL", "EIO", "ENOMEM", "ENOSPC", "ENOTTY", "EOPNOTSUPP", "EPERM", "EROFS"],
  writeFile: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOSPC", "EROFS"],
  writeControl: ["EACCES", "EBUSY", "EINVAL", "EIO", "ENOENT", "ENOSPC", "EPERM"],
  makeDirectory: ["EACCES", "EEXIST", "EIO", "ENOENT", "ENOSPC", "EPERM", "EROFS"],
  readDirectory: ["EACCES", "EIO", "EMFILE", "ENOENT", "ENOMEM"],
  stat: ["EACCES", "EIO", "ENOMEM"],
  watchDirectory: ["EACCES", "EMFILE", "ENOENT", "ENOMEM", "ENOSPC", "ENOTDIR"],
  makeFifo: ["EACCES", "EEXIST", "EIO", "ENOENT", "ENOSPC", "EROFS"],
  symlink: ["EACCES", "EEXIST", "EIO", "ENOSPC", "EPERM", "EROFS"],
  readLink: ["EACCES", "EINVAL", "EIO", "ENOENT"],
  rename: ["EACCES", "EBUSY", "EIO", "ENOSPC", "EROFS"],
  unlink: ["EACCES", "EBUSY", "EIO", "ENOENT", "EROFS"],
}

/**
 * How a boot with one failed call ended. `failed`: it failed, for that errno.
 * `degraded`: an optional stage failed for it. `tolerated`: the stage is up
 * without the call, as it declares. `retried`: it came up in the end.
 * `unaffected`: a call of no stage, without consequence.
 */
export type Outcome = "failed" | "degraded" | "tolerated" | "retried" | "unaffected"

/** One boot. */
export interface Trial {
  readonly site: CallSite
  readonly errno: string
  /** Undefined when it ended in a way that is not declared. */
  readonly outcome: Outcome | undefined
  /** What happened, in words. */
  readonly told: string
}

/** All of the boots but the first, in which nothing fails. */
export interface Sweep {
  /** The stages by name, in the order of the pipeline. */
  readonly stages: ReadonlyArray<string>
  /** The calls that were failed. */
  readonly sites: ReadonlyArray<CallSite>
  readonly trials: ReadonlyArray<Trial>
  /** The trials whose outcome no stage declares: what a test wants to be empty. */
  readonly undeclared: ReadonlyArray<Trial>
  /** Tolerances that no call of this boot comes under. */
  readonly unused: ReadonlyArray<{ readonly stage: string; readonly tolerance: Stage.Tolerance }>
}

/** What to boot, on what. */
export interface SweepOptions {
  /** A {@link "../Pipeline.ts"} that needs nothing but the platform. */
  readonly pipeline: {
    readonly stages: ReadonlyArray<Stage.Any>
    readonly layer: Layer.Layer<never, StageFailed, Stage.Platform>
  }
  /** A new machine for every boot. */
  readonly machine: () => TestMachine.TestMachine
  /** Errnos by operation; default: {@link errnos}. */
  readonly errnos?: Readonly<Partial<Record<Fallible, ReadonlyArray<string>>>>
  /** Which calls are failed; default: all. */
  readonly only?: (site: CallSite) => boolean
  /** How long a boot may take, up or down, before it counts as hung (default 10 s). */
  readonly within?: Duration.Input
  /** Boots at a time (default 4: some wait for a restart). */
  readonly concurrency?: number
}

interface Booted {
  readonly exit: Exit.Exit<BootRecord, StageFailed>
  /** Records of the kernel log that are warnings or worse. */
  readonly warnings: ReadonlyArray<string>
  /** Whether it went down in time. */
  readonly down: boolean
  /** Whether the call that was to fail was made. */
  readonly reached: boolean
}

const boot = (
  options: SweepOptions,
  fault: { readonly site: CallSite; readonly errno: string } | undefined,
  saw: (site: CallSite) => void = () => {},
): Effect.Effect<Booted> =>
  Effect.gen(function* () {
    const machine = options.machine()
    const within = options.within ?? "10 seconds"
    let booting = true
    let reached = false
    const wanted = fault === undefined ? undefined : nameOf(fault.site)
    const kernel = attributed(machine.kernel, (site) => {
      // What is done at shutdown is no part of the boot.
      if (!booting) return
      saw(site)
      if (fault === undefined || nameOf(site) !== wanted) return
      reached = true
      machine.failNth(1, site.operation, fault.errno, site.path === undefined ? {} : { path: site.path })
    })
    const scope = yield* Scope.make()
    // One of its own: a boot must not find the stages of the one before.
    const memo = Layer.makeMemoMapUnsafe()
    const platform = TestMachine.platform({ ...machine, layer: Layer.succeed(Kernel, kernel) })
    const context = yield* Layer.buildWithMemoMap(platform, memo, scope)
    const exit = yield* Layer.buildWithMemoMap(options.pipeline.layer, memo, scope).pipe(
      Effect.andThen(BootReport.use((report) => report.current)),
      Effect.provideContext(context as Context.Context<Stage.Platform>),
      Effect.timeoutOrElse({ duration: within, orElse: () => Effect.die(new Error("the boot hangs")) }),
      Effect.exit,
    )
    booting = false
    const warnings = machine.kmsg.filter((line) => /^(emerg|alert|crit|err|warning) /u.test(line))
    const down = yield* Effect.timeoutOrElse(Effect.as(Scope.close(scope, Exit.void), true), {
      duration: within,
      orElse: () => Effect.succeed(false),
    })
    return { exit, warnings, down, reached }
  })

const covers = (tolerance: Stage.Tolerance, site: CallSite, errno: string | undefined): boolean =>
  tolerance.operation === site.operation &&
  (tolerance.path === undefined || tolerance.path.test(site.path ?? "")) &&
  (errno === undefined || tolerance.errno === undefined || tolerance.errno.includes(errno))

/** The outcome, if it is one that the stage declares, and what happened. */
const judge = (
  stage: Stage.Any | undefined,
  site: CallSite,
  errno: string,
  { down, exit, reached, warnings }: Booted,
): readonly [Outcome | undefined, string] => {
  if (!reached) return [undefined, "the call was not made in this boot"]
  if (!down) return [undefined, "the shutdown hangs"]
  const told = warnings.some((line) => line.includes(errno))
  const tolerance = stage?.tolerates.find((one) => covers(one, site, errno))
  const silence = `${site.stage} is up, and nothing in the log names ${errno}`
  if (Exit.isFailure(exit)) {
    const error = Cause.squash(exit.cause)
    if (!(error instanceof StageFailed)) return [undefined, String(error)]
    if (tolerance?.breaks?.includes(error.stage) === true)
      return told || tolerance.silent === true ? ["failed", error.message] : [undefined, silence]
    const right = stage?.criticality === "required" && tolerance === undefined && site.stage === error.stage
    return [right && error.reason.includes(errno) ? "failed" : undefined, error.message]
  }
  if (stage === undefined) return ["unaffected", "the boot succeeds"]
  const record = exit.value.stages.find(({ name }) => name === stage.name)
  const happened = `${stage.name} is ${record?.outcome ?? "absent"}${record?.reason === undefined ? "" : `: ${record.reason}`}`
  if (record?.outcome === "up") {
    if (tolerance !== undefined)
      return told || tolerance.silent === true ? ["tolerated", tolerance.because] : [undefined, silence]
    if (site.process !== undefined) return [told ? "retried" : undefined, told ? happened : silence]
    return [
      stage.retry === undefined ? undefined : "retried",
      stage.retry === undefined ? `${happened}, and does not say that it tolerates ${errno}` : happened,
    ]
  }
  const right =
    record?.outcome === "failed" && tolerance === undefined && record.reason?.includes(errno) === true
  return [right ? "degraded" : undefined, happened]
}

/**
 * Boots the pipeline once as it is, and then once for each of its calls and
 * each errno, with that call failing, once, with that errno. Dies when it does
 * not come up as it is.
 *
 * Calls that are made when the node goes down are not failed, but one that
 * does not go down is a trial that ended undeclared.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Stage from "@kios/core/Stage"
 * import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 *
 * const name = Stage.make({
 *   name: "name",
 *   description: "name the machine",
 *   layer: Layer.effectDiscard(Kernel.use((kernel) => kernel.setHostname("node-7"))),
 * })
 * const program = Effect.gen(function* () {
 *   const { trials, undeclared } = yield* ErrnoSweep.sweep({
 *     pipeline: Pipeline.make([name]),
 *     machine: () => TestMachine.make(),
 *   })
 *   for (const { errno, site, told } of undeclared) yield* Effect.logError(`${site.path} ${errno}: ${told}`)
 *   return trials.length
 * })
 * await Effect.runPromise(program)
 * ```
 */
export const sweep = (options: SweepOptions): Effect.Effect<Sweep> =>
  Effect.gen(function* () {
    const calls: Array<CallSite> = []
    const whole = yield* boot(options, undefined, (site) => calls.push(site))
    if (Exit.isFailure(whole.exit))
      return yield* Effect.die(
        new Error(`the pipeline does not come up as it is: ${Cause.pretty(whole.exit.cause)}`),
      )
    const { stages } = options.pipeline
    const sites = calls.filter(options.only ?? (() => true))
    const table = options.errnos ?? errnos
    const planned = sites.flatMap((site) => (table[site.operation] ?? []).map((errno) => ({ site, errno })))
    const trials = yield* Effect.forEach(
      planned,
      ({ errno, site }) =>
        Effect.map(boot(options, { site, errno }), (booted): Trial => {
          const stage = stages.find(({ name }) => name === site.stage)
          const [outcome, told] = judge(stage, site, errno, booted)
          return { site, errno, outcome, told }
        }),
      { concurrency: options.concurrency ?? 4 },
    )
    return {
      stages: stages.map(({ name }) => name),
      sites,
      trials,
      undeclared: trials.filter(({ outcome }) => outcome === undefined),
      unused: stages.flatMap((stage) =>
        stage.tolerates
          .filter((one) => !calls.some((site) => site.stage === stage.name && covers(one, site, undefined)))
          .map((tolerance) => ({ stage: stage.name, tolerance })),
      ),
    }
  })

/**
 * The trials that ended undeclared, a line each, for the message of a test.
 *
 * @example
 * ```ts
 * import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
 *
 * ErrnoSweep.describe([]) // ""
 * ```
 */
export const describe = (trials: ReadonlyArray<Trial>): string =>
  trials.map(({ errno, site, told }) => `${nameOf(site)} = ${errno}: ${told}`).join("\n")

const outcomes = ["failed", "degraded", "tolerated", "retried", "unaffected"] as const

/**
 * Sweeps as a table in Markdown, a row for each stage and operation, with the
 * sums below: call sites, boots, and how they ended.
 *
 * @example
 * ```ts
 * import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
 *
 * ErrnoSweep.toMarkdown([{ stages: [], sites: [], trials: [], undeclared: [], unused: [] }])
 * ```
 */
export const toMarkdown = (sweeps: ReadonlyArray<Sweep>): string => {
  const sites = sweeps.flatMap((one) => one.sites)
  const trials = sweeps.flatMap((one) => one.trials)
  const nameOfStage = (site: CallSite) => site.stage ?? "(none)"
  const row = (stage: string, operation: string, own: (site: CallSite) => boolean) => {
    const boots = trials.filter(({ site }) => own(site))
    const counts = [...outcomes, undefined].map(
      (outcome) => boots.filter((trial) => trial.outcome === outcome).length,
    )
    return [stage, operation, ...[sites.filter(own).length, boots.length, ...counts].map(String)]
  }
  // Not by time: stages run beside each other.
  const stages = [...new Set([...sweeps.flatMap((one) => one.stages), "(none)"])]
  const rows = [
    ["stage", "operation", "sites", "boots", ...outcomes, "undeclared"],
    ...stages.flatMap((stage) => {
      const own = sites.filter((site) => nameOfStage(site) === stage)
      const operations = [...new Set(own.map(({ operation }) => operation))].toSorted()
      return operations.map((operation) =>
        row(stage, operation, (site) => nameOfStage(site) === stage && site.operation === operation),
      )
    }),
    row("all", "", () => true),
  ]
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((cells) => cells[column]?.length ?? 0)),
  )
  const isText = (column: number) => column < 2
  const [head = "", ...body] = rows.map(
    (cells) =>
      `| ${cells.map((cell, column) => (isText(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(" | ")} |`,
  )
  const rule = widths.map((width, column) =>
    isText(column) ? "-".repeat(width) : `${"-".repeat(width - 1)}:`,
  )
  return [head, `| ${rule.join(" | ")} |`, ...body].join("\n")
}
