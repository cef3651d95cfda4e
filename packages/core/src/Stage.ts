/**
 * A stage: one named, typed unit of init.
 *
 * A stage says which services it needs (`requires`) and which it brings up
 * (`provides`); how it does so is an Effect `Layer`. Because both are in its
 * type, a pipeline in which something is missing does not compile, and because
 * both are values, a pipeline can be printed without being run.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import type { BootReport } from "./BootReport.ts"
import type { Events } from "./Events.ts"
import type { Kernel, KernelShape } from "./Kernel.ts"
import type { Kmsg } from "./Kmsg.ts"
import type { Shutdown } from "./Shutdown.ts"
import type { Supervisor } from "./Supervisor.ts"

/** What every stage may use without asking for it. */
export type Platform = Kernel | BootReport | Events | Supervisor | Shutdown | Kmsg

/**
 * What a stage's failure means. `required`: the boot has failed. `optional`:
 * the stages that need it are skipped and the boot goes on.
 */
export type Criticality = "required" | "optional"

/**
 * A call to the {@link Kernel} that a stage comes up without, as data:
 * `@kios/core/testing/ErrnoSweep` holds the stage to it.
 */
export interface Tolerance {
  readonly operation: keyof KernelShape
  /** What the call is about (a file, a mount's target); default: whatever it is. */
  readonly path?: RegExp
  /** Names of errno(3); default: any. */
  readonly errno?: ReadonlyArray<string>
  /** Why the node is of use without it. */
  readonly because: string
  /** Nobody is told: it is no fault. Otherwise a warning or an error in the log names the errno. */
  readonly silent?: boolean
  /** Stages that can not come up for want of what the call would have done. */
  readonly breaks?: ReadonlyArray<string>
}

/** The key of any service: what `requires` and `provides` list. */
// oxlint-disable-next-line typescript/no-explicit-any -- a key of any service
export type ServiceKey = Context.Key<any, any>

/** The service that a key stands for. */
export type ServiceOf<K> = K extends Context.Key<infer I, infer _S> ? I : never

/** The literal names of keys. */
export type NameOf<K> = K extends { readonly key: infer S extends string } ? S : never

// `string` would satisfy every check that the pipeline makes by name.
type Literal<K> =
  string extends NameOf<K> ? "declare the service as a class: its key must be a literal type" : unknown

// A service's key is part of its type, so that the sentence can name it.
type KeyOf<R> = R extends { readonly key: infer K extends string } ? K : "a service"
type Undeclared<Name extends string, R> = [R] extends [never]
  ? unknown
  : { readonly [Sentence in `stage "${Name}" uses "${KeyOf<R>}", which its requires does not list`]: never }

/** A stage, as {@link make} returns it. */
export interface Stage<
  out Name extends string,
  out Provides extends ServiceKey,
  out E,
  out Requires extends ServiceKey,
  out C extends Criticality,
  out Env,
> {
  readonly name: Name
  readonly provides: ReadonlyArray<Provides>
  readonly requires: ReadonlyArray<Requires>
  /** Services that the stage waits for if some stage of the pipeline provides them, whether that succeeds or not. */
  readonly wants: ReadonlyArray<ServiceKey>
  readonly criticality: C
  /** How long the stage may take to come up, all attempts together. */
  readonly timeout: Duration.Input
  /** When to try again after a failure; undefined: never. */
  readonly retry: Schedule.Schedule<unknown> | undefined
  /** Calls that it comes up without; any other that fails is the stage's failure. */
  readonly tolerates: ReadonlyArray<Tolerance>
  /** One line for people: what the stage does. */
  readonly description: string
  readonly layer: Layer.Layer<ServiceOf<Provides>, E, ServiceOf<Requires> | Env>
  readonly env?: Env
}

/** Any stage, where its types do not matter. */
// oxlint-disable-next-line typescript/no-explicit-any -- error and environment of any stage
export type Any = Stage<string, ServiceKey, any, ServiceKey, Criticality, any>

/**
 * Makes a stage.
 *
 * `wants` orders without needing: the stage starts when what it wants has come
 * up, has failed, or is in nobody's list; its layer asks with
 * `Effect.serviceOption`. `timeout` defaults to 30 seconds, `criticality` to `required`, `tolerates` to
 * nothing. The layer may
 * use the services in `requires` and the {@link Platform}; using another one,
 * or providing less than `provides` says, is a compile error at the `layer`.
 * Resources that the layer acquires are released at shutdown, after those of
 * every stage that needs this one.
 *
 * @example
 * ```ts
 * import * as Context from "effect/Context"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as Stage from "@kios/core/Stage"
 *
 * class Swapless extends Context.Service<Swapless, { readonly swappiness: number }>()("example/Swapless") {}
 *
 * const swapless = Stage.make({
 *   name: "swapless",
 *   description: "tell the kernel to avoid swapping",
 *   provides: [Swapless],
 *   layer: Layer.effect(
 *     Swapless,
 *     Effect.gen(function* () {
 *       const kernel = yield* Kernel
 *       yield* kernel.writeControl("/proc/sys/vm/swappiness", "0")
 *       return { swappiness: 0 }
 *     }),
 *   ),
 * })
 * ```
 */
export const make = <
  const Name extends string,
  E = never,
  RIn = never,
  // Tuples, because a list of classes with static members has no common element type.
  const Provides extends ReadonlyArray<ServiceKey> = [],
  const Requires extends ReadonlyArray<ServiceKey> = [],
  const C extends Criticality = "required",
>(options: {
  readonly name: Name
  readonly description: string
  readonly provides?: Provides & Literal<Provides[number]>
  readonly requires?: Requires & Literal<Requires[number]>
  readonly wants?: ReadonlyArray<ServiceKey>
  readonly criticality?: C
  readonly timeout?: Duration.Input
  readonly retry?: Schedule.Schedule<unknown>
  readonly tolerates?: ReadonlyArray<Tolerance>
  readonly layer: Layer.Layer<NoInfer<ServiceOf<Provides[number]>>, E, RIn> &
    Undeclared<Name, Exclude<RIn, ServiceOf<Requires[number]> | Platform>>
}): Stage<Name, Provides[number], E, Requires[number], C, Extract<RIn, Platform>> => ({
  name: options.name,
  description: options.description,
  provides: options.provides ?? [],
  requires: options.requires ?? [],
  wants: options.wants ?? [],
  criticality: options.criticality ?? ("required" as C),
  timeout: options.timeout ?? "30 seconds",
  retry: options.retry,
  tolerates: options.tolerates ?? [],
  layer: options.layer as never,
})
