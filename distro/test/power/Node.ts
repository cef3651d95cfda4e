/**
 * A node that boots from a disk as `kios image` writes it, by the firmware and
 * with nothing else, and the probe in it.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Probe from "../../src/vm/Probe.ts"
import type { Disk } from "../../src/vm/QemuArguments.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { staticPod } from "../boot/support.ts"

const cli = fileURLToPath(new URL("../../src/cli.ts", import.meta.url))

/** Runs `kios image` and gives what it tells of the image. */
export const image = (args: ReadonlyArray<string>) => {
  const output = execFileSync(
    process.execPath,
    ["--no-warnings", "--conditions=@kios/source", cli, "image", "--json", ...args],
    { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
  )
  return JSON.parse(output.trim().split("\n").at(-1) ?? "") as {
    readonly output: string
    readonly bytes: number
    readonly partitions: ReadonlyArray<{
      readonly type: string
      readonly start: number
      readonly size: number
    }>
  }
}

/** A static pod that sleeps; it needs no network of its own. */
export const sleepingPod = (name: string): string =>
  staticPod("default", name, { command: ["/bin/sleep", "1000000"] })

/** Boots the disk; up once the probe and `pods` run. */
export const boot = Effect.fnUntraced(function* (directory: string, disk: Disk, pods: ReadonlyArray<string>) {
  const machine = yield* VmRun.boot({
    boot: "image",
    disks: [disk],
    directory,
    memoryMiB: 1536,
    ports: [Probe.defaultProbePort],
    noReboot: true,
  })
  const verdict = yield* machine.until(
    { milestones: ["boot-complete"], pods: ["default/kios-probe", ...pods] },
    { timeout: "6 minutes" },
  )
  if (!verdict.reached)
    return yield* Effect.die(
      new Error(`${path.basename(disk.path)}: ${verdict.reason}\n${verdict.tail.join("\n")}`),
    )
  const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
  yield* probe.ready()
  /** Runs a script in the probe's pod; gives its output. */
  const shell = Effect.fnUntraced(function* (script: string, seconds = 60) {
    const { exitCode, stderr, stdout } = yield* probe.exec(script, { timeout: `${seconds} seconds` })
    if (exitCode !== 0)
      return yield* Effect.die(new Error(`the script ended with ${exitCode}: ${stderr}\n${stdout}`))
    return stdout
  })
  return { machine, shell }
})
