import { Effect } from "effect"
import type { CommandResult, CommandRunner } from "../CommandRunner.ts"
import type { Component } from "../Component.ts"
import { BuildFailed, type ComponentError, SourceUnavailable } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { filePath } from "../Resolved.ts"
import type { SourceContext } from "../Source.ts"
import { buildFailed, missingTool, runTool, type ToolSpec } from "../Tools.ts"
import { parseGoFailure } from "./GoOutput.ts"

/** A go command that builds with exactly the pinned toolchain. */
export interface GoToolchain {
  readonly command: string
  /** Environment for every go command of a component. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Which go it was started from, for the record. */
  readonly bootstrap: string
}

/** The first Go that can switch to another toolchain: GOTOOLCHAIN (go.dev/doc/toolchain). */
const SWITCHES = 21

/** Names of Go variables that would let a machine's settings decide what is built. */
const IGNORED = [
  "CGO_CFLAGS",
  "CGO_CPPFLAGS",
  "CGO_CXXFLAGS",
  "CGO_LDFLAGS",
  "GOARM64",
  "GOEXPERIMENT",
  "GOFIPS140",
  "GOROOT",
]

/**
 * The pinned Go toolchain. A go of the machine that is 1.21 or newer gets it
 * through the module proxy, as go does; else the bootstrap component does, which
 * is a go unpacked into the cache.
 *
 * @param options.version Exact toolchain: `go1.26.8`.
 * @param options.bootstrap Component with `bin/go`, for machines without a usable go.
 * @param options.doing What it is for: "building runc".
 */
export const goToolchain = (
  context: SourceContext,
  options: { readonly version: string; readonly bootstrap: Component; readonly doing: string },
): Effect.Effect<GoToolchain, ComponentError, CommandRunner> =>
  Effect.gen(function* () {
    const { doing, version } = options
    const machine = yield* Environment
    const env = {
      ...machine,
      ...Object.fromEntries(IGNORED.map((name) => [name, undefined])),
      GOTOOLCHAIN: version,
      GOFLAGS: "-mod=readonly",
      GOWORK: "off",
      GOOS: "linux",
      GOARCH: "amd64",
      GOAMD64: "v1",
    }
    const spec = {
      component: context.component.name,
      doing,
      writesTo: context.scratch,
      cwd: context.scratch,
      args: ["version"],
      capture: true,
    }
    const own = yield* runTool({ ...spec, command: "go", env: { ...env, GOTOOLCHAIN: "local" } }).pipe(
      Effect.map((result) => /go version go(1\.(\d+)\S*)/u.exec(result.stdout)),
      Effect.catchTag("MissingTool", () => Effect.succeed(null)),
    )
    let command = "go"
    let bootstrap = `go ${own?.[1]} of the build machine`
    if (own === null || Number(own[2]) < SWITCHES) {
      const resolved = yield* context.resolve(options.bootstrap)
      command = filePath(resolved, "bin/go")
      bootstrap = `${resolved.name} ${resolved.version} (${resolved.source.description})`
    }
    const probe: ToolSpec = { ...spec, command, env }
    // The first use fetches the toolchain, some 200 MB, through GOPROXY and checks it against GOSUMDB.
    const result = yield* runTool(probe)
    if (result.exit !== 0) {
      const tail = result.tail.map((line) => line.replace(/^go: /u, ""))
      const failure = parseGoFailure(context.component.name, `Go toolchain ${version}`, tail)
      if (failure !== undefined) return yield* failure
      return yield* new SourceUnavailable({
        source: `Go toolchain ${version}`,
        reason: `${version} can not be had by ${bootstrap}: ${tail.slice(-3).join("; ")}`,
        offline: false,
      })
    }
    if (!new RegExp(`\\b${version.replaceAll(".", "\\.")}\\b`, "u").test(result.stdout)) {
      return yield* new BuildFailed({
        component: context.component.name,
        command: `${command} version`,
        exit: 0,
        tail: [`expected ${version}, got ${result.stdout.trim()}`],
      })
    }
    return { command, env, bootstrap }
  })

/** Run a go command; its failures are told apart: wrong checksum, offline, disk full, failed build. */
export const runGo = (
  source: string,
  spec: ToolSpec,
): Effect.Effect<CommandResult, ComponentError, CommandRunner> =>
  Effect.gen(function* () {
    const result = yield* runTool(spec).pipe(
      Effect.catchTag("MissingTool", () => Effect.fail(missingTool("go", spec.doing))),
    )
    if (result.exit === 0) return result
    return yield* parseGoFailure(spec.component, source, result.tail) ?? buildFailed(spec, result)
  })
