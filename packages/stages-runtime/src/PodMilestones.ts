/**
 * "Has it finished booting?": a milestone for each pod whose container runs.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { BootReport } from "@kios/core/BootReport"
import * as Stage from "@kios/core/Stage"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { ContainerdClient } from "./containerd/ContainerdClient.ts"

// Containers, pause containers among them.
const FOLLOWED = 512

/**
 * The stage: follows containerd's events and tells `pod-running` once a pod.
 * Pods are the user's business, so nothing waits for it.
 *
 * @example
 * ```ts
 * import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
 *
 * console.log(PodMilestones.stage.criticality) // "optional"
 * ```
 */
export const stage = Stage.make({
  name: "pod-milestones",
  description: "tell which pods run",
  criticality: "optional",
  requires: [ContainerdClient, Hostname],
  layer: Layer.effectDiscard(
    Effect.gen(function* () {
      const containerd = yield* ContainerdClient
      const report = yield* BootReport
      const { name: node } = yield* Hostname
      yield* containerd.taskStarts.pipe(
        // A node that runs jobs for years starts pods without end; the boot's are what this is about.
        Stream.take(FOLLOWED),
        Stream.filter((start) => start.kind === "container" && start.podName !== undefined),
        Stream.runForEach((start) =>
          report.milestone("pod-running", {
            pod: `${start.podNamespace}/${manifestName(start.podName ?? "", node)}`,
          }),
        ),
        Effect.catchCause((cause) => Effect.logWarning("no longer following pods", cause)),
        Effect.forkScoped,
      )
    }),
  ),
})

/**
 * The name that the manifest has: the kubelet appends `-NODE` to that of a
 * static pod (pkg/kubelet/config/common.go, generatePodName).
 *
 * @example
 * ```ts
 * import * as PodMilestones from "@kios/stages-runtime/PodMilestones"
 *
 * PodMilestones.manifestName("hello-node-7", "node-7") // "hello"
 * ```
 */
export const manifestName = (pod: string, node: string): string =>
  pod.endsWith(`-${node}`) ? pod.slice(0, -node.length - 1) : pod
