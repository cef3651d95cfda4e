/**
 * The two inits on this machine's own processor: PID 1 of fresh namespaces, to
 * the start of containerd. Emulation makes a compiler that runs at boot look
 * worse than it is; this is how much of it a real machine sees.
 */
import { Output } from "@kios/distro/cli/Output"
import type { Recipe } from "@kios/distro/ImageRecipe"
import { Effect } from "effect"
import * as path from "node:path"
import { median } from "../boot/Comparison.ts"
import type { Name } from "../Images.ts"
import { type Part, table } from "../Part.ts"
import * as NativeRun from "./NativeRun.ts"
import * as NativeTree from "./NativeTree.ts"

/** Milliseconds. */
const ms = (seconds: number) => (seconds * 1000).toFixed(1)

const summary = (runs: ReadonlyArray<NativeRun.Handover>) => ({
  wall: median(runs.map(({ seconds }) => seconds)),
  leastWall: Math.min(...runs.map(({ seconds }) => seconds)),
  processor: median(runs.map(({ processorSeconds }) => processorSeconds)),
  leastProcessor: Math.min(...runs.map(({ processorSeconds }) => processorSeconds)),
})

/** Starts each init `rounds` times, in turns. */
export const handOver = Effect.fnUntraced(function* (recipe: Recipe, directory: string, rounds: number) {
  const output = yield* Output
  output.status("native: making the trees")
  const { sealed, trees } = yield* NativeTree.make(recipe, path.join(directory, "native"))
  const runs: Record<Name, Array<NativeRun.Handover>> = { kios: [], floor: [] }
  for (let round = 1; round <= rounds; round++) {
    output.status(`native: round ${round} of ${rounds}`)
    for (const name of round % 2 === 1 ? (["floor", "kios"] as const) : (["kios", "floor"] as const))
      runs[name].push(yield* NativeRun.run(trees, name))
  }
  output.status(undefined)
  const [kios, floor] = [summary(runs.kios), summary(runs.floor)]
  const row = (what: string, key: keyof typeof kios) => [
    what,
    ms(kios[key]),
    ms(floor[key]),
    `+${ms(kios[key] - floor[key])}`,
  ]
  const lines = table([
    [`native, ms, ${rounds} rounds`, "kios", "floor", "added"],
    row("hand-over to containerd, median", "wall"),
    row("least", "leastWall"),
    row("processor time of init, median", "processor"),
    row("least", "leastProcessor"),
  ])
  return { lines, data: { rounds, kios, floor, runs, snapshotBytes: sealed.snapshotBytes } } satisfies Part
})

/** What stages cost that do nothing: one after the other, before containerd. */
export const stages = Effect.fnUntraced(function* (
  recipe: Recipe,
  directory: string,
  rounds: number,
  counts: ReadonlyArray<number>,
) {
  const output = yield* Output
  const trees = new Map<number, NativeTree.NativeTrees>()
  for (const count of counts) {
    output.status(`stages: making an init with ${count} more`)
    const made = yield* NativeTree.make(recipe, path.join(directory, `native-${count}`), count)
    trees.set(count, made.trees)
  }
  const runs = new Map(counts.map((count) => [count, [] as Array<NativeRun.Handover>]))
  for (let round = 1; round <= rounds; round++) {
    output.status(`stages: round ${round} of ${rounds}`)
    for (const count of counts) runs.get(count)!.push(yield* NativeRun.run(trees.get(count)!, "kios"))
  }
  output.status(undefined)
  const of = (count: number) => summary(runs.get(count)!)
  const first = of(counts[0]!)
  const lines = table([
    [`stages of no work, ms, ${rounds} rounds`, "hand-over", "least", "processor", "a stage"],
    ...counts.map((count) => {
      const { leastWall, processor, wall } = of(count)
      const more = count - counts[0]!
      return [
        `${count} more`,
        ms(wall),
        ms(leastWall),
        ms(processor),
        more === 0 ? "" : ((1000 * (processor - first.processor)) / more).toFixed(3),
      ]
    }),
  ])
  return { lines, data: counts.map((count) => ({ count, ...of(count) })) } satisfies Part
})
