/**
 * The `kios` command.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer, Runtime } from "effect"
import { CliError, Command } from "effect/cli"
import { buildCommand } from "./cli/BuildCommand.ts"
import { componentsCommand } from "./cli/ComponentsCommand.ts"
import { configCommand } from "./cli/ConfigCommand.ts"
import { imageCommand } from "./cli/ImageCommand.ts"
import { planCommand } from "./cli/PlanCommand.ts"
import { runCommand } from "./cli/RunCommand.ts"
import { timelineCommand } from "./cli/TimelineCommand.ts"
import { exitCodes } from "./cli/Output.ts"
import { CommandRunner } from "./components/CommandRunner.ts"
import { ComponentStore } from "./components/ComponentStore.ts"

const kios = Command.make("kios").pipe(
  Command.withDescription("Build kiOS and run it in a virtual machine"),
  Command.withSubcommands([
    buildCommand,
    imageCommand,
    runCommand,
    planCommand,
    timelineCommand,
    componentsCommand,
    configCommand,
  ]),
)

const services = Layer.mergeAll(NodeServices.layer, ComponentStore.live, CommandRunner.layer)

Command.run(kios, { version: "0.1.0" }).pipe(
  Effect.provide(services),
  // Errors are sentences for people; a stack is only worth showing for a bug of ours.
  Effect.tapCause((cause) =>
    Effect.sync(() => {
      for (const reason of cause.reasons) {
        if (Cause.isFailReason(reason)) {
          // The command-line library has told its own errors with the help text.
          if (CliError.isCliError(reason.error)) continue
          const { message } = reason.error as { readonly message?: string }
          process.stderr.write(`kios: ${message ?? String(reason.error)}\n`)
        } else if (Cause.isDieReason(reason)) {
          const defect = reason.defect
          process.stderr.write(
            `kios: bug: ${defect instanceof Error ? (defect.stack ?? defect.message) : String(defect)}\n`,
          )
        }
      }
    }),
  ),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) =>
      Exit.isFailure(exit) && CliError.isCliError(Cause.squash(exit.cause))
        ? onExit(exitCodes.usage)
        : Runtime.defaultTeardown(exit, onExit),
  }),
)
