// Runs one contract case in an empty tmpfs of its own.
import { Effect, type Scope } from "effect"
import { Kernel } from "@kios/core/Kernel"
import { type Case, Subject } from "./cases.ts"

let used = 0

/** @param base a directory that is there */
export const run = (
  one: Case,
  base: string,
  programs: Omit<Subject["Service"], "dir">,
): Effect.Effect<void, unknown, Kernel | Scope.Scope> =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const dir = `${base}/${++used}`
    yield* kernel.makeDirectory(dir)
    yield* Effect.acquireRelease(
      kernel.mount({ source: "contract", target: dir, fstype: "tmpfs", flags: [], options: "mode=0755" }),
      () => Effect.ignore(Effect.andThen(kernel.chdir("/"), kernel.umount(dir, ["MNT_DETACH"]))),
    )
    yield* one.run.pipe(Effect.provideService(Subject, { dir, ...programs }))
  })
