/**
 * What a node says of itself when it registers, from files that its owner or a
 * bootstrap pod has written. Each is optional, and none keeps the kubelet from
 * starting: what is wrong is told by file, line and reason, the rest is used.
 */
import * as Effect from "effect/Effect"
import type { KernelShape } from "@kios/core/Kernel"
import type { Tolerance } from "@kios/core/Stage"
import type { Teller } from "./ConfigErrors.ts"
import { readSmall } from "./internal/readSmall.ts"
import type { Problem } from "./Kubeconfig.ts"
import { DIRECTORY } from "./Membership.ts"
import * as NodeAddress from "./NodeAddress.ts"
import * as NodeLabels from "./NodeLabels.ts"
import * as NodeTaints from "./NodeTaints.ts"

/**
 * Which registries are asked for credentials by which programs; KubeletConfig's CredentialProviderConfig.
 *
 * @example
 * ```ts
 * import { CREDENTIAL_PROVIDERS } from "@kios/stages-kubelet/NodeIdentity"
 *
 * const flag = `--image-credential-provider-config=${CREDENTIAL_PROVIDERS}`
 * ```
 */
export const CREDENTIAL_PROVIDERS = `${DIRECTORY}/credential-providers.yaml`

/**
 * Where those programs are: they outlive a reboot as the file does, and may be executed.
 *
 * @example
 * ```ts
 * import { CREDENTIAL_PROGRAMS } from "@kios/stages-kubelet/NodeIdentity"
 *
 * const flag = `--image-credential-provider-bin-dir=${CREDENTIAL_PROGRAMS}`
 * ```
 */
export const CREDENTIAL_PROGRAMS = "/var/lib/kubelet/credential-providers"

/** What the kubelet is given for it. */
export interface NodeIdentity {
  readonly flags: ReadonlyArray<string>
  /** Keys of KubeletConfiguration. */
  readonly config: {
    readonly providerID?: string
    readonly registerWithTaints?: ReadonlyArray<NodeTaints.Taint>
  }
}

const FILES = /^\/etc\/kubernetes\/(node-|provider-id)/u
const UNSAID = "a node works without labels, taints and an address of its owner's choice"
const ANONYMOUS = "images that need no credentials are pulled without"

/**
 * What reading them does without.
 *
 * @example
 * ```ts
 * import { tolerates } from "@kios/stages-kubelet/NodeIdentity"
 * import * as Layer from "effect/Layer"
 * import * as Stage from "@kios/core/Stage"
 *
 * const stage = Stage.make({ name: "joins", description: "joins a cluster", tolerates, layer: Layer.empty })
 * ```
 */
export const tolerates: ReadonlyArray<Tolerance> = [
  { operation: "readText", path: FILES, errno: ["ENOENT"], because: "nothing was said", silent: true },
  { operation: "readText", path: FILES, because: UNSAID },
  { operation: "stat", path: FILES, because: UNSAID },
  { operation: "stat", path: /\/credential-providers\.yaml$/u, because: ANONYMOUS },
  { operation: "readDirectory", path: /\/credential-providers$/u, because: ANONYMOUS },
]

/**
 * Reads the files.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as NodeIdentity from "@kios/stages-kubelet/NodeIdentity"
 *
 * const flags = Kernel.use((kernel) =>
 *   Effect.map(
 *     NodeIdentity.read(kernel, (file, problems) => Effect.logWarning(file, problems)),
 *     (identity) => identity.flags, // ["--node-labels=example.com/rack=7"]
 *   ),
 * )
 * ```
 */
export const read = Effect.fnUntraced(function* (kernel: KernelShape, tell: Teller) {
  /** A file's content, which tells its problems. */
  const file = <A extends { readonly problems: ReadonlyArray<Problem> }>(
    name: string,
    parse: (text: string) => A,
  ) =>
    Effect.gen(function* () {
      const path = `${DIRECTORY}/${name}`
      const text = yield* Effect.result(readSmall(kernel, path))
      const parsed = parse(text._tag === "Success" ? (text.success ?? "") : "")
      const unreadable = text._tag === "Success" ? [] : [{ line: null, reason: text.failure.message }]
      yield* tell(path, [...unreadable, ...parsed.problems])
      return parsed
    })
  const one = (name: string, parse: (text: string) => NodeAddress.OneValue) =>
    Effect.map(
      file(name, (text) => {
        const { problem, value } = parse(text)
        return { value, problems: problem === undefined ? [] : [problem] }
      }),
      ({ value }) => value,
    )

  const { labels } = yield* file("node-labels", NodeLabels.parse)
  const { taints } = yield* file("node-taints", NodeTaints.parse)
  const ip = yield* one("node-ip", NodeAddress.parseIp)
  const providerID = yield* one("provider-id", NodeAddress.parseProviderId)
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  const identity: NodeIdentity = {
    flags: [
      ...(pairs.length === 0 ? [] : [`--node-labels=${pairs.join(",")}`]),
      ...(ip === undefined ? [] : [`--node-ip=${ip}`]),
      ...(yield* credentialProviders(kernel, tell)),
    ],
    config: {
      ...(providerID === undefined ? {} : { providerID }),
      ...(taints.length === 0 ? {} : { registerWithTaints: taints }),
    },
  }
  return identity
})

// Without its programs the kubelet does not start, so that whatever pod is to bring them would never run.
const credentialProviders = Effect.fnUntraced(function* (kernel: KernelShape, tell: Teller) {
  const unused = Effect.gen(function* () {
    if ((yield* kernel.stat(CREDENTIAL_PROVIDERS)) === undefined) return []
    const programs = yield* kernel.readDirectory(CREDENTIAL_PROGRAMS)
    return programs.length > 0 ? undefined : [`there are no programs in ${CREDENTIAL_PROGRAMS}`]
  })
  const reasons = yield* Effect.catch(unused, (error) => Effect.succeed([error.message]))
  yield* tell(
    CREDENTIAL_PROVIDERS,
    (reasons ?? []).map((reason) => ({ line: null, reason: `is not used: ${reason}` })),
  )
  return reasons === undefined
    ? [
        `--image-credential-provider-config=${CREDENTIAL_PROVIDERS}`,
        `--image-credential-provider-bin-dir=${CREDENTIAL_PROGRAMS}`,
      ]
    : []
})
