import * as Context from "effect/Context"

/** What an earlier boot left of the kernel's log when it ended. */
export interface PersistedLog {
  /** When the log was handed over, by the machine's clock: milliseconds since 1970. */
  readonly at: number
  /** The kernel's word for why: `Panic`, `Oops`, `Shutdown` ... */
  readonly reason: string
  /** The last lines of the log, oldest first. */
  readonly text: string
  /** The files in /sys/fs/pstore that it was read from; removing them frees the store. */
  readonly files: ReadonlyArray<string>
}

/**
 * From here on the end of the kernel's log outlives a panic; and what it kept of earlier boots.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { PersistentStore } from "@kios/core/capabilities/PersistentStore"
 *
 * const died = PersistentStore.use(({ logs }) => Effect.succeed(logs.length > 0))
 * ```
 */
export class PersistentStore extends Context.Service<
  PersistentStore,
  {
    /** What keeps it (`efi_pstore`); undefined on a machine that has nothing to keep it in. */
    readonly backend: string | undefined
    /** Oldest first. */
    readonly logs: ReadonlyArray<PersistedLog>
  }
>()("kios/PersistentStore") {}
