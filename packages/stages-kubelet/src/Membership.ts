/**
 * Whether the node is in a cluster, by the kubeconfigs that it has.
 *
 * | kubelet.conf     | bootstrap-kubelet.conf | the kubelet                          |
 * | ---------------- | ---------------------- | ------------------------------------ |
 * | none             | none                   | standalone                           |
 * | none or unusable | usable                 | in the cluster; asks for its identity |
 * | usable           | any                    | in the cluster                       |
 * | unusable         | none or unusable       | stays what it is                     |
 *
 * A node that is in the cluster does not leave it because a file was damaged:
 * a standalone kubelet ends all pods but the static ones. It leaves when both
 * files are gone.
 */
import * as Effect from "effect/Effect"
import type { KernelShape } from "@kios/core/Kernel"
import type { Tolerance } from "@kios/core/Stage"
import { readSmall } from "./internal/readSmall.ts"
import * as Kubeconfig from "./Kubeconfig.ts"

/**
 * Where the kubeconfigs are, and most of what a node's owner may write.
 *
 * @example
 * ```ts
 * import { DIRECTORY } from "@kios/stages-kubelet/Membership"
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 *
 * const files = Kernel.use((kernel) => kernel.readDirectory(DIRECTORY))
 * ```
 */
export const DIRECTORY = "/etc/kubernetes"

/**
 * The kubelet's own kubeconfig; it writes it itself when it has bootstrapped.
 *
 * @example
 * ```ts
 * import { KUBECONFIG } from "@kios/stages-kubelet/Membership"
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 *
 * const joined = Kernel.use((kernel) => Effect.map(kernel.stat(KUBECONFIG), (found) => found !== undefined))
 * ```
 */
export const KUBECONFIG = `${DIRECTORY}/kubelet.conf`

/**
 * The one by which it asks for an identity.
 *
 * @example
 * ```ts
 * import { BOOTSTRAP_KUBECONFIG } from "@kios/stages-kubelet/Membership"
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 *
 * const give = (text: string) => Kernel.use((kernel) => kernel.writeFile(BOOTSTRAP_KUBECONFIG, text, 0o600))
 * ```
 */
export const BOOTSTRAP_KUBECONFIG = `${DIRECTORY}/bootstrap-kubelet.conf`

const CONFIGS = /^\/etc\/kubernetes\/(bootstrap-)?kubelet\.conf$/u

/** A kubeconfig, as it was found. */
export interface Found {
  readonly file: string
  /** Its text; undefined when it is not there. */
  readonly text: string | undefined
  /** Why it cannot be used, when it is there. */
  readonly problem: Kubeconfig.Problem | undefined
  /** It is there, can be used, and does not look as if more of it was still to be written. */
  readonly whole: boolean
}

/** Both of them. */
export interface Kubeconfigs {
  readonly own: Found
  readonly bootstrap: Found
}

/** What the kubelet is started as. */
export type Mode =
  | { readonly _tag: "Standalone" }
  | {
      readonly _tag: "Cluster"
      /** Whether there is one to bootstrap by. */
      readonly bootstrap: boolean
    }

/**
 * What reading them does without; a node whose kubeconfig cannot be read stays what it is, and says so.
 *
 * @example
 * ```ts
 * import { tolerates } from "@kios/stages-kubelet/Membership"
 * import * as Layer from "effect/Layer"
 * import * as Stage from "@kios/core/Stage"
 *
 * const stage = Stage.make({ name: "joins", description: "joins a cluster", tolerates, layer: Layer.empty })
 * ```
 */
export const tolerates: ReadonlyArray<Tolerance> = [
  {
    operation: "readText",
    path: CONFIGS,
    errno: ["ENOENT"],
    because: "the node is in no cluster",
    silent: true,
  },
  { operation: "stat", path: CONFIGS, because: "the node stays what it is until it can be read" },
  { operation: "readText", path: CONFIGS, because: "the node stays what it is until it can be read" },
  { operation: "watchDirectory", because: "it is looked for every 30 seconds" },
]

const find = Effect.fnUntraced(function* (kernel: KernelShape, file: string) {
  const absent = { file, text: undefined, problem: undefined, whole: false }
  const text = yield* Effect.result(readSmall(kernel, file))
  if (text._tag === "Failure") {
    const { message } = text.failure
    yield* Effect.logWarning(`${file}: ${message}`)
    return { ...absent, text: "", problem: { line: null, reason: message } }
  }
  if (text.success === undefined) return absent
  const { files, problem, whole } = Kubeconfig.examine(text.success)
  const found = { ...absent, text: text.success, whole: whole && problem === undefined }
  if (problem !== undefined) return { ...found, problem }
  for (const path of files) {
    const stat = yield* Effect.orElseSucceed(kernel.stat(path), () => undefined)
    if (stat === undefined)
      return { ...found, whole: false, problem: { line: null, reason: `names ${path}, which is not there` } }
  }
  return { ...found, problem }
})

/**
 * Reads both kubeconfigs. One that cannot be read has that as its problem.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kernel } from "@kios/core/Kernel"
 * import * as Membership from "@kios/stages-kubelet/Membership"
 *
 * const ready = Kernel.use((kernel) => Effect.map(Membership.read(kernel), ({ own }) => own.whole))
 * ```
 */
export const read = (kernel: KernelShape): Effect.Effect<Kubeconfigs> =>
  Effect.all({ own: find(kernel, KUBECONFIG), bootstrap: find(kernel, BOOTSTRAP_KUBECONFIG) })

const usable = ({ problem, text }: Found) => text !== undefined && problem === undefined

/**
 * What the kubelet is to be started as.
 *
 * @param joined it was ready in the cluster before, and has not left since
 *
 * @example
 * ```ts
 * import * as Membership from "@kios/stages-kubelet/Membership"
 *
 * const none = { text: undefined, problem: undefined, whole: false }
 * const own = { ...none, file: Membership.KUBECONFIG }
 * const bootstrap = { ...none, file: Membership.BOOTSTRAP_KUBECONFIG }
 * Membership.modeOf({ own, bootstrap }, true) // { _tag: "Standalone" }
 * ```
 */
export const modeOf = ({ bootstrap, own }: Kubeconfigs, joined: boolean): Mode => {
  if (usable(own) || usable(bootstrap)) return { _tag: "Cluster", bootstrap: usable(bootstrap) }
  const left = own.text === undefined && bootstrap.text === undefined
  return joined && !left
    ? { _tag: "Cluster", bootstrap: bootstrap.text !== undefined }
    : { _tag: "Standalone" }
}

/**
 * What is wrong, file by file. The kubelet's own does not matter while there
 * is one to bootstrap by: it is written anew.
 *
 * @example
 * ```ts
 * import * as Membership from "@kios/stages-kubelet/Membership"
 *
 * const reasons = (found: Membership.Kubeconfigs) =>
 *   Membership.problems(found).flatMap(([file, all]) => all.map(({ reason }) => `${file}: ${reason}`))
 * ```
 */
export const problems = ({
  bootstrap,
  own,
}: Kubeconfigs): ReadonlyArray<readonly [file: string, ReadonlyArray<Kubeconfig.Problem>]> =>
  [own, bootstrap].map((found) => [
    found.file,
    found.problem === undefined || (found === own && usable(bootstrap)) ? [] : [found.problem],
  ])

/**
 * The flags of a kubelet in the cluster: where its kubeconfigs and its
 * certificates are. The certificates outlive a reboot, on the data partition.
 *
 * @example
 * ```ts
 * import * as Membership from "@kios/stages-kubelet/Membership"
 *
 * Membership.flagsOf({ _tag: "Standalone" }) // []
 * ```
 */
export const flagsOf = (mode: Mode): ReadonlyArray<string> =>
  mode._tag === "Standalone"
    ? []
    : [
        `--kubeconfig=${KUBECONFIG}`,
        ...(mode.bootstrap ? [`--bootstrap-kubeconfig=${BOOTSTRAP_KUBECONFIG}`] : []),
        "--cert-dir=/var/lib/kubelet/pki",
      ]
