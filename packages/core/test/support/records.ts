/** Boot records for tests of what reads them. */
import type { BootRecord, MilestoneRecord, Outcome, StageRecord } from "@kios/core/BootReport"

/** A record of these stages and milestones. */
export const record = (
  stages: ReadonlyArray<StageRecord>,
  milestones: ReadonlyArray<MilestoneRecord> = [],
): BootRecord => ({
  version: 1,
  clock: "CLOCK_MONOTONIC",
  kernelRelease: "6.12.0-test",
  nodeName: "node-7",
  stages,
  milestones,
})

/** A stage that ran from one time to another, in milliseconds. */
export const ran = (
  name: string,
  startMs: number,
  endMs: number | null,
  requires: ReadonlyArray<string> = [],
  more: Partial<StageRecord> = {},
): StageRecord => ({
  name,
  startMs,
  endMs,
  outcome: endMs === null ? "running" : "up",
  criticality: "required",
  requires,
  ...more,
})

const LONG = [
  "a-stage-whose-name-is-as-long-as-anybody-would-ever-want-to-read-on-a-console",
  "verify-the-signature-of-the-data-partition",
]

/**
 * 30 stages and 10 milestones: long names, durations from 40 µs to 4 s, waits,
 * and every outcome. The same at every call.
 */
export const large = (): BootRecord => {
  let seed = 7
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  const stages: Array<StageRecord> = []
  for (let index = 0; index < 30; index += 1) {
    const requires = [
      ...new Set(
        Array.from({ length: index === 0 ? 0 : 1 + Math.floor(random() * 3) }, () =>
          Math.floor(Math.max(0, index - 1 - random() * 9)),
        ),
      ),
    ].flatMap((at) => (stages[at]?.outcome === "up" ? [stages[at]] : []))
    const ready = Math.max(900, ...requires.map((stage) => stage.endMs ?? 0))
    const startMs = ready + random() * (index % 7 === 3 ? 400 : 4)
    const took = index % 9 === 5 ? 1200 + random() * 2800 : index % 4 === 0 ? 0.04 + random() : random() * 300
    const outcome: Outcome = index === 13 ? "failed" : index === 21 ? "skipped" : "up"
    stages.push({
      name: LONG[index - 11] ?? `stage-${index}-${["mount", "load", "configure", "start"][index % 4]}`,
      startMs,
      endMs: startMs + (outcome === "skipped" ? 0 : took),
      outcome,
      ...(outcome === "failed"
        ? { reason: "mount /dev/vda2 on /var: EINVAL: wrong superblock; is it really ext4? <see dmesg>" }
        : {}),
      ...(outcome === "skipped" ? { reason: "verified-data did not come up" } : {}),
      criticality: outcome === "up" ? "required" : "optional",
      requires: requires.map((stage) => stage.name),
    })
  }
  const end = Math.max(...stages.map((stage) => stage.endMs ?? 0))
  const at = (name: string, part: number, attributes: Readonly<Record<string, string>> = {}) => ({
    name,
    atMs: part * end,
    attributes,
  })
  return record(stages, [
    at("init", 0.08),
    at("containerd-exec", 0.2),
    at("containerd-ready", 0.6),
    at("kubelet-exec", 0.61),
    at("kubelet-healthy", 0.9),
    at("images-ready", 0.97, { count: "4" }),
    at("boot-complete", 1),
    at("pod-running", 1.02, { pod: "kube-system/dhcp" }),
    at("pod-running", 1.05, { pod: "kube-system/a-daemon-set-with-a-rather-long-name-x7k2p" }),
    at("pod-running", 1.4, { pod: "default/hello" }),
  ])
}
