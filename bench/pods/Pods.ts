/** How long a boot takes until all of its static pods run, with more and more of them. */
import { Output } from "@kios/distro/cli/Output"
import { imageNames } from "@kios/distro/recipe"
import * as VmRun from "@kios/distro/vm/VmRun"
import { Duration, Effect } from "effect"
import { BootFailed, kernelStart, type Machine, options } from "../boot/Sample.ts"
import * as Images from "../Images.ts"
import { type Part, table } from "../Part.ts"

/** Pods that do nothing, from the image that the EFI has. */
const pods = (count: number): ReadonlyArray<Images.Pod> =>
  Array.from({ length: count }, (_, index) => {
    const name = `bench-${String(index + 1).padStart(3, "0")}`
    return {
      name,
      manifest: JSON.stringify({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, namespace: "default" },
        spec: {
          hostNetwork: true,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              name: "main",
              image: imageNames.busybox,
              imagePullPolicy: "Never",
              command: ["/bin/sleep", "100000"],
            },
          ],
        },
      }),
    }
  })

const allRunning = Effect.fnUntraced(function* (
  efi: string,
  machine: Machine,
  wanted: ReadonlyArray<string>,
) {
  const result = yield* VmRun.run({
    ...options(efi, machine),
    until: { milestones: [], pods: wanted },
    timeout: Duration.seconds(machine.timeoutSeconds),
  })
  const start = kernelStart(result.events)
  if (!result.reached || start === undefined) {
    const reason = result.reason ?? `missing: ${result.missing.join(", ")}`
    return yield* new BootFailed({ efi, reason, tail: result.tail.slice(-15) })
  }
  const last = result.events.findLast((event) => event._tag === "Milestone" && event.name === "pod-running")
  return Number((last?.at ?? start) - start) / 1e9
})

/** Both images with each number of pods. */
export const measure = Effect.fnUntraced(function* (
  directory: string,
  machine: Machine,
  counts: ReadonlyArray<number>,
) {
  const output = yield* Output
  const rows: Array<{ readonly count: number; readonly kios: number; readonly floor: number }> = []
  for (const count of counts) {
    const more = pods(count)
    const images = yield* Images.both(directory, `pods-${count}`, more)
    const wanted = [machine.pod, ...more.map(({ name }) => `default/${name}`)]
    const of = (name: Images.Name) =>
      Effect.tap(
        Effect.suspend(() => {
          output.status(`pods: ${name} with ${count}`)
          return allRunning(images[name].efi, machine, wanted)
        }),
        (seconds) =>
          Effect.sync(() => output.line(`+ ${name}, ${count} pods: all run after ${seconds.toFixed(1)} s`)),
      )
    rows.push({ count, kios: yield* of("kios"), floor: yield* of("floor") })
  }
  output.status(undefined)
  return {
    lines: table([
      ["seconds from the kernel's start until all pods run", "kios", "floor", "ratio"],
      ...rows.map(({ count, floor, kios }) => [
        `${count} more pods`,
        kios.toFixed(1),
        floor.toFixed(1),
        (kios / floor).toFixed(2),
      ]),
    ]),
    data: rows,
  } satisfies Part
})
