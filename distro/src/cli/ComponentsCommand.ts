/**
 * `kios components`: the third-party parts and their pins.
 */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { components, updatePins } from "../components/catalog.ts"
import { Progress } from "../components/Progress.ts"
import { json } from "./BuildCommand.ts"
import { buildReporter, Output, table } from "./Output.ts"

const list = Command.make("list", { json }, (flags) =>
  Effect.gen(function* () {
    const output = yield* Output
    const catalog = Object.values(yield* components("x86_64"))
    for (const { license, name, sources, version } of catalog) {
      output.object({ name, version, license, sources: sources.map((source) => source.description) })
    }
    output.line(table(catalog.map(({ license, name, version }) => [`${name} ${version}`, license] as const)))
  }).pipe(Effect.provide(Output.layer(flags.json))),
).pipe(Command.withDescription("List the components with their versions and licenses"))

const update = Command.make("update", { json }, (flags) =>
  Effect.gen(function* () {
    const output = yield* Output
    const changes = yield* updatePins.pipe(
      Effect.provideService(Progress, buildReporter(output)),
      Effect.ensuring(Effect.sync(() => output.status(undefined))),
    )
    for (const change of changes) output.object({ event: "pinned", ...change })
    output.line(
      changes.length === 0
        ? "every pin is what Debian serves now"
        : changes.map((change) => `+ ${JSON.stringify(change)}`).join("\n"),
    )
  }).pipe(Effect.provide(Output.layer(flags.json))),
).pipe(Command.withDescription("Pin what Debian serves now; review the change and build again"))

export const componentsCommand = Command.make("components").pipe(
  Command.withDescription("The third-party parts of the image and their pins"),
  Command.withSubcommands([list, update]),
)
