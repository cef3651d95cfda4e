/**
 * Writes what the kubelet is started with, while the runtime comes up.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as KubeletConfig from "./KubeletConfig.ts"
import { machineOf, reservations } from "./Reservations.ts"
import * as SelfSignedCertificate from "./SelfSignedCertificate.ts"

const DIRECTORY = "/run/kios/kubelet"

// A machine without a clock starts in 1970 or in the year its firmware was
// built, and gets the time from a pod later: the certificate holds all along.
const NOT_BEFORE = new Date(0)
const DAYS = 36_500

/**
 * The serving certificate could not be made: there is something wrong with this machine's cryptography.
 *
 * @example
 * ```ts
 * import { CertificateFailed } from "@kios/stages-kubelet/KubeletConfigFile"
 *
 * const text = new CertificateFailed({ hostname: "node-7", cause: new Error("no entropy") }).message
 * ```
 */
export class CertificateFailed extends Data.TaggedError("CertificateFailed")<{
  readonly hostname: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `making the kubelet's serving certificate for ${this.hostname}: ${String(this.cause)}`
  }
}

/**
 * The kubelet's configuration is on disk.
 *
 * @example
 * ```ts
 * import { KubeletConfigFile } from "@kios/stages-kubelet/KubeletConfigFile"
 * import * as Effect from "effect/Effect"
 *
 * const tell = KubeletConfigFile.use((file) => Effect.log(`--config=${file.path}`))
 * ```
 */
export class KubeletConfigFile extends Context.Service<
  KubeletConfigFile,
  {
    /** For `--config`. */
    readonly path: string
  }
>()("kios/KubeletConfigFile") {}

/**
 * The stage: a serving key pair and `config.json`, below /run and for root only.
 * What is reserved for the node itself is computed from this machine's memory.
 *
 * @example
 * ```ts
 * import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
 *
 * const config = KubeletConfigFile.make({ containerRuntimeEndpoint: "unix:///run/crio/crio.sock" })
 * ```
 */
export const make = (options: {
  readonly containerRuntimeEndpoint: string
  readonly staticPodPath?: string
}) =>
  Stage.make({
    name: "kubelet-config",
    description: "the kubelet's configuration and serving certificate",
    requires: [EphemeralFilesystems, Cgroups, Hostname],
    provides: [KubeletConfigFile],
    layer: Layer.effect(
      KubeletConfigFile,
      Effect.gen(function* () {
        const kernel = yield* Kernel
        const { name } = yield* Hostname
        const path = `${DIRECTORY}/config.json`
        const tls = { tlsCertFile: `${DIRECTORY}/tls.crt`, tlsPrivateKeyFile: `${DIRECTORY}/tls.key` }
        const pair = yield* Effect.try({
          try: () => SelfSignedCertificate.make(name, NOT_BEFORE, DAYS),
          catch: (cause) => new CertificateFailed({ hostname: name, cause }),
        })
        yield* kernel.makeDirectory(DIRECTORY, 0o700)
        yield* kernel.writeFile(tls.tlsCertFile, pair.certificate, 0o600)
        yield* kernel.writeFile(tls.tlsPrivateKeyFile, pair.privateKey, 0o600)
        const { memoryMin } = yield* Cgroups
        const machine = machineOf(
          yield* kernel.readText("/proc/meminfo"),
          yield* kernel.readText("/proc/sys/kernel/threads-max"),
        )
        const config = KubeletConfig.standalone({
          containerRuntimeEndpoint: options.containerRuntimeEndpoint,
          staticPodPath: options.staticPodPath ?? "/etc/kubernetes/manifests",
          ...tls,
          reservations: reservations(machine, memoryMin),
        })
        yield* kernel.writeFile(path, `${JSON.stringify(config, null, 2)}\n`, 0o600)
        return { path }
      }),
    ),
  })
