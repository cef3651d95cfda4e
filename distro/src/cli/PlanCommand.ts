/**
 * `kios plan`: the boot as it would happen, without running anything.
 */
import * as BootRecord from "@kios/core/BootRecord"
import * as Plan from "@kios/core/Plan"
import * as PlanSvg from "@kios/core/PlanSvg"
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { pipeline } from "../pipeline.ts"
import { BadInput } from "./BadInput.ts"
import { readBoot, writePicture } from "./BootFile.ts"
import { svg, theme } from "./TimelineCommand.ts"

/** How long this distro's stages took in the boot of that file, milliseconds by name. */
const durationsIn = Effect.fnUntraced(function* (file: string) {
  const durations = BootRecord.durations(yield* readBoot(file))
  if (!pipeline.stages.some((stage) => durations[stage.name] !== undefined))
    return yield* new BadInput({
      file,
      reason: "has no stage of this distro that ended; was it recorded on a node of another distro?",
    })
  return durations
})

export const planCommand = Command.make(
  "plan",
  {
    format: Flag.Literals("format", ["text", "json", "mermaid"]).pipe(
      Flag.withDefault("text" as const),
      Flag.withDescription("text, json or mermaid (default text)"),
    ),
    json: Flag.Boolean("json").pipe(
      Flag.withDefault(false),
      Flag.withDescription("The same as --format json"),
    ),
    durations: Flag.String("durations").pipe(
      Flag.optional,
      Flag.withDescription(
        "Take the stages' durations from this boot.json of a node, or output of kios run --json",
      ),
    ),
    svg,
    allEdges: Flag.Boolean("all-edges").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Picture only: draw the requirements that follow from others too"),
    ),
    theme,
  },
  (flags) =>
    Effect.gen(function* () {
      const durations = Option.isSome(flags.durations) ? yield* durationsIn(flags.durations.value) : {}
      const plan = Plan.make(pipeline.stages, durations)
      if (Option.isSome(flags.svg)) {
        const edges = flags.allEdges ? "all" : "direct"
        return yield* writePicture(flags.svg.value, PlanSvg.toSvg(plan, { edges, theme: flags.theme }))
      }
      const text =
        flags.json || flags.format === "json"
          ? JSON.stringify(plan, null, 2)
          : flags.format === "mermaid"
            ? Plan.toMermaid(plan)
            : Plan.toText(plan)
      process.stdout.write(`${text}\n`)
    }),
).pipe(Command.withDescription("Show the stages, what each waits for, and the critical path"))
