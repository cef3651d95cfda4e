/**
 * Waits until containerd serves both its own API and CRI. Nothing is slept for: the socket's directory is
 * watched (inotify), and a poll of 100 ms covers what a watch can not see: a directory that is not there
 * yet, and a socket file that exists but has no listener yet.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as CriRuntime from "./CriRuntime.ts"
import { type Grpc, makeGrpc } from "./Grpc.ts"
import { GrpcError } from "./GrpcStatus.ts"
import * as Health from "./Health.ts"

const poll = "100 millis"
// An attempt that hangs (socket bound, nobody accepting) is given up and made anew.
const attemptTimeout = "5 seconds"

const notServing = (grpc: Grpc, status: Health.ServingStatus) =>
  new GrpcError({
    method: Health.check,
    address: grpc.address,
    code: "UNAVAILABLE",
    reason: `health is ${status}`,
  })

const attempt = (grpc: Grpc) =>
  Effect.gen(function* () {
    const status = yield* grpc.unary(Health.check, Health.encodeRequest(""), Health.decodeResponse, {
      timeout: attemptTimeout,
    })
    if (status !== "SERVING") return yield* notServing(grpc, status)
    return yield* grpc.unary(CriRuntime.version, new Uint8Array(0), CriRuntime.decodeVersionResponse, {
      timeout: attemptTimeout,
    })
  })

// While containerd starts these are the answers of "not yet"; all others will not change by waiting.
const transient = (e: GrpcError) =>
  e.code === "UNAVAILABLE" || e.code === "DEADLINE_EXCEEDED" || e.code === "CANCELLED"

/** Succeeds when something happens in the socket's directory; never when it can not be watched. */
const makeWatch = (address: string): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { watch } = process.getBuiltinModule("node:fs")
    const directory = address.slice(0, Math.max(1, address.lastIndexOf("/")))
    let changed = false
    let wake: (() => void) | undefined
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        try {
          const watcher = watch(directory, () => {
            changed = true
            wake?.()
          })
          watcher.on("error", () => watcher.close())
          return watcher
        } catch {
          // ENOENT: the directory is made by containerd. ENOSPC: out of watches. The poll is enough.
          return undefined
        }
      }),
      (watcher) => Effect.sync(() => watcher?.close()),
    )
    return Effect.callback<void>((resume) => {
      const done = () => {
        changed = false
        wake = undefined
        resume(Effect.void)
      }
      if (changed) return done()
      wake = done
      return Effect.sync(() => {
        wake = undefined
      })
    })
  })

/**
 * Waits until containerd at `address` is ready for the kubelet: health is SERVING and CRI answers. Waits for
 * ever: wrap it in a timeout.
 *
 * Fails only with an answer that waiting does not change, such as UNIMPLEMENTED when the CRI plugin is off.
 *
 * @param onWaiting is told why containerd is not ready, after each attempt; keep the last one for the error
 *   message of the timeout
 *
 * @example
 * ```ts
 * import { awaitReady } from "@kios/stages-runtime/containerd/Probe"
 * import * as Effect from "effect/Effect"
 *
 * const ready = awaitReady("/run/containerd/containerd.sock").pipe(Effect.timeout("60 seconds"))
 * ```
 */
export const awaitReady = (
  address: string,
  onWaiting: (reason: GrpcError) => Effect.Effect<void> = () => Effect.void,
): Effect.Effect<CriRuntime.CriVersion, GrpcError> =>
  Effect.gen(function* () {
    const grpc = yield* makeGrpc(address)
    while (true) {
      // Watch before the attempt: a socket that appears right after it is then not missed.
      const ready = yield* Effect.scoped(
        Effect.gen(function* () {
          const change = yield* makeWatch(address)
          return yield* attempt(grpc).pipe(
            Effect.catchIf(transient, (reason) =>
              onWaiting(reason).pipe(
                Effect.andThen(Effect.raceFirst(change, Effect.sleep(poll))),
                Effect.as(undefined),
              ),
            ),
          )
        }),
      )
      if (ready !== undefined) return ready
    }
  }).pipe(Effect.scoped)
