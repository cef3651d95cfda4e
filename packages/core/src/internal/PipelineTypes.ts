/**
 * What a list of stages is worth, computed by the compiler: whether it fits
 * together, and if not, a sentence that says which stage and which service.
 */
import type { BootReport } from "../BootReport.ts"
import type * as Stage from "../Stage.ts"

export type Gives<S extends Stage.Any> = Stage.NameOf<S["provides"][number]>
export type Missing<S extends Stage.Any, Have> = Exclude<Stage.NameOf<S["requires"][number]>, Have>

// Walks the list and replaces each stage that cannot stand where it is by a
// sentence, which is what the compiler then prints. `Hard` are the services
// that surely exist once boot gets there, `Soft` those that may have failed.
export type Check<
  S extends ReadonlyArray<unknown>,
  Hard = never,
  Soft = never,
  Out extends ReadonlyArray<unknown> = [],
> = S extends readonly [infer H extends Stage.Any, ...infer T]
  ? Check<
      T,
      H["criticality"] extends "required" ? Hard | Gives<H> : Hard,
      Soft | Gives<H>,
      [
        ...Out,
        [Missing<H, Soft>] extends [never]
          ? [Gives<H> & Soft] extends [never]
            ? [H["criticality"], [Missing<H, Hard>] extends [never] ? true : false] extends [
                "required",
                false,
              ]
              ? `stage "${H["name"]}" is required but needs "${Missing<H, Hard>}", which only an optional stage provides`
              : H
            : `stage "${H["name"]}" provides "${Gives<H> & Soft & string}", which an earlier stage already provides`
          : `stage "${H["name"]}" needs "${Missing<H, Soft>}", which no earlier stage provides`,
      ]
    >
  : Out

export type Required<S> = S extends Stage.Any
  ? S extends { readonly criticality: "required" }
    ? S
    : never
  : never

export type Environment<S extends Stage.Any> = S extends { readonly env?: infer Env }
  ? Exclude<Env, undefined>
  : never

/** A list of stages, as a tuple so that their order and names are in its type. */
export type Stages = ReadonlyArray<Stage.Any>

/** The services that are surely there once a pipeline of these stages is up. */
export type Provided<S extends Stages> = Stage.ServiceOf<Required<S[number]>["provides"][number]>

/** What running these stages needs from outside. */
export type Needed<S extends Stages> = Environment<S[number]> | BootReport

/** The first sentence that {@link Check} has about a list, or `unknown` when there is none. */
export type Fits<S extends ReadonlyArray<unknown>> = FirstString<Check<S>>
export type FirstString<T> = T extends readonly [infer H, ...infer Rest]
  ? H extends string
    ? H
    : FirstString<Rest>
  : unknown

// A name is a string, and a string and a sentence have nothing in common: the sentence becomes a property.
export type Misfit<T> = T extends string ? { readonly [Sentence in T]: never } : unknown

export type Named<S extends ReadonlyArray<unknown>> = Extract<S[number], Stage.Any>["name"]
export type WithName<Name> = { readonly name: Name }
// With what it has passed as a parameter, so that the compiler loops over a long list and does not recurse.
export type Replaced<
  S extends ReadonlyArray<unknown>,
  Name,
  New extends ReadonlyArray<unknown>,
  Passed extends ReadonlyArray<unknown> = [],
> = S extends readonly [infer H, ...infer T]
  ? H extends WithName<Name>
    ? [...Passed, ...New, ...T]
    : Replaced<T, Name, New, [...Passed, H]>
  : Passed
export type Find<S extends ReadonlyArray<unknown>, Name> = S extends readonly [infer H, ...infer T]
  ? H extends WithName<Name>
    ? H
    : Find<T, Name>
  : never
