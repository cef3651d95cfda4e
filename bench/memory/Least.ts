/** The least memory with which an image boots to a running pod, by halving. */
import { Output } from "@kios/distro/cli/Output"
import { Effect } from "effect"
import * as Sample from "../boot/Sample.ts"
import * as Images from "../Images.ts"
import { type Part, table } from "../Part.ts"

/** MiB; both ends, and how finely is looked. */
const range = { low: 256, high: 1536, step: 32 } as const

/** The least size of `low`, `low + step`, ... `high` that `works` says yes to, if it does to `high`; undefined otherwise. */
export const halve = <E, R>(
  { high, low, step }: { readonly low: number; readonly high: number; readonly step: number },
  works: (size: number) => Effect.Effect<boolean, E, R>,
): Effect.Effect<number | undefined, E, R> =>
  Effect.gen(function* () {
    // Sizes as numbers of steps: `bad` fails, or is below all; `good` works.
    let [bad, good] = [-1, Math.floor((high - low) / step)]
    if (!(yield* works(low + good * step))) return undefined
    while (good - bad > 1) {
      const middle = (good + bad) >> 1
      if (yield* works(low + middle * step)) good = middle
      else bad = middle
    }
    return low + good * step
  })

/** Both images. */
export const measure = Effect.fnUntraced(function* (
  images: Readonly<Record<Images.Name, { readonly efi: string }>>,
  machine: Sample.Machine,
) {
  const output = yield* Output
  const of = (name: Images.Name) =>
    halve(range, (memoryMiB) =>
      Effect.gen(function* () {
        output.status(`least memory: ${name} with ${memoryMiB} MiB`)
        const sample = yield* Sample.measure(images[name].efi, {
          ...machine,
          memoryMiB,
          noReboot: true,
        }).pipe(Effect.catchTag("BootFailed", ({ reason }) => Effect.succeed({ reason })))
        const reached = "firmware" in sample
        output.line(
          `+ ${name}, ${memoryMiB} MiB: ${reached ? `a pod runs after ${sample["pod-running"].toFixed(1)} s` : sample.reason}`,
        )
        return reached
      }),
    )
  const least = { kios: yield* of("kios"), floor: yield* of("floor") }
  output.status(undefined)
  const cell = (size: number | undefined) => (size === undefined ? `more than ${range.high}` : String(size))
  return {
    lines: table([
      ["least memory that reaches a running pod, MiB", "kios", "floor"],
      [`in steps of ${range.step}`, cell(least.kios), cell(least.floor)],
    ]),
    data: { ...least, step: range.step },
  } satisfies Part
})
