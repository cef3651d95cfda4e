/**
 * `kios build`: the EFI file.
 */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as path from "node:path"
import { build as buildImage, type Build } from "../Build.ts"
import { Environment } from "../components/Environment.ts"
import { Progress } from "../components/Progress.ts"
import { withPolicy } from "../ImagePolicy.ts"
import { profiles } from "../profiles.ts"
import { recipe } from "../recipe.ts"
import { BadInput } from "./BadInput.ts"
import { apply, type Contents } from "./BuildContents.ts"
import { buildReporter, megabytes, Output, type OutputShape, table } from "./Output.ts"

/** Default path of the EFI. */
export const defaultEfi = "dist/kios.efi"

const summary = (built: Build, output: OutputShape) => {
  output.line(
    table([
      ...built.parts.map(({ bytes, part }) => [part, megabytes(bytes)] as const),
      ["initramfs, unpacked", megabytes(built.initramfs.uncompressedBytes)],
      ["initramfs, as carried", megabytes(built.initramfs.bytes)],
      ["kernel", megabytes(built.kernelBytes)],
    ]),
  )
  output.line(
    `${built.efi}  ${megabytes(built.bytes)}  sha256 ${built.sha256}  (${built.seconds.toFixed(1)} s)`,
  )
  output.line(`${built.sbom}  what is in it, as CycloneDX`)
}

/** Builds the reference distro and shows how. */
export const buildReference = Effect.fnUntraced(function* (
  efi: string,
  profile: keyof typeof profiles = "cloud",
  options: {
    readonly locked?: boolean
    readonly imagePolicy?: string
    readonly contents?: Contents
  } = {},
) {
  const output = yield* Output
  const environment = yield* Environment
  const reference = { ...recipe, hardware: profiles[profile] }
  const plain = options.contents === undefined ? reference : yield* apply(reference, options.contents)
  const chosen =
    options.imagePolicy === undefined
      ? plain
      : yield* withPolicy(plain, options.imagePolicy).pipe(
          Effect.mapError(({ file, reason }) => new BadInput({ file, reason })),
        )
  const built = yield* buildImage({ recipe: chosen, output: efi }).pipe(
    Effect.provideService(
      Environment,
      options.locked === true ? { ...environment, KIOS_LOCKED: "1" } : environment,
    ),
    Effect.provideService(Progress, buildReporter(output)),
    Effect.ensuring(Effect.sync(() => output.status(undefined))),
  )
  summary(built, output)
  output.object({ event: "built", ...built })
  return built
})

export const json = Flag.Boolean("json").pipe(
  Flag.withDefault(false),
  Flag.withDescription("One JSON object a line instead of text"),
)

export const buildCommand = Command.make(
  "build",
  {
    output: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.optional,
      Flag.withDescription(
        `Path of the EFI file (default ${defaultEfi}, or dist/kios-PROFILE.efi for a profile but cloud)`,
      ),
    ),
    profile: Flag.Literals("profile", ["cloud", "generic"]).pipe(
      Flag.withDefault("cloud"),
      Flag.withDescription("The machines it is for: virtual ones (cloud), or ordinary ones too (generic)"),
    ),
    locked: Flag.Boolean("locked").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Fail where Debian does not serve what is pinned (KIOS_LOCKED=1 does the same)"),
    ),
    imagePolicy: Flag.String("image-policy").pipe(
      Flag.optional,
      Flag.withDescription("A policy for pulls: which registries, only by digest (docs/registries.md)"),
    ),
    image: Flag.String("image").pipe(
      Flag.atLeast(0),
      Flag.withDescription(
        "An OCI image archive (tar) to carry, so that its pods need no registry; may be given again",
      ),
    ),
    manifest: Flag.String("manifest").pipe(
      Flag.atLeast(0),
      Flag.withDescription("A static pod to run on every boot; may be given again"),
    ),
    without: Flag.String("without").pipe(
      Flag.atLeast(0),
      Flag.withDescription("A pod or image of the distro to leave out, such as ntp; may be given again"),
    ),
    json,
  },
  (flags) =>
    buildReference(
      path.resolve(
        Option.getOrElse(flags.output, () =>
          flags.profile === "cloud" ? defaultEfi : `dist/kios-${flags.profile}.efi`,
        ),
      ),
      flags.profile,
      {
        locked: flags.locked,
        contents: flags,
        ...Option.match(flags.imagePolicy, {
          onNone: () => ({}),
          onSome: (imagePolicy) => ({ imagePolicy }),
        }),
      },
    ).pipe(Effect.provide(Output.layer(flags.json))),
).pipe(Command.withDescription("Build the EFI: obtain the components, seal init, pack the image"))
