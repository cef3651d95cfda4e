/** Both images, booted in turns: what `npm run bench` is about. */
import type { Build } from "@kios/distro/Build"
import { megabytes, Output } from "@kios/distro/cli/Output"
import { Effect } from "effect"
import * as os from "node:os"
import * as Images from "../Images.ts"
import type { Part } from "../Part.ts"
import * as Comparison from "./Comparison.ts"
import * as Picture from "./Picture.ts"
import * as Sample from "./Sample.ts"

/** Above this share of the host's processors, other programs are part of the result. */
const QUIET = 0.1

const busy = (others: number | undefined): ReadonlyArray<string> =>
  others === undefined || others <= QUIET ? [] : [`others took ${Math.round(100 * others)} % of the host`]

const boot = Effect.fnUntraced(function* (title: string, efi: string, machine: Sample.Machine) {
  const output = yield* Output
  const said: Array<string> = []
  output.status(`${title}: firmware`)
  const sample = yield* Sample.measure(efi, machine, (name, seconds) => {
    said.push(`${name} ${seconds.toFixed(2)}`)
    output.status(`${title}: ${said.slice(-3).join(", ")}`)
  }).pipe(Effect.ensuring(Effect.sync(() => output.status(undefined))))
  const numbers = Sample.milestones.map((name) => `${name} ${sample[name].toFixed(2)}`)
  output.line(
    `+ ${title}: ${[`firmware ${sample.firmware.toFixed(2)}`, ...numbers, ...busy(sample.others)].join(", ")}`,
  )
  return sample
})

/**
 * Boots each image `pairs` times. Who goes first changes, so that being the second is nobody's advantage.
 *
 * @returns besides the part, the picture as SVG.
 */
export const measure = Effect.fnUntraced(function* (
  images: Readonly<Record<Images.Name, Build>>,
  machine: Sample.Machine,
  number: number,
) {
  const output = yield* Output
  const pairs: Array<Comparison.Pair> = []
  for (let pair = 1; pair <= number; pair++) {
    const order = pair % 2 === 1 ? (["floor", "kios"] as const) : (["kios", "floor"] as const)
    const samples: { kios?: Sample.Sample; floor?: Sample.Sample } = {}
    for (const name of order)
      samples[name] = yield* boot(`${pair}/${number} ${name}`, images[name].efi, machine)
    pairs.push({ kios: samples.kios!, floor: samples.floor! })
  }
  const rows = Comparison.compare(pairs)
  const disturbed = Math.max(...pairs.flatMap((pair) => [pair.kios.others ?? 0, pair.floor.others ?? 0]))
  const note =
    `${number} pairs, ${machine.cpus} CPUs, ${machine.memoryMiB} MiB, QEMU ${machine.accelerator === "tcg" ? "without KVM " : ""}` +
    `on ${os.cpus().length} host CPUs` +
    (disturbed > QUIET
      ? `; the host was busy (other programs took up to ${Math.round(100 * disturbed)} % of it)`
      : "")
  const part: Part = {
    lines: [
      Comparison.render(rows),
      "",
      Picture.text(rows, output.width),
      "",
      `${note}\nEFI: kios ${megabytes(images.kios.bytes)}, floor ${megabytes(images.floor.bytes)}`,
    ],
    data: { machine, images, pairs, rows, others: disturbed },
  }
  return { part, svg: Picture.svg(rows, note) }
})
