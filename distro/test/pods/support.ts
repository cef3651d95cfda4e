/** A machine whose probe answers, for the tests of the system's pods. */
import { Effect } from "effect"
import * as Probe from "../../src/vm/Probe.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { busybox, dataDisk, efi, eventuallyAssert, temporaryDirectory, unhardened } from "../boot/support.ts"

/** `eventuallyAssert` with a deadline for a machine that is shared. */
export const patiently = <A, E, R>(
  what: string,
  read: Effect.Effect<A, E, R>,
  assertion: (value: A) => void,
) => eventuallyAssert(what, read, assertion, 400)

/** A deadline for vitest, in its milliseconds: long enough for a machine that is shared. */
export const minutes = (count: number): number => count * 60_000

/**
 * Boots the EFI with the probe and `manifests` on a data partition; gives a way
 * to run scripts on the node once all of `pods` run.
 */
export const bootNode = Effect.fnUntraced(function* (options: {
  readonly manifests?: Readonly<Record<string, string>>
  readonly pods: ReadonlyArray<string>
  readonly extraArgs?: ReadonlyArray<string>
}) {
  const directory = yield* temporaryDirectory
  const data = yield* dataDisk(directory, {
    "kios-probe.json": Probe.probeManifest({ image: busybox }),
    ...options.manifests,
  })
  const machine = yield* VmRun.boot({
    efi: yield* efi,
    boot: "kernel",
    cmdline: unhardened,
    memoryMiB: 1536,
    ports: [Probe.defaultProbePort],
    disks: [{ path: data.path, format: "raw" }],
    noReboot: true,
    ...(options.extraArgs === undefined ? {} : { extraArgs: options.extraArgs }),
  })
  const verdict = yield* machine.until(
    { milestones: ["boot-complete"], pods: ["default/kios-probe", ...options.pods] },
    { timeout: "20 minutes" },
  )
  if (!verdict.reached) return yield* Effect.die(new Error(`${verdict.reason}\n${verdict.tail.join("\n")}`))
  const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready({ timeout: "3 minutes" })
  /** What a script says, which must not fail. */
  const run = (script: string, seconds = 90) =>
    probe
      .exec(script, { timeout: `${seconds} seconds` })
      .pipe(
        Effect.flatMap(({ exitCode, stderr, stdout }) =>
          exitCode === 0
            ? Effect.succeed(stdout.trim())
            : Effect.fail(new Error(`the script ended with ${exitCode}: ${stderr}\n${stdout}`)),
        ),
      )
  /** What a container of a pod has written. */
  const logOf = (pod: string, container: string) =>
    run(`cat /host/var/log/pods/${pod.replace("/", "_")}-*/${container}/*.log`)
  return { machine, run, logOf }
})
