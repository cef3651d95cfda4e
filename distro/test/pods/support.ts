/** A machine that is asked in words, for the tests of the system's pods. */
import { Effect } from "effect"
import * as Boot from "../boot/support.ts"

/** `eventuallyAssert` with a deadline for a machine that is shared. */
export const patiently = <A, E, R>(
  what: string,
  read: Effect.Effect<A, E, R>,
  assertion: (value: A) => void,
) => Boot.eventuallyAssert(what, read, assertion, 400)

/** A deadline for vitest, in its milliseconds: long enough for a machine that is shared. */
export const minutes = (count: number): number => count * 60_000

/** Boots the EFI as it ships; up once all `pods` run. It has no network but that of `extraArgs`. */
export const bootNode = Effect.fnUntraced(function* (
  options: Pick<Boot.NodeOptions, "manifests" | "pods" | "extraArgs">,
) {
  const { lines, machine } = yield* Boot.bootNode({
    ...options,
    network: "none",
    cmdline: Boot.unhardened,
  })
  /** What a script says, which must not fail; without empty lines. */
  const run = (script: string, seconds = 90) =>
    Effect.map(lines(script, seconds), (said) => said.join("\n").trim())
  /** What a container of a pod has written. */
  const logOf = (pod: string, container: string) =>
    run(`cat /host/var/log/pods/${pod.replace("/", "_")}-*/${container}/*.log`)
  return { machine, run, logOf }
})
