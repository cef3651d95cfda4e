import type { Effect } from "effect"
import type { CommandRunner } from "./CommandRunner.ts"
import type { Component } from "./Component.ts"
import type { ComponentError } from "./ComponentError.ts"
import type { CachePaths } from "./Environment.ts"
import type { Resolved } from "./Resolved.ts"

/** A value that JSON can hold: what a fingerprint is made of. */
export type Json = string | number | boolean | null | ReadonlyArray<Json> | { readonly [key: string]: Json }

/** A piece of software inside a component, for the SBOM. */
export interface Part {
  readonly name: string
  readonly version: string
  /** Package URL (github.com/package-url/purl-spec). */
  readonly purl: string
  /** `sha256:<hex>`, or a Go checksum `h1:<base64>`. */
  readonly digest?: string
  /** SPDX expression, where it differs from the component's. */
  readonly license?: string
}

/** What a source needs to know when it is asked to give its files. */
export interface SourceContext {
  readonly component: Component
  /** An empty directory: what is put here becomes the component. */
  readonly into: string
  /** An empty directory for anything else; removed afterwards. Same filesystem as the cache. */
  readonly scratch: string
  readonly cache: CachePaths
  /** Resolve another component that this one is built with. */
  readonly resolve: (component: Component) => Effect.Effect<Resolved, ComponentError>
}

/** What a source tells about the files it gave. */
export interface Produced {
  readonly parts: ReadonlyArray<Part>
  /** What was done to the files after they were had, in words: "strip --strip-all bin/node (GNU strip 2.40)". */
  readonly transforms?: ReadonlyArray<string>
  /** Other facts worth recording: compiler versions, URLs. */
  readonly facts?: Readonly<Record<string, string>>
}

/**
 * A place where a component's files come from. The kinds that kiOS has are in
 * `sources/`; a third party's own kind is any object of this shape.
 */
export interface Source {
  /** `debian`, `go-module`, `npm`, `download`, `local`, `c-program` ... */
  readonly kind: string
  /** One line for people: "Debian trixie mount 2.41". */
  readonly description: string
  /** Heavy sources (compilers that use all processors) run one at a time. */
  readonly heavy: boolean
  /**
   * Everything that decides what {@link Source.fetch} gives, digests and flags
   * included. Its hash is the cache key, so it must be cheap and must not
   * depend on tools that a machine with a warm cache may lack.
   */
  readonly fingerprint: Effect.Effect<Json, ComponentError>
  /** Get the files. `SourceUnavailable`, `PinNotServed` and `MissingTool` let the next source try; all else ends it. */
  readonly fetch: (context: SourceContext) => Effect.Effect<Produced, ComponentError, CommandRunner>
  /**
   * The component of that name as its origin serves it now, pinned by what the
   * origin's signed index says: asked for when {@link Source.fetch} failed with
   * `PinNotServed`. Sources whose origin keeps what it once served have none.
   */
  readonly moved?: (name: string) => Effect.Effect<Component, ComponentError, CommandRunner>
}
