import { Effect } from "effect"
import {
  type CommandNotFound,
  CommandNotStarted,
  type CommandResult,
  CommandRunner,
  type CommandSpec,
} from "./CommandRunner.ts"
import { BuildFailed, DiskFull, FileFailure, MissingTool } from "./ComponentError.ts"
import { existingParent, freeBytes } from "./Files.ts"
import { report } from "./Progress.ts"

/** Debian packages that bring the tools. */
const PACKAGES: Readonly<Record<string, string>> = {
  "apt-cache": "apt",
  "apt-get": "apt",
  depmod: "kmod",
  "dpkg-deb": "dpkg",
  gcc: "gcc",
  go: "golang-go",
  "pkg-config": "pkg-config",
  strip: "binutils",
  tar: "tar",
  xz: "xz-utils",
}

/** Where a tool comes from, as an error for what it is needed for. */
export const missingTool = (tool: string, neededFor: string): MissingTool => {
  const name = tool.slice(tool.lastIndexOf("/") + 1)
  return new MissingTool({ tools: [name], packages: [PACKAGES[name] ?? name], neededFor })
}

/** A program run for a component. */
export interface ToolSpec extends CommandSpec {
  readonly component: string
  /** What it is run for: "building runc". */
  readonly doing: string
  /** Where it writes: named when the disk is full and its output does not say where. */
  readonly writesTo: string
}

/**
 * Run a program and give its result whatever its exit status, with its output
 * as progress. Fails with `MissingTool` when it is not installed, and with
 * `DiskFull` when it failed and its output says so.
 */
export const runTool = (
  spec: ToolSpec,
): Effect.Effect<CommandResult, MissingTool | FileFailure | DiskFull, CommandRunner> =>
  Effect.gen(function* () {
    const runner = yield* CommandRunner
    const context = yield* Effect.context<never>()
    const tell = Effect.runSyncWith(context)
    const result = yield* runner
      .run({
        ...spec,
        onLine: (line, stream) => {
          if (!(spec.capture === true && stream === "stdout")) {
            tell(report({ _tag: "Output", component: spec.component, line }))
          }
          spec.onLine?.(line, stream)
        },
      })
      .pipe(
        Effect.mapError((error: CommandNotFound | CommandNotStarted) =>
          error._tag === "CommandNotFound"
            ? missingTool(error.command, spec.doing)
            : new FileFailure({ doing: spec.doing, path: spec.command, errno: error.reason }),
        ),
      )
    if (result.exit !== 0) {
      const full = yield* fullDirectory(result.tail, spec.writesTo)
      if (full !== undefined) return yield* new DiskFull({ doing: spec.doing, ...full })
    }
    return result
  })

/** Like {@link runTool}, and fails with `BuildFailed` when the exit status is not 0. */
export const runToolOk = (
  spec: ToolSpec,
): Effect.Effect<CommandResult, MissingTool | FileFailure | DiskFull | BuildFailed, CommandRunner> =>
  Effect.filterOrFail(
    runTool(spec),
    (result) => result.exit === 0,
    (result) => buildFailed(spec, result),
  )

/** The error for a program that failed. */
export const buildFailed = (spec: ToolSpec, result: CommandResult): BuildFailed =>
  new BuildFailed({
    component: spec.component,
    command: [spec.command, ...spec.args]
      .map((word) => (/[^\w./=:@+-]/u.test(word) ? `'${word}'` : word))
      .join(" "),
    exit: result.exit,
    tail: result.tail,
  })

/**
 * The directory that was full when a tool failed, and what is free there:
 * undefined when neither its output nor the filesystem it writes to says so.
 */
export const fullDirectory = (
  lines: ReadonlyArray<string>,
  writesTo: string,
): Effect.Effect<{ readonly directory: string; readonly freeBytes: number | undefined } | undefined> =>
  Effect.gen(function* () {
    // tar says no more than "Wrote only 3072 of 10240 bytes".
    const says = /no space left on device|disk quota exceeded|ENOSPC|wrote only \d+ of \d+ bytes/iu
    // A line of a thousand characters is no message but minified source, of which a stack trace quotes all.
    const line = lines.find((text) => text.length < 1000 && says.test(text))
    const own = { directory: writesTo, freeBytes: yield* freeBytes(writesTo) }
    if (line === undefined) return own.freeBytes === 0 ? own : undefined
    // "write /tmp/b001/_pkg_.a: no space left on device" names the full disk, "/usr/bin/link: mapping
    // output file failed: no space left on device" only the program: the one with the least room is it.
    let least = own
    for (const [name] of line.matchAll(/(?<![\w.])\/[^\s:'"]+/gu)) {
      const directory = existingParent(name)
      const free = yield* freeBytes(directory)
      if (free !== undefined && free < (least.freeBytes ?? Infinity)) least = { directory, freeBytes: free }
    }
    return least
  })
