import { Effect, Schema } from "effect"
import * as fsp from "node:fs/promises"
import type { CommandRunner } from "../CommandRunner.ts"
import { type ComponentError, PinNotServed, RecipeInvalid } from "../ComponentError.ts"
import { errnoOf, io, writeAtomically } from "../Files.ts"
import { openAptRoot } from "./AptRoot.ts"

const Pin = Schema.Struct({
  /** Name of the package in the archive. */
  package: Schema.NonEmptyString,
  version: Schema.NonEmptyString,
  /** Of the .deb, hex. */
  sha256: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/u, { message: "expected 64 hex digits" })),
  /** A metapackage whose first dependency is the package: kernels have their version in the name. */
  follow: Schema.optionalKey(Schema.NonEmptyString),
  /** Appended to what `follow` gives. */
  suffix: Schema.optionalKey(Schema.NonEmptyString),
})

const Pins = Schema.Struct({
  suite: Schema.String.check(Schema.isPattern(/^[a-z]+$/u, { message: "expected a suite's code name" })),
  arch: Schema.Literals(["amd64"]),
  packages: Schema.Record(Schema.String, Pin),
})

/** A Debian package by name, version and the digest of its .deb. */
export type DebianPin = typeof Pin.Type

/** The pins of a distro: the content of `debian.lock.json`. Its keys are names that recipes use. */
export type DebianPins = typeof Pins.Type

/** Read the pins. Fails with `RecipeInvalid` naming the file and the key that is wrong. */
export const readPins = (file: string): Effect.Effect<DebianPins, ComponentError> =>
  Effect.gen(function* () {
    const text = yield* io("reading the pins", file, () => fsp.readFile(file, "utf8"))
    const json = yield* Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: (cause) => new RecipeInvalid({ where: file, issue: errnoOf(cause) }),
    })
    return yield* Schema.decodeUnknownEffect(Pins)(json, { errors: "all", onExcessProperty: "error" }).pipe(
      Effect.mapError((error) => new RecipeInvalid({ where: file, issue: error.message })),
    )
  })

/** The pin that a recipe names. */
export const pinOf = (
  pins: DebianPins,
  name: string,
  file: string,
): Effect.Effect<DebianPin, RecipeInvalid> => {
  const pin = pins.packages[name]
  return pin === undefined
    ? Effect.fail(new RecipeInvalid({ where: file, issue: `there is no pin named ${name} under "packages"` }))
    : Effect.succeed(pin)
}

/** A pin that {@link updatePins} changed. */
export interface PinChange {
  readonly name: string
  readonly from: DebianPin
  readonly to: DebianPin
}

/**
 * Pin what the suite serves now: refreshes apt's index, looks up each package
 * and rewrites the file. The file is left alone when nothing changed.
 *
 * @returns The pins that changed.
 */
export const updatePins = (
  file: string,
  options: { readonly etcApt?: string; readonly keyring?: string } = {},
): Effect.Effect<ReadonlyArray<PinChange>, ComponentError, CommandRunner> =>
  Effect.scoped(
    Effect.gen(function* () {
      const pins = yield* readPins(file)
      const apt = yield* openAptRoot({ ...pins, ...options, component: "pins" })
      yield* apt.update
      const changes: Array<PinChange> = []
      const packages: Record<string, DebianPin> = {}
      for (const [name, pin] of Object.entries(pins.packages)) {
        const wanted = yield* follow(pin, apt.candidate)
        const found = yield* apt.candidate(wanted)
        if (found === undefined) {
          const { suite } = pins
          return yield* new PinNotServed({ package: wanted, suite, wanted: pin.version, served: undefined })
        }
        const to = { ...pin, package: wanted, version: found.version, sha256: found.sha256 }
        packages[name] = to
        if (to.package !== pin.package || to.version !== pin.version || to.sha256 !== pin.sha256) {
          changes.push({ name, from: pin, to })
        }
      }
      if (changes.length > 0) {
        yield* writeAtomically(file, `${JSON.stringify({ ...pins, packages }, undefined, 2)}\n`)
      }
      return changes
    }),
  )

const follow = <E, R>(
  pin: DebianPin,
  candidate: (name: string) => Effect.Effect<{ readonly depends: string } | undefined, E, R>,
): Effect.Effect<string, E, R> =>
  Effect.gen(function* () {
    if (pin.follow === undefined) return pin.package
    const meta = yield* candidate(pin.follow)
    const first = /^[a-z0-9][a-z0-9+.-]*/u.exec(meta?.depends ?? "")?.[0]
    return first === undefined ? pin.package : `${first}${pin.suffix ?? ""}`
  })
