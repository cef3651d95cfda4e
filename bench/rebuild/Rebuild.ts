/** How long a build takes when everything is there, and after a change of one line in init. */
import { Output } from "@kios/distro/cli/Output"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Build from "@kios/distro/Build"
import { recipe } from "@kios/distro/recipe"
import { median } from "../boot/Comparison.ts"
import { attempt } from "../FloorImage.ts"
import { type Part, table } from "../Part.ts"

const distro = fileURLToPath(new URL("../../distro/src", import.meta.url))

/** Builds with a recipe whose init is `entry`. */
const build = (entry: string, directory: string) =>
  Effect.map(
    Build.build({ recipe: { ...recipe, init: entry }, output: path.join(directory, "rebuild.efi") }),
    ({ seconds }) => seconds,
  )

/** `rounds` of both, in turns. */
export const measure = Effect.fnUntraced(function* (directory: string, rounds: number) {
  const output = yield* Output
  const own = path.join(directory, "rebuild")
  yield* attempt(own, () => fs.mkdirSync(own, { recursive: true }))
  // Beside init.ts, so that it finds what that finds; nothing of the checkout is changed.
  const entry = path.join(distro, ".init-bench.ts")
  const text = yield* attempt(entry, () => fs.readFileSync(path.join(distro, "init.ts"), "utf8"))
  const times = { changed: [] as Array<number>, again: [] as Array<number> }
  yield* Effect.gen(function* () {
    output.status("build: everything is made once")
    yield* attempt(entry, () => fs.writeFileSync(entry, text))
    yield* build(entry, own)
    for (let round = 1; round <= rounds; round++) {
      output.status(`build: round ${round} of ${rounds}`)
      yield* attempt(entry, () =>
        fs.writeFileSync(entry, `${text}\nprocess.env["KIOS_BENCH"] = "${Date.now()}"\n`),
      )
      times.changed.push(yield* build(entry, own))
      times.again.push(yield* build(entry, own))
    }
  }).pipe(Effect.ensuring(Effect.sync(() => fs.rmSync(entry, { force: true }))))
  output.status(undefined)
  return {
    lines: table([
      [`build, seconds, ${rounds} rounds`, "median", "least"],
      ["after a change of one line in init", ...cells(times.changed)],
      ["again, nothing changed", ...cells(times.again)],
    ]),
    data: times,
  } satisfies Part
})

const cells = (seconds: ReadonlyArray<number>) => [
  median(seconds).toFixed(1),
  Math.min(...seconds).toFixed(1),
]
