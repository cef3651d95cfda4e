/** A node that is shut down and boots again, on one disk, as often as a test wants. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Probe from "../../src/vm/Probe.ts"
import type { VmEvent } from "../../src/vm/Milestones.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import {
  busybox,
  dataDisk,
  eventually,
  leanEfi,
  linesOf,
  staticPod,
  temporaryDirectory,
  unhardened,
} from "../boot/support.ts"
import { assertClean, type OnDisk } from "./Partition.ts"

/** Below this directory of the data partition pods write what has to be there afterwards. */
export const FOUND = "hook"

/**
 * A pod that takes `seconds` to end well: its preStop hook writes `begun`, and `done` when it was given the time.
 * Each end has a line of its own.
 */
export const hookedPod = (name: string, seconds: number): string =>
  staticPod(
    "default",
    name,
    {
      command: ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
      lifecycle: {
        preStop: {
          exec: {
            command: [
              "/bin/sh",
              "-c",
              `echo begun >> /found/${name}; sleep ${seconds}; echo done >> /found/${name}; sync /found/${name}`,
            ],
          },
        },
      },
      volumeMounts: [{ name: "found", mountPath: "/found" }],
    },
    [{ name: "found", hostPath: { path: `/run/kios/data/${FOUND}`, type: "DirectoryOrCreate" } }],
    seconds + 60,
  )

/** A pod that takes no notice of SIGTERM. */
export const stubbornPod = (name: string, graceSeconds: number): string =>
  staticPod(
    "default",
    name,
    { command: ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"] },
    undefined,
    graceSeconds,
  )

// An emulated machine that is shared takes its time to start a hook: what the distro gives pods is for real ones.
const kubelet = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
shutdownGracePeriod: 3m
shutdownGracePeriodCriticalPods: 30s
`

/** A disk with the probe and these pods. */
export const disk = Effect.fnUntraced(function* (pods: Readonly<Record<string, string>>) {
  const directory = yield* temporaryDirectory
  const manifests = Object.entries(pods).map(([name, text]) => [`${name}.json`, text])
  const client = path.join(directory, "say")
  const source = fileURLToPath(new URL("say.c", import.meta.url))
  execFileSync("gcc", ["-O1", "-Wall", "-Werror", "-static", "-o", client, source])
  const data = yield* dataDisk(
    directory,
    { "kios-probe.json": Probe.probeManifest({ image: busybox }), ...Object.fromEntries(manifests) },
    { "kubernetes/config.yaml": kubelet },
    // What is mounted on /opt/cni/bin, the one place for programs.
    [{ path: "data/cni/say", sourcePath: client, mode: 0o755 }],
  )
  return { ...data, directory, pods: Object.keys(pods).map((name) => `default/${name}`) }
})

/** Switches a machine on and waits until the pods of its disk run, or only until its boot is complete. */
export const boot = Effect.fnUntraced(function* (
  from: OnDisk & { readonly directory: string; readonly pods: ReadonlyArray<string> },
  waitFor: "pods" | "boot-complete" = "pods",
) {
  const machine = yield* VmRun.boot({
    efi: yield* leanEfi,
    boot: "kernel",
    memoryMiB: 1536,
    cmdline: unhardened,
    ports: [Probe.defaultProbePort],
    disks: [{ path: from.path, format: "raw" }],
  })
  const { vm } = machine
  let starts = 0
  let departures = 0
  const sinceStart = (): ReadonlyArray<VmEvent> => {
    const events = machine.events()
    return events.slice(
      Math.max(
        0,
        events.findLastIndex(({ _tag }) => _tag === "KernelStarted"),
      ),
    )
  }
  /** Waits until this boot, which is one more than was waited for before, is up. */
  const up = Effect.fnUntraced(function* (awaited: "pods" | "boot-complete") {
    starts++
    const wanted = awaited === "pods" ? [...from.pods, "default/kios-probe"] : []
    yield* eventually(
      `boot ${starts} is up`,
      Effect.suspend(() => {
        const seen = machine.events().filter(({ _tag }) => _tag === "KernelStarted").length
        const events = sinceStart()
        const running = events.flatMap((event) =>
          event._tag === "Milestone" && event.name === "pod-running" ? [event.fields["pod"]] : [],
        )
        const complete = events.some((event) => event._tag === "Milestone" && event.name === "boot-complete")
        const missing = wanted.filter((pod) => !running.includes(pod))
        return seen >= starts && complete && missing.length === 0
          ? Effect.void
          : Effect.fail(
              new Error(
                `kernel starts ${seen}, boot-complete ${complete}, missing ${missing.join(", ")}\n${vm.console
                  .tail(30)
                  .map(({ text }) => text)
                  .join("\n")}`,
              ),
            )
      }),
      2400,
    )
  })
  yield* up(waitFor)
  const probe = yield* Probe.make({ path: vm.ports[Probe.defaultProbePort] ?? "" })
  if (waitFor === "pods") yield* probe.ready()

  /** What init said since it was asked to go down. */
  const said = (): ReadonlyArray<string> => {
    const lines = vm.console.tail(400).map(({ message }) => message)
    return lines.slice(lines.findLastIndex((line) => line.startsWith("kios: shutting down action=")))
  }
  /** Waits until the machine leaves; gives how many seconds that took from its being asked, by the guest's clock. */
  const left = Effect.fnUntraced(function* (action: "power-off" | "restart", seconds = 900) {
    const more = departures + 1
    yield* eventually(
      `the machine leaves (${action})`,
      Effect.suspend(() =>
        machine.events().filter(({ _tag }) => _tag === "SystemStopping").length >= more
          ? Effect.void
          : Effect.fail(
              new Error(
                vm.console
                  .tail(40)
                  .map(({ text }) => text)
                  .join("\n"),
              ),
            ),
      ),
      seconds,
    )
    departures = more
    const stopping = machine.events().findLast((event) => event._tag === "SystemStopping")
    assert.strictEqual(stopping?._tag === "SystemStopping" ? stopping.action : undefined, action)
    const lines = vm.console.tail(400)
    const at = (pattern: RegExp) =>
      lines.findLast(({ message }) => pattern.test(message))?.kernelSeconds ?? Number.NaN
    const took = at(/^reboot: (?:Power down|Restarting system)/) - at(/^kios: shutting down action=/)
    // No complaint in an orderly shutdown.
    assert.deepStrictEqual(
      said().filter((line) => /^kios: (?:error|warn)/.test(line)),
      [],
    )
    return took
  })

  return {
    machine,
    lines: linesOf(probe),
    /** Has the guest ask init to go down: that it does is the answer. The script's own may be lost with the machine. */
    ask: (script: string) =>
      Effect.catch(linesOf(probe)(script, 20), (error) =>
        Effect.sync(() => console.log(`asked, without an answer: ${error.message}`)),
      ),
    up: (awaited = waitFor) => Effect.andThen(up(awaited), awaited === "pods" ? probe.ready() : Effect.void),
    said,
    left,
    /** Powers off: QEMU ends by itself, and the partition is clean; reads its files. */
    poweredOff: Effect.fnUntraced(function* (seconds?: number) {
      const took = yield* left("power-off", seconds)
      const exit = yield* Effect.timeout(vm.exit, "1 minute")
      assert.deepStrictEqual([exit.code, exit.shutdownReason], [0, "guest-shutdown"])
      return { took, read: assertClean(from, from.directory) }
    }),
  }
})

/** Asks init by a signal, from the probe, a moment after its answer is sent. */
export const signal = (name: string): string => `(sleep 1; kill -${name} 1) >/dev/null 2>&1 &`

/** Asks init by a byte on the system socket, as a process of the host. */
export const say = (byte: number): string =>
  `(sleep 1; nsenter -t 1 -m -p /opt/cni/bin/say /run/system.sock ${byte}) >/dev/null 2>&1 &`
