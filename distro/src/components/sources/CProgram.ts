import { Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { CommandRunner } from "../CommandRunner.ts"
import { BuildFailed, type ComponentError, DigestMismatch } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { io, sha256File } from "../Files.ts"
import { goToolchain, runGo } from "../go/GoToolchain.ts"
import type { Part, Source, SourceContext } from "../Source.ts"
import { runToolOk } from "../Tools.ts"
import type { GoPin } from "./GoModule.ts"

/** Where a C file is: a file of this machine, or of a Go module that a component's go.mod pins. */
export type CFile =
  | { readonly file: string }
  | {
      /** Module path: `k8s.io/kubernetes`. */
      readonly module: string
      /** Path in the module. */
      readonly file: string
      /** Directory of the go.mod and go.sum that pin the module. */
      readonly directory: string
      readonly toolchain: GoPin
    }

/** The file on disk, and the part that it is of. */
const locate = (
  context: SourceContext,
  from: CFile,
  description: string,
): Effect.Effect<
  { readonly file: string; readonly parts: ReadonlyArray<Part> },
  ComponentError,
  CommandRunner
> =>
  Effect.gen(function* () {
    if (!("module" in from)) return { file: from.file, parts: [] }
    const doing = `getting ${from.module}`
    const go = yield* goToolchain(context, { ...from.toolchain, doing })
    const args = ["mod", "download", "-json", from.module]
    const result = yield* runGo(description, {
      component: context.component.name,
      doing,
      writesTo: context.scratch,
      cwd: from.directory,
      command: go.command,
      args,
      env: go.env,
      capture: true,
    })
    const found = yield* Effect.try({
      try: () =>
        JSON.parse(result.stdout) as { readonly Dir: string; readonly Version: string; readonly Sum: string },
      catch: () =>
        new BuildFailed({
          component: context.component.name,
          command: `go ${args.join(" ")}`,
          exit: 0,
          tail: result.tail,
        }),
    })
    const purl = `pkg:golang/${from.module}@${found.Version}`
    return {
      file: path.join(found.Dir, from.file),
      parts: [{ name: from.module, version: found.Version, purl, digest: found.Sum }],
    }
  })

/**
 * A C program of one file, compiled by gcc and linked statically.
 *
 * @param options.sha256 Of the C file, hex.
 * @param options.flags For gcc, besides `-static`, `-s` and what makes builds repeatable.
 * @param options.to Path of the program in the component.
 *
 * @example
 * ```ts
 * import * as CProgram from "@kios/distro/components/sources/CProgram"
 *
 * const hello = CProgram.source({
 *   from: { file: "/home/me/hello.c" },
 *   sha256: "0".repeat(64),
 *   flags: ["-Os"],
 *   to: "bin/hello",
 * })
 * ```
 */
export const source = (options: {
  readonly from: CFile
  readonly sha256: string
  readonly flags: ReadonlyArray<string>
  readonly to: string
}): Source => {
  const { flags, from, sha256, to } = options
  const description = `C source ${"module" in from ? `${from.module}/` : ""}${from.file}`
  return {
    kind: "c-program",
    description,
    heavy: false,
    fingerprint: Effect.succeed({ file: path.basename(from.file), sha256, flags, to }),
    fetch: (context) =>
      Effect.gen(function* () {
        const { component, into, scratch } = context
        const { file, parts } = yield* locate(context, from, description)
        const copy = path.join(scratch, path.basename(file))
        yield* io("copying", file, () => fsp.copyFile(file, copy))
        const got = yield* sha256File(copy)
        if (got !== sha256) {
          return yield* new DigestMismatch({
            component: component.name,
            file: from.file,
            from: description,
            expected: `sha256:${sha256}`,
            got: `sha256:${got}`,
          })
        }
        const target = path.join(into, to)
        yield* io("making a directory", target, () => fsp.mkdir(path.dirname(target), { recursive: true }))
        const spec = {
          component: component.name,
          doing: `compiling ${component.name}`,
          writesTo: scratch,
          cwd: scratch,
          command: "gcc",
          env: { ...(yield* Environment), LC_ALL: "C", TMPDIR: scratch },
        }
        const version = yield* runToolOk({ ...spec, args: ["--version"], capture: true })
        const repeatable = ["-Wl,--build-id=none", `-ffile-prefix-map=${scratch}=.`]
        yield* runToolOk({
          ...spec,
          args: [...flags, "-static", "-s", ...repeatable, "-o", target, path.basename(copy)],
        })
        return { parts, facts: { gcc: version.stdout.split("\n")[0] ?? "" } }
      }),
  }
}
