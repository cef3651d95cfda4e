import { Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { openAptRoot } from "../apt/AptRoot.ts"
import type { DebianPin } from "../apt/DebianPins.ts"
import { DigestMismatch, PinNotServed, SourceUnavailable } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { type FileRule, selectFiles } from "../FileSelection.ts"
import { io, sha256File } from "../Files.ts"
import type { Source } from "../Source.ts"
import { runToolOk } from "../Tools.ts"

/** A pinned package, and what to take out of it. */
export interface DebianPackage {
  readonly pin: DebianPin
  readonly files: readonly [FileRule, ...ReadonlyArray<FileRule>]
  /** SPDX expression, where it differs from the component's. */
  readonly license?: string
}

/**
 * Files of Debian packages of one suite, downloaded by apt into a directory of
 * the cache and unpacked by dpkg-deb. The machine's own packages and releases
 * do not matter, and nothing is installed on it. apt checks the archive's
 * signature, the pins the packages.
 *
 * A version that the index does not have is looked for in a fresh one, and
 * fails with `PinNotServed` when that does not have it either.
 *
 * @param options.suite Code name: `trixie`.
 * @param options.arch Debian's name of the architecture: `amd64`.
 *
 * @example
 * ```ts
 * import * as Debian from "@kios/distro/components/sources/Debian"
 *
 * const hello = (pin: Debian.DebianPackage["pin"]) =>
 *   Debian.source({
 *     suite: "trixie",
 *     arch: "amd64",
 *     packages: [{ pin, files: [{ from: "usr/bin/hello", to: "bin/hello" }] }],
 *   })
 * ```
 */
export const source = (options: {
  readonly suite: string
  readonly arch: string
  readonly packages: readonly [DebianPackage, ...ReadonlyArray<DebianPackage>]
  /** apt's configuration and keys; the machine's by default. */
  readonly etcApt?: string
  readonly keyring?: string
  /** See {@link Source.moved}. */
  readonly moved?: Source["moved"]
}): Source => {
  const { arch, packages, suite } = options
  const description = `Debian ${suite} ${packages.map(({ pin }) => `${pin.package} ${pin.version}`).join(", ")}`
  return {
    kind: "debian",
    description,
    heavy: false,
    ...(options.moved === undefined ? {} : { moved: options.moved }),
    fingerprint: Effect.succeed({
      suite,
      arch,
      packages: packages.map(({ files, license, pin }) => ({
        package: pin.package,
        version: pin.version,
        sha256: pin.sha256,
        license: license ?? null,
        files: files.map(({ from, to }) => ({ from, to })),
      })),
    }),
    fetch: ({ component, into, scratch }) =>
      Effect.gen(function* () {
        const debs = path.join(scratch, "debs")
        yield* io("making a directory", debs, () => fsp.mkdir(debs))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const apt = yield* openAptRoot({ ...options, component: component.name })
            const wanted = packages.map(({ pin }) => ({ name: pin.package, version: pin.version }))
            let outcome = yield* apt.download(wanted, debs)
            if (outcome._tag === "Downloaded") return
            // The index may be older than the pin. Without a network what it says is all that is known.
            const refreshed = yield* apt.refresh(outcome.fromArchive).pipe(
              Effect.as(undefined),
              Effect.catchTag("SourceUnavailable", (error) =>
                error.offline ? Effect.succeed(error) : Effect.fail(error),
              ),
            )
            if (refreshed === undefined) outcome = yield* apt.download(wanted, debs)
            if (outcome._tag === "Downloaded") return
            const candidates = yield* apt.candidates(wanted.map(({ name }) => name))
            for (const { name, version } of wanted) {
              const served = candidates.get(name)?.version
              if (served !== version) {
                return yield* new PinNotServed({ package: name, suite, wanted: version, served })
              }
            }
            return yield* (
              refreshed ??
              new SourceUnavailable({ source: description, reason: outcome.detail, offline: false })
            )
          }),
        )
        const names = yield* io("reading", debs, () => fsp.readdir(debs))
        for (const { files, pin } of packages) {
          // apt writes the colon of an epoch as %3a.
          const version = pin.version.replaceAll(":", "%3a")
          const deb = names.find((name) => name.startsWith(`${pin.package}_${version}_`))
          if (deb === undefined) {
            const reason = `apt downloaded ${names.join(", ") || "nothing"} for ${pin.package} ${pin.version}`
            return yield* new SourceUnavailable({ source: description, reason, offline: false })
          }
          const file = path.join(debs, deb)
          const got = yield* sha256File(file)
          if (got !== pin.sha256) {
            return yield* new DigestMismatch({
              component: component.name,
              file: deb,
              from: `Debian ${suite}`,
              expected: `sha256:${pin.sha256}`,
              got: `sha256:${got}`,
            })
          }
          const root = path.join(scratch, `${pin.package}.unpacked`)
          yield* runToolOk({
            component: component.name,
            doing: `unpacking ${deb}`,
            writesTo: root,
            command: "dpkg-deb",
            args: ["-x", file, root],
            env: { ...(yield* Environment), LC_ALL: "C" },
          })
          yield* selectFiles({ component: component.name, source: description, root, into, rules: files })
          // Kernels and toolchains unpack to hundreds of megabytes: give the space back before the next one.
          yield* io("removing", root, () => fsp.rm(root, { recursive: true }))
        }
        return {
          parts: packages.map(({ license, pin }) => ({
            name: pin.package,
            version: pin.version,
            purl: `pkg:deb/debian/${encodeURIComponent(pin.package)}@${encodeURIComponent(pin.version)}?arch=${arch}&distro=${suite}`,
            digest: `sha256:${pin.sha256}`,
            ...(license === undefined ? {} : { license }),
          })),
        }
      }),
  }
}
