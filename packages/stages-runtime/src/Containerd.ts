/**
 * containerd: rendered configuration, supervised process, readiness by its API.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { BootReport } from "@kios/core/BootReport"
import { Kernel } from "@kios/core/Kernel"
import * as Readiness from "@kios/core/Readiness"
import { Shutdown } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import { Supervisor, tolerates } from "@kios/core/Supervisor"
import { BootModules } from "@kios/core/capabilities/BootModules"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { Etc } from "@kios/core/capabilities/Etc"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { PodSweep } from "@kios/core/capabilities/PodSweep"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as Client from "./containerd/ContainerdClient.ts"
import { liveness } from "./containerd/Liveness.ts"
import type { GrpcError } from "./containerd/GrpcStatus.ts"
import { awaitReady } from "./containerd/Probe.ts"
import * as ContainerdConfig from "./ContainerdConfig.ts"

const CONFIG = "/run/kios/containerd.toml"
const LOG = "/run/kios/log/containerd.log"
const LOG_BYTES = 2 * 1024 * 1024
const FIFO = "/run/containerd.log"
// Slow disks and emulated machines; a healthy start takes a second or two.
const READY_WITHIN = "2 minutes"
// Enough for a database to write its log; the pod's own grace period was the kubelet's business.
const CONTAINER_GRACE = "10 seconds"
const STOP_WITHIN = "20 seconds"
// Longer, so that a start that takes too long is what the error tells.
const TOLD_WITHIN = "130 seconds"

/** Ends what the kubelet has left, by containerd while it runs; `remaining-pods` ends what is left of that by signals. */
const stopContainers = (client: Client.ContainerdClient["Service"]) =>
  Effect.flatMap(Shutdown, (shutdown) => client.stopTasks({ grace: CONTAINER_GRACE, shutdown })).pipe(
    Effect.interruptible,
    Effect.timeout(STOP_WITHIN),
    Effect.catch((error) => Effect.logWarning(`containers are not stopped by containerd: ${error.message}`)),
  )

/**
 * The stage, for a configuration of one's own. It is up when containerd
 * answers its health check and the Container Runtime Interface; from then on
 * containerd is restarted whenever it dies or no longer answers the health
 * check, and its pods outlive it.
 *
 * @example
 * ```ts
 * import * as Containerd from "@kios/stages-runtime/Containerd"
 * import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
 *
 * const runtime = Containerd.make({ ...ContainerdConfig.reference, sandboxImage: "example.com/pause:1" })
 * ```
 */
export const make = (config: ContainerdConfig.ContainerdConfigOptions) => {
  const toml = ContainerdConfig.render(config)
  const layer = Layer.effectContext(
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const supervisor = yield* Supervisor
      const report = yield* BootReport
      const cgroups = yield* Cgroups
      // An answer that waiting does not change, such as that of a containerd whose CRI plugin did not start.
      let told = ""
      const tellOnce = ({ message }: GrpcError) =>
        Effect.suspend(() => {
          if (told === message) return Effect.void
          told = message
          return Effect.logWarning(message)
        })
      yield* kernel.writeFile(CONFIG, toml, 0o600)
      yield* report.milestone("containerd-exec")
      const process = yield* supervisor.supervise({
        name: "containerd",
        command: "/bin/containerd",
        args: ["--config", CONFIG],
        env: { PATH: "/bin" },
        cgroup: cgroups.runtime,
        oomScoreAdj: -999,
        startTimeout: READY_WITHIN,
        log: { path: LOG, maxBytes: LOG_BYTES },
        fifo: FIFO,
        liveness: yield* liveness(config.address),
        readiness: Readiness.make(
          `health and CRI at ${config.address}`,
          // Whatever it answers while it is not ready: the start's own time limit ends the wait.
          awaitReady(config.address).pipe(
            Effect.tapError(tellOnce),
            Effect.retry(Schedule.spaced("500 millis")),
            Effect.orDie,
          ),
        ),
      })
      const client = yield* Client.make(config.address)
      yield* process.awaitUp(TOLD_WITHIN)
      // Released after the kubelet, which would start them again, and before containerd.
      yield* Effect.addFinalizer(() => stopContainers(client))
      yield* report.milestone("containerd-ready")
      return Context.make(ContainerRuntime, { endpoint: `unix://${config.address}`, process }).pipe(
        Context.add(Client.ContainerdClient, client),
      )
    }),
  )
  return Stage.make({
    name: "containerd",
    description: "the container runtime",
    // /etc, because the CRI plugin does not start when it cannot watch /etc/cni/net.d.
    requires: [PseudoFilesystems, EphemeralFilesystems, Cgroups, BootModules, DataPartition, Etc, PodSweep],
    provides: [ContainerRuntime, Client.ContainerdClient],
    timeout: "150 seconds",
    tolerates,
    layer,
  })
}
