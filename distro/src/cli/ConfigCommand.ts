/**
 * `kios config check`: files that a node's owner writes, before a node reads them.
 */
import * as Kubeconfig from "@kios/stages-kubelet/Kubeconfig"
import * as NodeAddress from "@kios/stages-kubelet/NodeAddress"
import * as NodeLabels from "@kios/stages-kubelet/NodeLabels"
import * as NodeTaints from "@kios/stages-kubelet/NodeTaints"
import { Effect } from "effect"
import { Argument, Command } from "effect/cli"
import * as fs from "node:fs"
import * as path from "node:path"
import { check, type Finding } from "../kubelet/ConfigCheck.ts"
import { readSchema } from "../kubelet/ConfigSchema.ts"
import { BadInput } from "./BadInput.ts"
import { json } from "./BuildCommand.ts"
import { Output } from "./Output.ts"

const asFindings = (problems: ReadonlyArray<Kubeconfig.Problem | undefined>): ReadonlyArray<Finding> =>
  problems.flatMap((problem) =>
    problem === undefined
      ? []
      : [{ severity: "error", line: problem.line ?? 1, column: 1, path: "", message: problem.reason }],
  )

const kubeconfig = (text: string) => asFindings([Kubeconfig.examine(text).problem])

// By the name that the file has on a node; any other one is the kubelet's configuration.
const checks: Readonly<Record<string, (text: string) => ReadonlyArray<Finding>>> = {
  "node-labels": (text) => asFindings(NodeLabels.parse(text).problems),
  "node-taints": (text) => asFindings(NodeTaints.parse(text).problems),
  "node-ip": (text) => asFindings([NodeAddress.parseIp(text).problem]),
  "provider-id": (text) => asFindings([NodeAddress.parseProviderId(text).problem]),
  "kubelet.conf": kubeconfig,
  "bootstrap-kubelet.conf": kubeconfig,
}

/** What there is to tell about a file, as a node would find it. */
export const findingsIn = (file: string): Effect.Effect<ReadonlyArray<Finding>, BadInput> =>
  Effect.gen(function* () {
    const text = yield* Effect.try({
      try: () => fs.readFileSync(file, "utf8"),
      catch: (cause) => new BadInput({ file, reason: `cannot be read: ${(cause as Error).message}` }),
    })
    return (checks[path.basename(file)] ?? ((yaml) => check(yaml, readSchema())))(text)
  })

const checkCommand = Command.make(
  "check",
  { json, files: Argument.String("file").pipe(Argument.variadic({ min: 1 })) },
  (flags) =>
    Effect.gen(function* () {
      const output = yield* Output
      let errors = 0
      for (const file of flags.files) {
        const findings = yield* findingsIn(file)
        for (const finding of findings) {
          const { column, line, message, severity } = finding
          output.object({ event: "finding", file, ...finding })
          const about = finding.path === "" ? "" : `${finding.path} `
          output.line(`${file}:${line}:${column}: ${severity}: ${about}${message}`)
          if (severity === "error") errors++
        }
        if (findings.length === 0) output.line(`${file}: nothing is wrong`)
      }
      if (errors > 0)
        return yield* new BadInput({
          file: flags.files.join(", "),
          reason: errors === 1 ? "there is an error" : `there are ${errors} errors`,
        })
    }).pipe(Effect.provide(Output.layer(flags.json))),
).pipe(
  Command.withDescription(
    "Check files of a node: the kubelet's configuration (config.yaml, kubelet.conf.d/*.conf), and by their names node-labels, node-taints, node-ip, provider-id, kubelet.conf and bootstrap-kubelet.conf",
  ),
)

export const configCommand = Command.make("config").pipe(
  Command.withDescription("The files by which a node is configured"),
  Command.withSubcommands([checkCommand]),
)
