/**
 * What the tests of the image writers share: a scratch directory and the rule
 * that a missing program skips a test on a desk and fails it in CI.
 */
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { find } from "../../src/image/HostTools.ts"

/** A directory that goes away with the test's scope. */
export const scratch = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-image-"))),
  (dir) => Effect.sync(() => fs.rmSync(dir, { recursive: true, force: true })),
)

/** Skip for want of these programs? Never in CI: there the test fails by itself. */
export const lacking = (...tools: ReadonlyArray<string>): boolean =>
  process.env["CI"] === undefined && tools.some((tool) => find(tool) === undefined)

/** The error that an effect fails with; dies when it succeeds. */
export const failure = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<E> =>
  Effect.flip(effect).pipe(Effect.catch(() => Effect.die(new Error("expected a failure, got a success"))))

/** Bytes that do not compress and are the same in every run. */
export const noise = (length: number, seed = 1): Buffer => {
  const out = Buffer.allocUnsafe(length)
  let x = seed >>> 0 || 1
  for (let i = 0; i < length; i++) {
    x ^= x << 13
    x >>>= 0
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    out[i] = x & 0xff
  }
  return out
}
