/**
 * The kubelet, standalone: static pods and nothing else.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { BootReport } from "@kios/core/BootReport"
import { Events } from "@kios/core/Events"
import * as Liveness from "@kios/core/Liveness"
import * as Readiness from "@kios/core/Readiness"
import * as Stage from "@kios/core/Stage"
import { Supervisor, tolerates } from "@kios/core/Supervisor"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { Etc } from "@kios/core/capabilities/Etc"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Images } from "@kios/core/capabilities/Images"
import { Kubelet } from "@kios/core/capabilities/Kubelet"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"
import { KubeletConfigFile } from "./KubeletConfigFile.ts"
import * as ManifestErrors from "./ManifestErrors.ts"

const LOG = "/run/kios/log/kubelet.log"
const LOG_BYTES = 2 * 1024 * 1024
const FIFO = "/run/kubelet.log"
const HEALTHZ = "http://127.0.0.1:10248/healthz"
const HEALTHY_WITHIN = "3 minutes"
// Longer, so that a start that takes too long is what the error tells.
const TOLD_WITHIN = "190 seconds"

/**
 * The stage. It is up when `/healthz` answers; from then on the kubelet is
 * restarted whenever it dies or no longer answers, and its pods outlive it.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kubelet } from "@kios/core/capabilities/Kubelet"
 *
 * const again = Kubelet.use(({ process }) => process.restart)
 * ```
 */
export const stage = Stage.make({
  name: "kubelet",
  description: "the kubelet with its static pods",
  requires: [ContainerRuntime, KubeletConfigFile, Cgroups, Etc, Hostname, Loopback, Modules, Sysctls],
  // A static pod whose image is not there yet is not tried again for some ten seconds.
  wants: [Images],
  provides: [Kubelet],
  timeout: "200 seconds",
  tolerates,
  layer: Layer.effect(
    Kubelet,
    Effect.gen(function* () {
      const supervisor = yield* Supervisor
      const report = yield* BootReport
      const cgroups = yield* Cgroups
      const { path } = yield* KubeletConfigFile
      const runtime = yield* ContainerRuntime
      const onLine = yield* manifestErrorTeller
      yield* report.milestone("kubelet-exec")
      const process = yield* supervisor.supervise({
        name: "kubelet",
        command: "/bin/kubelet",
        args: [`--config=${path}`],
        env: { PATH: "/bin" },
        cgroup: cgroups.kubelet,
        oomScoreAdj: -999,
        startTimeout: HEALTHY_WITHIN,
        log: { path: LOG, maxBytes: LOG_BYTES },
        fifo: FIFO,
        onLine,
        readiness: Readiness.httpOk(HEALTHZ),
        // It asks the runtime for its version once, and exits when nobody answers.
        restartWhen: Effect.suspend(() => runtime.process.awaitUp("1 minute")).pipe(
          Effect.retry(Schedule.forever),
          Effect.ignore,
        ),
        liveness: Liveness.httpOk(HEALTHZ),
      })
      yield* process.awaitUp(TOLD_WITHIN)
      yield* report.milestone("kubelet-healthy")
      return { process }
    }),
  ),
})

// Files of which an error is remembered: names come and go, and PID 1 stays.
const TOLD = 256

/** Tells a manifest's error on the console, once for as long as it stays the same. */
const manifestErrorTeller = Effect.gen(function* () {
  const context = yield* Effect.context<Events>()
  const told = new Map<string, string>()
  return (line: string) => {
    const error = ManifestErrors.parse(line)
    if (error === undefined || told.get(error.file) === error.reason) return
    told.delete(error.file)
    told.set(error.file, error.reason)
    // A map keeps the order in which it was filled: the first is the oldest.
    for (const file of told.keys()) if (told.size > TOLD) told.delete(file)
    Effect.runForkWith(context)(Events.use((events) => events.publish({ kind: "manifest-error", ...error })))
  }
})
