/**
 * inotify(7), by `node:fs`: koffi could add a watch, but not wait for it without a thread of its own.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { KernelShape } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"

export const watchDirectory: KernelShape["watchDirectory"] = (path, onChange) =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        // "/." so that what is no directory is refused, as IN_ONLYDIR does.
        const watcher = fs.watch(`${path}/.`, (_kind, name) => {
          if (name !== null) onChange(name)
        })
        // Reading from inotify failed; there is nobody to tell, and an unhandled error would end init.
        watcher.on("error", () => {})
        return watcher
      },
      catch: (cause) =>
        new KernelError({
          syscall: "inotify_add_watch",
          errno: (cause as NodeJS.ErrnoException).code ?? "EIO",
          path,
        }),
    }),
    (watcher) => Effect.sync(() => watcher.close()),
  ).pipe(Effect.asVoid)
