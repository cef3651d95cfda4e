/**
 * `kios plan`: the boot as it would happen, without running anything.
 */
import * as Plan from "@kios/core/Plan"
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { pipeline } from "../pipeline.ts"

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
  },
  ({ format, json }) =>
    Effect.sync(() => {
      const plan = Plan.make(pipeline.stages)
      const text =
        json || format === "json"
          ? JSON.stringify(plan, null, 2)
          : format === "mermaid"
            ? Plan.toMermaid(plan)
            : Plan.toText(plan)
      process.stdout.write(`${text}\n`)
    }),
).pipe(Command.withDescription("Show the stages, what each waits for, and the critical path"))
