/**
 * A file of JSON that is as something in memory is: how the boot report and
 * the events get where pods and people read them.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Kernel } from "../Kernel.ts"
import type { KernelError } from "../KernelError.ts"

/** What is kept, and where. */
export interface KeptFile {
  readonly path: string
  readonly current: Effect.Effect<unknown>
  /** Waits until `current` has changed since the last time this was asked. */
  readonly changed: Effect.Effect<void>
  /** The file is not written again before this long after the last time. */
  readonly atMostEvery: Duration.Input
}

/** Replaces the file with what `current` is; a reader sees the old one or the new one. */
export const write = ({ current, path }: KeptFile): Effect.Effect<void, KernelError, Kernel> =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    yield* kernel.makeDirectory(path.slice(0, path.lastIndexOf("/")))
    yield* kernel.writeFile(`${path}.new`, `${JSON.stringify(yield* current, null, 1)}\n`)
    yield* kernel.rename(`${path}.new`, path)
  })

/** Writes the file after every change, for ever. It is for people and tools, so failing to write it is only told. */
export const keepFile = (file: KeptFile): Effect.Effect<never, never, Kernel> =>
  Effect.forever(
    file.changed.pipe(
      Effect.andThen(Effect.catch(write(file), (error) => Effect.logWarning(error.message))),
      Effect.andThen(Effect.sleep(file.atMostEvery)),
    ),
  )
