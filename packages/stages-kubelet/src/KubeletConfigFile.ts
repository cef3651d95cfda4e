/**
 * What the kubelet is started with, which is another thing in a cluster than before.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import * as Stage from "@kios/core/Stage"
import type { Tolerance } from "@kios/core/Stage"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as ConfigErrors from "./ConfigErrors.ts"
import * as KubeletConfig from "./KubeletConfig.ts"
import { flagsOf, type Mode } from "./Membership.ts"
import * as NodeIdentity from "./NodeIdentity.ts"
import { machineOf, reservations } from "./Reservations.ts"
import * as SelfSignedCertificate from "./SelfSignedCertificate.ts"

const DIRECTORY = "/run/kios/kubelet"
const CONFIG = `${DIRECTORY}/config.json`
const DROP_INS = `${DIRECTORY}/config.d`
const USER_CONFIG = "/etc/kubernetes/config.yaml"
const USER_DROP_INS = "/etc/kubernetes/kubelet.conf.d"
const CLIENT_CA = "/etc/kubernetes/pki/ca.crt"
const SECCOMP_ROOT = "/var/lib/kubelet/seccomp"

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
 * What the kubelet is started with, written anew before each start.
 *
 * @example
 * ```ts
 * import { KubeletConfigFile } from "@kios/stages-kubelet/KubeletConfigFile"
 * import * as Effect from "effect/Effect"
 *
 * const tell = KubeletConfigFile.use((file) =>
 *   Effect.flatMap(file.write({ _tag: "Standalone" }, "node-7"), (flags) => Effect.log(flags)),
 * )
 * ```
 */
export class KubeletConfigFile extends Context.Service<
  KubeletConfigFile,
  {
    /** Writes the configuration of a node of that name, and gives the kubelet's flags. */
    readonly write: (mode: Mode, hostname: string) => Effect.Effect<ReadonlyArray<string>, KernelError>
  }
>()("kios/KubeletConfigFile") {}

/**
 * What writing it does without.
 *
 * @example
 * ```ts
 * import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
 *
 * const reasons = KubeletConfigFile.tolerates.map(({ because }) => because)
 * ```
 */
export const tolerates: ReadonlyArray<Tolerance> = [
  ...NodeIdentity.tolerates,
  {
    operation: "readDirectory",
    path: /^\/etc\/kubernetes\/kubelet\.conf\.d$/u,
    errno: ["ENOENT"],
    because: "its owner has written none",
    silent: true,
  },
  { operation: "symlink", path: /\/seccomp$/u, because: "only pods with a profile of the node's need it" },
]

/**
 * The stage: a serving key pair and, before each start of the kubelet, its
 * configuration, below /run and for root only. What is reserved for the node
 * itself is computed from this machine's memory.
 *
 * The kubelet merges, each over those before it: `config.json`, then in
 * `config.d` what the node's owner has written (/etc/kubernetes/config.yaml,
 * /etc/kubernetes/kubelet.conf.d), what the node says of itself (provider id,
 * taints), and what nobody can change.
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
        const { memoryMin } = yield* Cgroups
        const tell = yield* ConfigErrors.make
        const tls = { tlsCertFile: `${DIRECTORY}/tls.crt`, tlsPrivateKeyFile: `${DIRECTORY}/tls.key` }
        const writePair = ({ certificate, privateKey }: SelfSignedCertificate.CertificatePair) =>
          Effect.andThen(
            kernel.writeFile(tls.tlsCertFile, certificate, 0o600),
            kernel.writeFile(tls.tlsPrivateKeyFile, privateKey, 0o600),
          )
        const pair = yield* Effect.try({
          try: () => SelfSignedCertificate.make(name, NOT_BEFORE, DAYS),
          catch: (cause) => new CertificateFailed({ hostname: name, cause }),
        })
        yield* kernel.makeDirectory(DROP_INS, 0o700)
        yield* writePair(pair)
        let certified = name
        const machine = machineOf(
          yield* kernel.readText("/proc/meminfo"),
          yield* kernel.readText("/proc/sys/kernel/threads-max"),
        )
        const fixed = {
          containerRuntimeEndpoint: options.containerRuntimeEndpoint,
          staticPodPath: options.staticPodPath ?? "/etc/kubernetes/manifests",
        }
        const reserved = reservations(machine, memoryMin)
        const json = (file: string, content: object) =>
          kernel.writeFile(file, `${JSON.stringify(content, null, 2)}\n`, 0o600)

        const write = Effect.fnUntraced(function* (mode: Mode, hostname: string) {
          if (hostname !== certified) {
            yield* writePair(SelfSignedCertificate.make(hostname, NOT_BEFORE, DAYS))
            certified = hostname
          }
          const identity = yield* NodeIdentity.read(kernel, tell)
          const ca = (yield* kernel.stat(CLIENT_CA)) === undefined ? {} : { clientCAFile: CLIENT_CA }
          yield* json(CONFIG, KubeletConfig.base(mode, { ...tls, ...ca, reservations: reserved }))
          for (const old of yield* kernel.readDirectory(DROP_INS)) yield* kernel.unlink(`${DROP_INS}/${old}`)
          // The kubelet reads an empty one as an error.
          if (((yield* kernel.stat(USER_CONFIG))?.size ?? 0) > 0)
            yield* kernel.symlink(USER_CONFIG, `${DROP_INS}/10-config.conf`)
          for (const one of yield* userDropIns(kernel))
            yield* kernel.symlink(`${USER_DROP_INS}/${one}`, `${DROP_INS}/50-${one}`)
          yield* json(`${DROP_INS}/90-node.conf`, { ...KubeletConfig.header, ...identity.config })
          yield* json(`${DROP_INS}/99-kios.conf`, KubeletConfig.fixed(mode, fixed))
          yield* linkSeccompProfiles(kernel)
          return [`--config=${CONFIG}`, `--config-dir=${DROP_INS}`, ...flagsOf(mode), ...identity.flags]
        })
        return { write }
      }),
    ),
  })

// Only those of this name count, as for the kubelet itself.
const userDropIns = (kernel: KernelShape) =>
  kernel.readDirectory(USER_DROP_INS).pipe(
    Effect.map((names) => names.filter((name) => name.endsWith(".conf"))),
    Effect.catchIf(
      ({ errno }) => errno === "ENOENT",
      () => Effect.succeed([]),
    ),
  )

/** A pod's profile `Localhost: x.json` is /etc/seccomp/x.json. */
const linkSeccompProfiles = Effect.fnUntraced(function* (kernel: KernelShape) {
  if ((yield* kernel.stat(SECCOMP_ROOT)) !== undefined) return
  yield* kernel.makeDirectory("/var/lib/kubelet", 0o750)
  yield* Effect.catch(kernel.symlink("/etc/seccomp", SECCOMP_ROOT), (error) =>
    Effect.logWarning(`no pod can use the profiles of /etc/seccomp: ${error.message}`),
  )
})
