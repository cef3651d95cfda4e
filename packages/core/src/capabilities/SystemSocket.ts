import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Supervised } from "../Supervisor.ts"

/**
 * Init takes commands at a socket. Whoever starts the kubelet makes it, and the
 * runtime, known to it: the socket is there before they are.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Kubelet } from "@kios/core/capabilities/Kubelet"
 * import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
 *
 * const known = Effect.gen(function* () {
 *   const { restartable } = yield* SystemSocket
 *   const { process } = yield* Kubelet
 *   yield* restartable("kubelet", process)
 * })
 * ```
 */
export class SystemSocket extends Context.Service<
  SystemSocket,
  {
    readonly path: string
    /** What the commands to restart it are about, until the scope closes. */
    readonly restartable: (
      what: "kubelet" | "runtime",
      process: Pick<Supervised, "restart" | "state">,
    ) => Effect.Effect<void, never, Scope.Scope>
  }
>()("kios/SystemSocket") {}
