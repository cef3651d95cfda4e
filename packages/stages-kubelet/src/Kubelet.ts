/**
 * The kubelet: standalone, with static pods and nothing else, or in a cluster.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { BootReport } from "@kios/core/BootReport"
import { Events } from "@kios/core/Events"
import { Kernel } from "@kios/core/Kernel"
import * as Liveness from "@kios/core/Liveness"
import * as Readiness from "@kios/core/Readiness"
import { Shutdown } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import { Supervisor, tolerates as supervision } from "@kios/core/Supervisor"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { Etc } from "@kios/core/capabilities/Etc"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Images } from "@kios/core/capabilities/Images"
import { Kubelet } from "@kios/core/capabilities/Kubelet"
import { Logind } from "@kios/core/capabilities/Logind"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"
import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
import { KubeletConfigFile, tolerates as configuration } from "./KubeletConfigFile.ts"
import * as KubeletLife from "./KubeletLife.ts"
import * as ManifestErrors from "./ManifestErrors.ts"
import * as Membership from "./Membership.ts"

const LOG = "/run/kios/log/kubelet.log"
const LOG_BYTES = 2 * 1024 * 1024
const FIFO = "/run/kubelet.log"
const HEALTHZ = "http://127.0.0.1:10248/healthz"
const HEALTHY_WITHIN = "3 minutes"
// Longer, so that a start that takes too long is what the error tells.
const TOLD_WITHIN = "190 seconds"

/** What {@link make} takes. */
export interface KubeletOptions {
  /** How it is asked whether it is ready, and whether it still works; default: its `/healthz`. */
  readonly readiness?: Readiness.Readiness
  readonly liveness?: Liveness.Liveness
}

/**
 * The stage. It is up when `/healthz` answers; from then on the kubelet is
 * restarted whenever it dies or no longer answers, and its pods outlive it.
 *
 * Without a kubeconfig the kubelet is standalone. It is started again, once,
 * when one comes, and when all are gone: `Membership.ts`.
 *
 * @example
 * ```ts
 * import * as Readiness from "@kios/core/Readiness"
 * import * as Kubelet from "@kios/stages-kubelet/Kubelet"
 *
 * const onAnotherPort = Kubelet.make({ readiness: Readiness.httpOk("http://127.0.0.1:10300/healthz") })
 * ```
 */
export const make = (options: KubeletOptions = {}) =>
  Stage.make({
    name: "kubelet",
    description: "the kubelet with its static pods, in a cluster if it has a kubeconfig",
    requires: [ContainerRuntime, KubeletConfigFile, Cgroups, Etc, Hostname, Loopback, Modules, Sysctls],
    // A static pod whose image is not there yet is not tried again for some ten seconds, and init's sockets never.
    wants: [Images, Logind, SystemSocket],
    provides: [Kubelet],
    timeout: "200 seconds",
    tolerates: [...supervision, ...Membership.tolerates, ...configuration],
    layer: Layer.effect(
      Kubelet,
      Effect.gen(function* () {
        const kernel = yield* Kernel
        const supervisor = yield* Supervisor
        const shutdown = yield* Shutdown
        const report = yield* BootReport
        const cgroups = yield* Cgroups
        const runtime = yield* ContainerRuntime
        const onLine = yield* manifestErrorTeller
        const life = yield* KubeletLife.make
        const readiness = options.readiness ?? Readiness.httpOk(HEALTHZ)
        yield* kernel.makeDirectory(Membership.DIRECTORY)
        yield* report.milestone("kubelet-exec")
        const process = yield* supervisor.supervise({
          name: "kubelet",
          command: "/bin/kubelet",
          args: life.beforeStart,
          env: { PATH: "/bin" },
          cgroup: cgroups.kubelet,
          oomScoreAdj: -999,
          startTimeout: HEALTHY_WITHIN,
          log: { path: LOG, maxBytes: LOG_BYTES },
          fifo: FIFO,
          onLine: (line) => {
            life.onLine(line)
            onLine(line)
          },
          readiness: { ...readiness, await: Effect.andThen(readiness.await, life.ready) },
          // It asks the runtime for its version once, and exits when nobody answers.
          restartWhen: Effect.suspend(() => runtime.process.awaitUp("1 minute")).pipe(
            Effect.retry(Schedule.forever),
            Effect.ignore,
            // On a machine that goes down it would start again the pods that were ended.
            Effect.andThen(Effect.flatMap(shutdown.requested, (down) => (down ? Effect.never : Effect.void))),
          ),
          liveness: options.liveness ?? Liveness.httpOk(HEALTHZ),
        })
        const restart = Effect.flatMap(shutdown.requested, (down) => (down ? Effect.void : process.restart))
        yield* Effect.forkScoped(life.follow(restart), { startImmediately: true })
        const socket = yield* Effect.serviceOption(SystemSocket)
        if (Option.isSome(socket)) {
          yield* socket.value.restartable("kubelet", process)
          yield* socket.value.restartable("runtime", runtime.process)
        }
        yield* process.awaitUp(TOLD_WITHIN)
        yield* report.milestone("kubelet-healthy")
        return { process }
      }),
    ),
  })

/**
 * The stage, as it is in the reference distro.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kubelet } from "@kios/core/capabilities/Kubelet"
 *
 * const again = Kubelet.use(({ process }) => process.restart)
 * ```
 */
export const stage = make()

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
