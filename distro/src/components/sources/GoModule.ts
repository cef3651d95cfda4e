import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { CommandRunner } from "../CommandRunner.ts"
import type { Component } from "../Component.ts"
import { type ComponentError, FileMissing, MissingTool } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { io } from "../Files.ts"
import { parseBuildInfo } from "../go/GoOutput.ts"
import { goToolchain, runGo } from "../go/GoToolchain.ts"
import type { Json, Part, Source, SourceContext } from "../Source.ts"
import { runTool } from "../Tools.ts"

/** A C library of the build machine that is linked in, found by pkg-config. */
export interface HostLibrary {
  /** Name of its .pc file: `libseccomp`. */
  readonly pkgConfig: string
  /** Debian package that brings it: `libseccomp-dev`. */
  readonly package: string
  /** SPDX expression: it is in the binary. */
  readonly license: string
}

/** Exact toolchain and where it comes from on machines without Go. */
export interface GoPin {
  readonly version: string
  readonly bootstrap: Component
}

/** How commands are built from a Go module. */
export interface GoBuild {
  /** Directory of go.mod and go.sum, which pin every module by checksum. */
  readonly directory: string
  readonly toolchain: GoPin
  /** Import paths of the commands; each becomes a file of that name's last part. */
  readonly packages: readonly [string, ...ReadonlyArray<string>]
  /** Directory in the component for the commands: `bin`. */
  readonly to: string
  readonly tags?: ReadonlyArray<string>
  readonly ldflags?: ReadonlyArray<string>
  /** Needs gcc and `libraries`; linked statically by what `ldflags` say. */
  readonly cgo?: { readonly libraries: ReadonlyArray<HostLibrary> }
}

/**
 * The digests of go.mod and go.sum.
 *
 * @example
 * ```ts
 * import { moduleDigests } from "@kios/distro/components/sources/GoModule"
 *
 * const digests = moduleDigests("components/runc") // [sha256 of go.mod, sha256 of go.sum]
 * ```
 */
export const moduleDigests = (directory: string): Effect.Effect<Json, ComponentError> =>
  Effect.map(
    Effect.forEach(["go.mod", "go.sum"], (name) =>
      io("reading", path.join(directory, name), () => fsp.readFile(path.join(directory, name))),
    ),
    (files) => files.map((bytes) => createHash("sha256").update(bytes).digest("hex")),
  )

/** Check that a C compiler and libraries are there, and tell their versions. All that miss are named at once. */
const hostTools = (
  context: SourceContext,
  build: GoBuild,
): Effect.Effect<
  { readonly facts: Record<string, string>; readonly parts: ReadonlyArray<Part> },
  ComponentError,
  CommandRunner
> =>
  Effect.gen(function* () {
    const facts: Record<string, string> = {}
    const parts: Array<Part> = []
    if (build.cgo === undefined) return { facts, parts }
    const doing = `building ${context.component.name}`
    const tools: Array<string> = []
    const packages: Array<string> = []
    const miss = (tool: string, name: string) => {
      tools.push(tool)
      packages.push(name)
    }
    const env = { ...(yield* Environment), LC_ALL: "C" }
    const ask = (command: string, args: ReadonlyArray<string>) =>
      runTool({
        component: context.component.name,
        doing,
        writesTo: context.scratch,
        command,
        args,
        env,
        capture: true,
      }).pipe(
        Effect.map((result) => (result.exit === 0 ? result.stdout.trim() : "")),
        Effect.catchTag("MissingTool", () => Effect.void),
      )
    const gcc = yield* ask("gcc", ["--version"])
    if (gcc === undefined) miss("gcc", "gcc")
    else {
      facts["gcc"] = gcc.split("\n")[0] ?? ""
      const libc = yield* ask("gcc", ["-print-file-name=libc.a"])
      // gcc echoes the bare name when it does not find the file.
      if (libc === "libc.a") miss("libc.a", "libc6-dev")
    }
    for (const library of build.cgo.libraries) {
      const version = yield* ask("pkg-config", ["--modversion", library.pkgConfig])
      if (version === undefined) {
        if (!tools.includes("pkg-config")) miss("pkg-config", "pkg-config")
        miss(library.pkgConfig, library.package)
      } else if (version === "") miss(library.pkgConfig, library.package)
      else {
        const { license, pkgConfig: name } = library
        parts.push({ name, version, purl: `pkg:generic/${name}@${version}`, license })
      }
    }
    if (tools.length > 0) return yield* new MissingTool({ tools, packages, neededFor: doing })
    return { facts, parts }
  })

/**
 * Commands built from Go modules. `go.sum` is the pin: Go checks every module
 * against it. Builds are reproducible (`-trimpath`, no VCS stamps, exact
 * toolchain) as far as no C is involved; GOPROXY and GOSUMDB are the machine's.
 *
 * @example
 * ```ts
 * import * as GoModule from "@kios/distro/components/sources/GoModule"
 *
 * const runc = (toolchain: GoModule.GoPin) =>
 *   GoModule.source({
 *     directory: "components/runc",
 *     toolchain,
 *     packages: ["github.com/opencontainers/runc"],
 *     to: "bin",
 *   })
 * ```
 */
export const source = (build: GoBuild): Source => {
  const description = `Go modules of ${path.basename(build.directory)} (${build.toolchain.version})`
  return {
    kind: "go-module",
    description,
    heavy: true,
    fingerprint: Effect.map(moduleDigests(build.directory), (modules) => ({
      modules,
      toolchain: build.toolchain.version,
      packages: build.packages,
      to: build.to,
      tags: build.tags ?? [],
      ldflags: build.ldflags ?? [],
      cgo: build.cgo === undefined ? null : build.cgo.libraries.map((library) => library.pkgConfig),
    })),
    fetch: (context) =>
      Effect.gen(function* () {
        const { component, into, scratch } = context
        const host = yield* hostTools(context, build)
        const doing = `building ${component.name}`
        const go = yield* goToolchain(context, { ...build.toolchain, doing })
        const out = path.join(into, build.to)
        const temporary = path.join(scratch, "tmp")
        yield* io("making a directory", out, async () => {
          await fsp.mkdir(out, { recursive: true })
          await fsp.mkdir(temporary, { recursive: true })
        })
        const spec = {
          component: component.name,
          doing,
          writesTo: temporary,
          cwd: build.directory,
          command: go.command,
          // Temporary files of a link are larger than many a /tmp: they belong on the cache's disk.
          env: {
            ...go.env,
            CGO_ENABLED: build.cgo === undefined ? "0" : "1",
            GOTMPDIR: temporary,
            TMPDIR: temporary,
          },
        }
        const args = [
          "build",
          "-trimpath",
          "-buildvcs=false",
          ...(build.tags === undefined ? [] : ["-tags", build.tags.join(" ")]),
          ...(build.ldflags === undefined ? [] : ["-ldflags", build.ldflags.join(" ")]),
          "-o",
          `${out}/`,
          ...build.packages,
        ]
        yield* runGo(description, { ...spec, args })
        const parts = new Map<string, Part>(host.parts.map((part) => [part.purl, part]))
        for (const name of build.packages) {
          const file = path.join(out, path.posix.basename(name))
          const info = yield* runGo(description, { ...spec, args: ["version", "-m", file], capture: true })
          const linked = parseBuildInfo(info.stdout)
          if (linked.length === 0) {
            return yield* new FileMissing({ component: component.name, source: description, file })
          }
          for (const part of linked) parts.set(part.purl, part)
        }
        return {
          parts: [...parts.values()].sort((a, b) => (a.purl < b.purl ? -1 : 1)),
          facts: { ...host.facts, go: build.toolchain.version, bootstrap: go.bootstrap },
        }
      }),
  }
}
