/**
 * The programs of the build machine that the image writers run (`lz4`,
 * `sfdisk`, `mformat`, `mcopy`, `mke2fs`, `debugfs`, `qemu-img`). A reference, so tests
 * replace it: `Effect.provideService(HostTools, fake)`.
 *
 * @module
 */
import { Context, Effect } from "effect"
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fromUnknown, type ImageError, MissingTool, ToolFailed } from "./ImageError.ts"

/**
 * Which Debian package a program is in.
 */
export const debianPackages = {
  lz4: "lz4",
  sfdisk: "fdisk",
  mformat: "mtools",
  mmd: "mtools",
  mcopy: "mtools",
  mke2fs: "e2fsprogs",
  debugfs: "e2fsprogs",
  "qemu-img": "qemu-utils",
} as const

/**
 * A program that we know how to run.
 */
export type Tool = keyof typeof debianPackages

/**
 * One run of a program. `env` is added to a minimal environment (PATH, C
 * locale, UTC) so that the caller's settings do not reach the image.
 */
export interface ToolRun {
  readonly tool: Tool
  readonly args: ReadonlyArray<string>
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string
}

/**
 * Runs programs of the build machine.
 *
 * `has` tells whether a program is installed. `run` gives what the program wrote as text. `open` starts a filter whose input and
 * output are streamed; it is killed when `signal` aborts, and `done` rejects
 * with {@link ToolFailed} unless it exits 0.
 *
 * @example
 * ```ts
 * const version = Effect.flatMap(HostTools, (tools) => tools.run({ tool: "sfdisk", args: ["--version"] }))
 * ```
 */
export interface HostToolsService {
  readonly has: (tool: Tool) => boolean
  readonly run: (
    run: ToolRun,
  ) => Effect.Effect<{ readonly stdout: string; readonly stderr: string }, ImageError>
  readonly open: (run: ToolRun, signal: AbortSignal) => Filter
}

/**
 * A running filter, see {@link HostToolsService}.
 */
export interface Filter {
  readonly stdin: NodeJS.WritableStream
  readonly stdout: NodeJS.ReadableStream
  readonly done: Promise<void>
}

/**
 * Where a program is: on PATH or, for those that Debian keeps in sbin, in
 * /usr/sbin or /sbin, which an ordinary user's PATH lacks. `undefined` when it
 * is not installed.
 */
export const find = (tool: string, searchPath = process.env["PATH"] ?? "/usr/bin:/bin"): string | undefined =>
  `${searchPath}:/usr/sbin:/sbin`
    .split(":")
    .filter((dir) => dir !== "")
    .map((dir) => path.join(dir, tool))
    .find((file) => {
      try {
        fs.accessSync(file, fs.constants.X_OK)
        return fs.statSync(file).isFile()
      } catch {
        return false
      }
    })

/**
 * Fails with {@link MissingTool} for the first of these programs that is not
 * installed: asked before work starts.
 */
export const ensureInstalled = (tools: ReadonlyArray<Tool>): Effect.Effect<void, MissingTool> =>
  Effect.flatMap(HostTools, ({ has }) => {
    const missing = tools.find((tool) => !has(tool))
    return missing === undefined
      ? Effect.void
      : Effect.fail(new MissingTool({ tool: missing, debianPackage: debianPackages[missing] }))
  })

const start = (run: ToolRun, signal: AbortSignal): ChildProcessWithoutNullStreams => {
  const file = find(run.tool)
  if (file === undefined) throw new MissingTool({ tool: run.tool, debianPackage: debianPackages[run.tool] })
  return spawn(file, [...run.args], {
    signal,
    killSignal: "SIGKILL",
    ...(run.cwd === undefined ? {} : { cwd: run.cwd }),
    env: {
      PATH: `${process.env["PATH"] ?? "/usr/bin:/bin"}:/usr/sbin:/sbin`,
      LC_ALL: "C",
      TZ: "UTC",
      ...(process.env["TMPDIR"] === undefined ? {} : { TMPDIR: process.env["TMPDIR"] }),
      ...run.env,
    },
    stdio: ["pipe", "pipe", "pipe"],
  })
}

/** The last part of a stream as text: enough for a message. */
const tail = (stream: NodeJS.ReadableStream, limit = 4096): (() => string) => {
  let text = ""
  stream.on("data", (chunk: Buffer) => {
    text = (text + chunk.toString("utf8")).slice(-limit)
  })
  return () => text
}

const finished = (child: ChildProcessWithoutNullStreams, run: ToolRun, said: () => string): Promise<void> =>
  new Promise((resolve, reject) => {
    child.once("error", (cause) => reject(fromUnknown("run", run.tool, cause)))
    child.once("close", (code, signal) =>
      code === 0
        ? resolve()
        : reject(
            new ToolFailed({
              tool: run.tool,
              args: run.args,
              exit: signal === null ? `exit status ${code}` : `killed by ${signal}`,
              output: said(),
            }),
          ),
    )
  })

const live: HostToolsService = {
  has: (tool) => find(tool) !== undefined,
  run: (run) =>
    Effect.tryPromise({
      try: async (signal) => {
        const child = start(run, signal)
        const output: Array<Buffer> = []
        const stderr = tail(child.stderr)
        child.stdout.on("data", (chunk: Buffer) => output.push(chunk))
        // A program that exits without reading its input is judged by its status.
        child.stdin.on("error", () => {})
        child.stdin.end(run.stdin ?? "")
        const text = () => Buffer.concat(output).toString("utf8")
        await finished(child, run, () => stderr() || text().slice(-4096))
        return { stdout: text(), stderr: stderr() }
      },
      catch: (cause) => fromUnknown("run", run.tool, cause),
    }),
  open: (run, signal) => {
    const child = start(run, signal)
    return { stdin: child.stdin, stdout: child.stdout, done: finished(child, run, tail(child.stderr)) }
  },
}

/**
 * The programs of the build machine; the default runs them.
 */
export const HostTools = Context.Reference<HostToolsService>("@kios/distro/image/HostTools", {
  defaultValue: () => live,
})
