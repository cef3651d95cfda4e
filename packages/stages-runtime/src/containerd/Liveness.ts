/** Whether containerd still works: grpc.health.v1 answers SERVING. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as CoreLiveness from "@kios/core/Liveness"
import { type Grpc, makeGrpc } from "./Grpc.ts"
import * as Health from "./Health.ts"

/**
 * Asks the server at `address`. The connection is kept from one probe to the
 * next, and made anew after one that failed: what is judged is containerd, not
 * a connection that has gone bad.
 *
 * @example
 * ```ts
 * import { liveness } from "@kios/stages-runtime/containerd/Liveness"
 * import * as Effect from "effect/Effect"
 *
 * const question = Effect.scoped(liveness("/run/containerd/containerd.sock"))
 * ```
 */
export const liveness = (
  address: string,
  options: CoreLiveness.LivenessOptions = {},
): Effect.Effect<CoreLiveness.Liveness, never, Scope.Scope> =>
  Effect.gen(function* () {
    let connection: { readonly grpc: Grpc; readonly scope: Scope.Closeable } | undefined
    const drop = Effect.suspend(() => {
      const old = connection
      connection = undefined
      return old === undefined ? Effect.void : Scope.close(old.scope, Exit.void)
    })
    yield* Effect.addFinalizer(() => drop)
    const connect = Effect.gen(function* () {
      const scope = yield* Scope.make()
      connection = { grpc: yield* Scope.provide(makeGrpc(address), scope), scope }
      return connection
    })
    const probe = Effect.gen(function* () {
      const { grpc } = connection ?? (yield* connect)
      const status = yield* grpc.unary(Health.check, Health.encodeRequest(""), Health.decodeResponse)
      if (status !== "SERVING") return yield* Effect.fail(`health is ${status}`)
    }).pipe(
      // Also when it was given up for taking too long.
      Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : drop)),
      Effect.mapError((error) => (typeof error === "string" ? error : error.message)),
    )
    return CoreLiveness.make(`containerd's health at ${address}`, probe, options)
  })
