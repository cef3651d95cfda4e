/**
 * What the kubelet is started as, and when it has to be started anew for that.
 */
import * as Effect from "effect/Effect"
import { Events } from "@kios/core/Events"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as ConfigErrors from "./ConfigErrors.ts"
import * as Kubeconfig from "./Kubeconfig.ts"
import * as KubeconfigWatch from "./KubeconfigWatch.ts"
import { KubeletConfigFile } from "./KubeletConfigFile.ts"
import * as Membership from "./Membership.ts"

/** What supervision asks and tells. */
export interface KubeletLife {
  /** Before each start: sets the host name, writes the configuration, and gives the flags. */
  readonly beforeStart: Effect.Effect<ReadonlyArray<string>, KernelError>
  /** What the kubelet writes. */
  readonly onLine: (line: string) => void
  /** It is ready. */
  readonly ready: Effect.Effect<void>
  /** Follows the kubeconfigs, for ever: restarts the kubelet when it has to be something else. */
  readonly follow: (restart: Effect.Effect<void>) => Effect.Effect<void>
}

/**
 * Makes it, for one kubelet.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as KubeletLife from "@kios/stages-kubelet/KubeletLife"
 *
 * const flags = Effect.flatMap(KubeletLife.make, ({ beforeStart }) => beforeStart)
 * ```
 */
export const make: Effect.Effect<KubeletLife, never, Kernel | Events | Hostname | KubeletConfigFile> =
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const events = yield* Events
    const hostname = yield* Hostname
    const config = yield* KubeletConfigFile
    const tellProblem = yield* ConfigErrors.make
    let mode: Membership.Mode = { _tag: "Standalone" }
    // Ready as a member at least once, and a member since.
    let joined = false
    let startedWith = ""
    let refusal: { readonly of: string; readonly reason: string } | undefined

    const textsOf = ({ bootstrap, own }: Membership.Kubeconfigs) => JSON.stringify([own.text, bootstrap.text])
    /** The kubelet is the judge of what looked right. */
    const judged = (found: Membership.Kubeconfigs): Membership.Kubeconfigs => {
      if (refusal?.of !== textsOf(found)) return found
      const problem = { line: null, reason: refusal.reason }
      const refused = (one: Membership.Found) => (one.text === undefined ? one : { ...one, problem })
      return { own: refused(found.own), bootstrap: refused(found.bootstrap) }
    }
    const tell = (found: Membership.Kubeconfigs) =>
      Effect.forEach(Membership.problems(found), ([file, problems]) => tellProblem(file, problems), {
        discard: true,
      })

    const beforeStart = Effect.gen(function* () {
      const name = hostname.refresh === undefined ? hostname.name : yield* hostname.refresh
      const found = judged(yield* Membership.read(kernel))
      mode = Membership.modeOf(found, joined)
      if (mode._tag === "Standalone") joined = false
      // What may yet be written to the end is not told here but when it has settled.
      if (refusal?.of === textsOf(found)) yield* tell(found)
      startedWith = textsOf(found)
      return yield* config.write(mode, name)
    })

    const follow = (restart: Effect.Effect<void>) =>
      KubeconfigWatch.follow(kernel, (raw) =>
        Effect.gen(function* () {
          const found = judged(raw)
          yield* tell(found)
          const next = Membership.modeOf(found, mode._tag === "Cluster")
          if (next._tag === mode._tag) return
          const why =
            next._tag === "Cluster"
              ? "there is a kubeconfig: it joins its cluster"
              : "no kubeconfig is left: it is standalone"
          yield* events.publish({
            kind: "note",
            source: "kubelet",
            level: "notice",
            message: `starting it again, ${why}`,
          })
          // At once: until it is started, nothing that is written meanwhile is a reason to do so again.
          mode = next
          yield* restart
        }),
      )

    return {
      beforeStart,
      follow,
      onLine: (line) => {
        if (mode._tag === "Standalone" || joined) return
        const reason = Kubeconfig.refusal(line)
        if (reason !== undefined) refusal = { of: startedWith, reason: `the kubelet refuses it: ${reason}` }
      },
      ready: Effect.sync(() => {
        joined = mode._tag === "Cluster"
      }),
    }
  })
