/**
 * Whose a call of the Kernel door is: wherever a stage's fibers are, what they
 * log is annotated with its name, and so are their calls.
 */
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type { KernelShape } from "../Kernel.ts"
import type { KernelError } from "../KernelError.ts"
import type { Operation } from "./TestCalls.ts"

/** An operation of the Kernel door that can fail. */
export type Fallible = Exclude<Operation, "sync" | "releaseMemory">

/** One call of a boot, whenever it comes: stages run beside each other. */
export interface CallSite {
  /** Who calls; undefined: none of the stages (the boot report, say). */
  readonly stage: string | undefined
  /** The supervised process that the call is for. */
  readonly process: string | undefined
  readonly operation: Fallible
  /** What the call is about. */
  readonly path: string | undefined
  /** Which of the stage's calls of this operation on this path it is, from 1 on. */
  readonly ordinal: number
}

const neverFails: ReadonlySet<string> = new Set(["sync", "releaseMemory", "onSignal", "monotonic"])

const pathOf = (operation: Fallible, args: ReadonlyArray<unknown>): string | undefined => {
  const first = args[0]
  switch (operation) {
    case "mount":
      return (first as Parameters<KernelShape["mount"]>[0]).target
    case "spawn":
      return (first as Parameters<KernelShape["spawn"]>[0]).command
    case "openOutput":
      return (first as Parameters<KernelShape["openOutput"]>[0]).log?.path
    case "listen":
      return (first as Parameters<KernelShape["listen"]>[0]).path
    case "symlink":
      return String(args[1])
    case "peekDeadChild":
    case "reboot":
    case "setOpenFilesLimit":
      return undefined
    default:
      return String(first)
  }
}

/** A call site in words, which no other has. */
export const nameOf = ({ operation, ordinal, path, process, stage }: CallSite): string =>
  `${stage ?? "no stage"}${process === undefined ? "" : ` (process ${process})`}: ${operation} ${path ?? ""}${ordinal === 1 ? "" : ` #${ordinal}`}`

/** The machine's kernel, that tells of each call whose it is before it makes it. */
export const attributed = (kernel: KernelShape, before: (site: CallSite) => void): KernelShape => {
  const ordinals = new Map<string, number>()
  const around = <A>(
    operation: Fallible,
    args: ReadonlyArray<unknown>,
    call: Effect.Effect<A, KernelError>,
  ): Effect.Effect<A, KernelError> =>
    Effect.flatMap(References.CurrentLogAnnotations, (annotations) => {
      const text = (key: string) => (annotations[key] === undefined ? undefined : String(annotations[key]))
      const [stage, process, path] = [text("stage"), text("process"), pathOf(operation, args)]
      const key = JSON.stringify([stage, process, operation, path])
      const ordinal = (ordinals.get(key) ?? 0) + 1
      ordinals.set(key, ordinal)
      before({ stage, process, operation, path, ordinal })
      return call
    })
  const wrapped = Object.entries(kernel).map(([name, member]) => {
    const operation = name as Fallible
    if (neverFails.has(name)) return [name, member] as const
    if (typeof member !== "function") return [name, around(operation, [], member)] as const
    const method = member as (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown, KernelError>
    return [name, (...args: ReadonlyArray<unknown>) => around(operation, args, method(...args))] as const
  })
  return Object.fromEntries(wrapped) as unknown as KernelShape
}
