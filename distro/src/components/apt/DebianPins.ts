import { Effect, Schema } from "effect"
import * as fsp from "node:fs/promises"
import type { CommandRunner } from "../CommandRunner.ts"
import { type ComponentError, PinNotServed, RecipeInvalid } from "../ComponentError.ts"
import { errnoOf, io, writeAtomically } from "../Files.ts"
import { type AptRoot, openAptRoot } from "./AptRoot.ts"

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

/** apt's configuration and keys, where they are not the machine's. */
export interface AptPlaces {
  readonly etcApt?: string
  readonly keyring?: string
}

/** What the index has now for each pin, by the pin's name; `to` is undefined where it has no such package. */
const lookUp = (apt: AptRoot, pins: DebianPins) =>
  Effect.gen(function* () {
    const all = Object.values(pins.packages)
    const metas = yield* apt.candidates(all.flatMap(({ follow }) => follow ?? []))
    const wanted = Object.entries(pins.packages).map(([name, pin]) => {
      const meta = pin.follow === undefined ? undefined : metas.get(pin.follow)
      const first = /^[a-z0-9][a-z0-9+.-]*/u.exec(meta?.depends ?? "")?.[0]
      return { name, pin, wanted: first === undefined ? pin.package : `${first}${pin.suffix ?? ""}` }
    })
    const found = yield* apt.candidates(wanted.map((item) => item.wanted))
    return wanted.map((item) => {
      const now = found.get(item.wanted)
      const to =
        now === undefined
          ? undefined
          : { ...item.pin, package: now.package, version: now.version, sha256: now.sha256 }
      return { ...item, to }
    })
  })

/**
 * The same pins of what apt's index of the suite has now, which Debian has
 * signed. The index is not refreshed and nothing is written; a package that it
 * has not keeps its pin.
 */
export const servedPins = (
  pins: DebianPins,
  options: AptPlaces & { readonly component: string },
): Effect.Effect<DebianPins, ComponentError, CommandRunner> =>
  Effect.scoped(
    Effect.gen(function* () {
      const served = yield* lookUp(yield* openAptRoot({ ...pins, ...options }), pins)
      return { ...pins, packages: Object.fromEntries(served.map(({ name, pin, to }) => [name, to ?? pin])) }
    }),
  )

/**
 * Pin what the suite serves now: refreshes apt's index, looks up each package
 * and rewrites the file. The file is left alone when nothing changed.
 *
 * @returns The pins that changed.
 */
export const updatePins = (
  file: string,
  options: AptPlaces = {},
): Effect.Effect<ReadonlyArray<PinChange>, ComponentError, CommandRunner> =>
  Effect.scoped(
    Effect.gen(function* () {
      const pins = yield* readPins(file)
      const apt = yield* openAptRoot({ ...pins, ...options, component: "pins" })
      yield* apt.update
      const changes: Array<PinChange> = []
      const packages: Record<string, DebianPin> = {}
      for (const { name, pin, to, wanted } of yield* lookUp(apt, pins)) {
        if (to === undefined) {
          const { suite } = pins
          return yield* new PinNotServed({ package: wanted, suite, wanted: pin.version, served: undefined })
        }
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
