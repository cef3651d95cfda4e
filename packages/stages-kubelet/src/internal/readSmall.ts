/**
 * Reads what a pod may have written, without becoming its victim: opening a
 * FIFO waits for a writer, and a large file fills init's memory.
 */
import * as Effect from "effect/Effect"
import type { KernelShape } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"

const MOST = 256 * 1024

/** The text of a file, or why there is none: the kernel's reason, or that it is no small file. */
export const readSmall = (
  kernel: KernelShape,
  path: string,
): Effect.Effect<string | undefined, KernelError | { readonly message: string }> =>
  Effect.gen(function* () {
    const stat = yield* kernel.stat(path)
    if (stat === undefined) return undefined
    if (stat.kind !== "file" && stat.kind !== "symlink")
      return yield* Effect.fail({ message: `is a ${stat.kind} and no file` })
    if (stat.size > MOST)
      return yield* Effect.fail({ message: `has ${stat.size} bytes, and may have ${MOST}` })
    return yield* Effect.catchIf(
      kernel.readText(path),
      // A link to nothing, or gone since.
      ({ errno }) => errno === "ENOENT",
      () => Effect.succeed(undefined),
    )
  })
