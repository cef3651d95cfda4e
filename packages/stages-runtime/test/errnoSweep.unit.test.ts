// Every call of the reference boot, failing with every errno that it may fail with; docs/errno-sweep.md is its table.
import { assert, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Pipeline from "@kios/core/Pipeline"
import * as ErrnoSweep from "@kios/core/testing/ErrnoSweep"
import { makeFakeContainerd } from "./containerd/support/FakeContainerd.ts"
import { tempDir } from "./containerd/support/http2Server.ts"
import {
  backupOnlyDisk,
  enlargedDisk,
  importing,
  kubelet,
  kubeletNode,
  node,
  pipeline,
} from "./referenceNode.ts"

const page = fileURLToPath(new URL("../../../docs/errno-sweep.md", import.meta.url))

const header = (boots: number, sites: number) => `# Errno sweep

What becomes of a node when a system call fails while it boots. The stages of the reference distro were booted in memory ${boots} times, with one of ${sites} calls failing once in each boot. \`packages/stages-runtime/test/errnoSweep.unit.test.ts\` does it and fails when this page is out of date (\`vitest -u\` writes it), or when a boot ends in a way that no stage declares.

- **failed**: the stage is required, and the boot failed naming it and the errno; or another stage failed that the tolerance says can not do without.
- **degraded**: the stage is optional, and the boot report says that it failed, naming the errno.
- **tolerated**: the stage declares (\`tolerates\`) that it comes up without the call; it is up, and the log names the errno unless it is declared to be no fault.
- **retried**: the supervisor started the process again, and it came up.
- **unaffected**: a call of no stage (the boot report's own), which must never fail a boot.

The boots: on a node with a data partition, every call; on a node without one, and with \`datapart=LABEL=\`, those of the stages that then do something else; with an enlarged disk and \`datapart.grow\`, those of \`disk-grow\`; with a lost partition table, those of \`data-partition\`; \`image-preload\` once more, with an archive that is imported; and \`kubelet\` on a node that is ready for it, with every file that its owner may write. Which errnos: \`errnos\` in \`@kios/core/testing/ErrnoSweep\`.
`

it.live(
  "no call of the boot can fail in a way that no stage declares",
  () =>
    Effect.gen(function* () {
      const fake = yield* makeFakeContainerd(`${yield* tempDir}/c.sock`)
      const boot = Pipeline.without(pipeline(fake.address), "kubelet")
      const persistent = ["data-partition", "etc-overlay", "machine-id", "hostname"]
      const sweeps = [
        yield* ErrnoSweep.sweep({ pipeline: boot, machine: () => node({ died: true }) }),
        yield* ErrnoSweep.sweep({
          pipeline: boot,
          machine: () => node({ disks: {} }),
          only: ({ stage = "" }) => persistent.includes(stage),
        }),
        yield* ErrnoSweep.sweep({
          pipeline: boot,
          machine: () => node({ parameters: "datapart=LABEL=state" }),
          only: ({ operation, stage }) => stage === "data-partition" && operation.startsWith("read"),
        }),
        yield* ErrnoSweep.sweep({
          pipeline: boot,
          machine: () => node({ disks: { vda: enlargedDisk() }, parameters: "datapart.grow" }),
          only: ({ stage }) => stage === "disk-grow",
        }),
        yield* ErrnoSweep.sweep({
          pipeline: boot,
          machine: () => node({ disks: { vda: backupOnlyDisk() } }),
          only: ({ stage }) => stage === "data-partition",
        }),
        yield* ErrnoSweep.sweep({
          pipeline: importing,
          machine: () => node({ files: { "/lib/kios/images/pause.tar": "x" } }),
          only: ({ stage }) => stage === "image-preload",
        }),
        yield* ErrnoSweep.sweep({
          pipeline: kubelet,
          machine: kubeletNode,
          only: ({ stage }) => stage === "kubelet",
        }),
      ]
      assert.strictEqual(ErrnoSweep.describe(sweeps.flatMap((one) => one.undeclared)), "")
      // What this machine has no call for; the stages' own tests do.
      const unused = sweeps.map(
        (one) => new Set(one.unused.map(({ stage, tolerance }) => `${stage} ${tolerance.operation}`)),
      )
      const all = new Set(unused.flatMap((lines) => [...lines]))
      const lacks = (index: number, line: string) =>
        !(sweeps[index]?.stages ?? []).includes(line.split(" ")[0] ?? "")
      assert.deepStrictEqual(
        [...all]
          .filter((line) => unused.every((lines, index) => lines.has(line) || lacks(index, line)))
          .toSorted(),
        ["data-partition readLink", "pseudo-filesystems makeDirectory", "root-switch unlink"],
      )
      const count = (of: "sites" | "trials") => sweeps.reduce((sum, one) => sum + one[of].length, 0)
      yield* Effect.promise(() =>
        expect(
          `${header(count("trials"), count("sites"))}\n${ErrnoSweep.toMarkdown(sweeps)}\n`,
        ).toMatchFileSnapshot(page),
      )
    }),
  900_000,
)
