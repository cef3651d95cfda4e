/**
 * The kernel command line, as far as kiOS reads it, by Schema.
 *
 * What the kernel and other programs understand is left alone; a `kios.` or `datapart.` key
 * that nobody knows, or a value that does not fit, is a problem that is told
 * and not a reason to refuse to boot.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Kernel } from "./Kernel.ts"
import type { KernelError } from "./KernelError.ts"

const LogLevelName = Schema.Literals(["debug", "info", "warn", "error"])

// A comma-separated list of names, as modules are spelled by modprobe(8).
const ModuleList = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*$/u, {
    message: "expected module names separated by commas",
  }),
)

const Hostname = Schema.String.check(
  Schema.isPattern(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/u, {
    message: "expected a lower-case DNS name (RFC 1123)",
  }),
  Schema.isMaxLength(64),
)

const DataPartition = Schema.String.check(
  Schema.isPattern(/^(\/dev\/[\w./-]+|(PARTUUID|PARTLABEL|UUID|LABEL)=.+|none)$/u, {
    message: "expected /dev/..., PARTUUID=, PARTLABEL=, UUID=, LABEL= or none",
  }),
)

// As systemd spells them; a bare key is a yes.
const yes = ["", "1", "yes", "true", "on"] as const
const Switch = Schema.Literals([...yes, "0", "no", "false", "off"])
const Watchdog = Schema.String.check(
  Schema.isPattern(/^(off|[5-9]|[1-9]\d{1,3})$/u, {
    message: "expected off or a number of seconds from 5 to 9999",
  }),
)

// One decoder a key, so that one bad value does not take the others with it.
const keys = {
  datapart: DataPartition,
  "datapart.grow": Switch,
  "kios.log": LogLevelName,
  "kios.hostname": Hostname,
  "kios.modules": ModuleList,
  "kios.watchdog": Watchdog,
} as const

/** The values that kiOS reads. */
export interface CmdlineValues {
  /** Where the data partition is; without it, found by its GPT type. */
  readonly datapart?: string
  /** Whether the data partition and its filesystem are grown to the end of the disk. */
  readonly growDataPartition?: boolean
  /** The least level that init logs. */
  readonly logLevel: "debug" | "info" | "warn" | "error"
  readonly hostname?: string
  /** Modules to load besides the image's own list. */
  readonly modules: ReadonlyArray<string>
  /** How long init may hang before the watchdog resets the machine, in seconds; absent: as the stage has it. */
  readonly watchdog?: number | "off"
}

/** A key that is unknown or whose value does not fit. */
export interface CmdlineProblem {
  readonly key: string
  readonly value: string
  readonly reason: string
}

/** A command line, read: the values that kiOS knows, what was wrong with them, and everything else as it stands. */
export interface CmdlineShape {
  readonly raw: string
  readonly values: CmdlineValues
  readonly problems: ReadonlyArray<CmdlineProblem>
  /** Every `key=value` and bare key, in order, as the kernel splits them. */
  readonly parameters: ReadonlyArray<readonly [key: string, value: string]>
}

/**
 * Splits as the kernel does: at blanks, except in double quotes, which may stand around the value or the whole.
 *
 * @example
 * ```ts
 * import * as Cmdline from "@kios/core/Cmdline"
 *
 * Cmdline.split('quiet dyndbg="file a.c +p"') // [["quiet", ""], ["dyndbg", "file a.c +p"]]
 * ```
 */
export const split = (raw: string): ReadonlyArray<readonly [string, string]> => {
  const words = raw.match(/(?:[^\s"]|"[^"]*"?)+/gu) ?? []
  return words.map((word) => {
    const plain = word.startsWith('"') ? word.replaceAll('"', "") : word
    const at = plain.indexOf("=")
    return at < 0 ? [plain, ""] : [plain.slice(0, at), plain.slice(at + 1).replaceAll(/^"|"$/gu, "")]
  })
}

/**
 * Reads a command line.
 *
 * @example
 * ```ts
 * import * as Cmdline from "@kios/core/Cmdline"
 *
 * const cmdline = Cmdline.parse("console=ttyS0 kios.log=chatty datapart=PARTLABEL=data")
 * cmdline.values.datapart // "PARTLABEL=data"
 * cmdline.values.logLevel // "info", and cmdline.problems has one entry that says why
 * ```
 */
export const parse = (raw: string): CmdlineShape => {
  const parameters = split(raw.trim())
  const problems: Array<CmdlineProblem> = []
  const found: { -readonly [K in keyof typeof keys]?: (typeof keys)[K]["Type"] } = {}
  for (const [key, value] of parameters) {
    if (Object.hasOwn(keys, key)) {
      const known = key as keyof typeof keys
      const decoded = Schema.decodeUnknownResult(keys[known] as Schema.Codec<string>)(value)
      // As with the kernel's own parameters, the last one counts.
      if (Result.isSuccess(decoded)) Object.assign(found, { [known]: decoded.success })
      else problems.push({ key, value, reason: decoded.failure.message.split("\n")[0] ?? "" })
    } else if (key.startsWith("kios.") || key.startsWith("datapart.")) {
      problems.push({ key, value, reason: `no such key; kiOS knows ${Object.keys(keys).join(", ")}` })
    }
  }
  return {
    raw: raw.trim(),
    parameters,
    problems,
    values: {
      ...(found.datapart === undefined ? {} : { datapart: found.datapart }),
      ...(found["kios.hostname"] === undefined ? {} : { hostname: found["kios.hostname"] }),
      ...(yes.some((word) => word === found["datapart.grow"]) ? { growDataPartition: true } : {}),
      logLevel: found["kios.log"] ?? "info",
      modules: found["kios.modules"]?.split(",") ?? [],
      ...(found["kios.watchdog"] === undefined
        ? {}
        : { watchdog: found["kios.watchdog"] === "off" ? "off" : Number(found["kios.watchdog"]) }),
    },
  }
}

/**
 * The command line of this boot, as a service.
 *
 * @example
 * ```ts
 * import { Cmdline } from "@kios/core/Cmdline"
 * import * as Effect from "effect/Effect"
 *
 * const quiet = Cmdline.use(({ parameters }) => Effect.succeed(parameters.some(([key]) => key === "quiet")))
 * ```
 */
export class Cmdline extends Context.Service<Cmdline, CmdlineShape>()("kios/Cmdline") {}

/**
 * Reads `/proc/cmdline`.
 *
 * @example
 * ```ts
 * import * as Cmdline from "@kios/core/Cmdline"
 * import * as TestMachine from "@kios/core/testing/TestMachine"
 * import * as Effect from "effect/Effect"
 *
 * const machine = TestMachine.make({ files: { "/proc/cmdline": "kios.hostname=node-7\n" } })
 * Effect.runSync(Effect.provide(Cmdline.read, machine.layer)).values.hostname // "node-7"
 * ```
 */
export const read: Effect.Effect<CmdlineShape, KernelError, Kernel> = Effect.gen(function* () {
  const kernel = yield* Kernel
  return parse(yield* kernel.readText("/proc/cmdline"))
})
