/**
 * `kios timeline`: a boot that happened, on the clock.
 */
import * as TimelineSvg from "@kios/core/TimelineSvg"
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Timeline from "../vm/Timeline.ts"
import { readBoot, toTimeline, writePicture } from "./BootFile.ts"
import { parsed, parseSeconds } from "./RunOptions.ts"

/** Text for a terminal of that many columns. */
const DEFAULT_COLUMNS = 100

const instant = (name: string, description: string) =>
  Flag.String(name).pipe(
    parsed(parseSeconds, "seconds since kernel start, such as 2.5 or 90s"),
    Flag.optional,
    Flag.withDescription(description),
  )

export const theme = Flag.Literals("theme", ["auto", "light", "dark"]).pipe(
  Flag.withDefault("auto" as const),
  Flag.withDescription("Colours of the picture: auto (as the reader prefers), light or dark"),
)

export const svg = Flag.String("svg").pipe(
  Flag.optional,
  Flag.withDescription("Write a picture to this file instead of text to the terminal"),
)

export const timelineCommand = Command.make(
  "timeline",
  {
    file: Argument.String("boot.json").pipe(
      Argument.withDescription("A node's /run/kios/boot.json, or the output of kios run --json"),
    ),
    svg,
    from: instant("from", "Picture only: begin here (default 0)"),
    to: instant("to", "Picture only: end here (default: where the boot ends)"),
    theme,
  },
  (flags) =>
    Effect.gen(function* () {
      const record = yield* readBoot(flags.file)
      if (Option.isSome(flags.svg)) {
        const picture = TimelineSvg.toSvg(record, {
          theme: flags.theme,
          ...(Option.isSome(flags.from) ? { fromMs: flags.from.value * 1000 } : {}),
          ...(Option.isSome(flags.to) ? { untilMs: flags.to.value * 1000 } : {}),
        })
        return yield* writePicture(flags.svg.value, picture)
      }
      const { columns, isTTY } = process.stdout
      process.stdout.write(
        Timeline.render(toTimeline(record), {
          width: Math.min(columns ?? DEFAULT_COLUMNS, 120),
          color: isTTY === true && process.env["NO_COLOR"] === undefined,
        }),
      )
    }),
).pipe(Command.withDescription("Show when everything happened during a boot that was recorded"))
