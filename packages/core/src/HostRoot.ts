/**
 * Who of those that reach one of init's sockets may command it: root, from a
 * process of the host.
 */
import * as Effect from "effect/Effect"
import { Kernel, type Peer } from "./Kernel.ts"

/**
 * Whether a peer is root and in init's own pid namespace, as no pod's process
 * is, unless its pod has `hostPID`. A peer that is gone already is not: nobody
 * can tell any more where it was.
 *
 * pid_namespaces(7), unix(7) SO_PEERCRED.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { isHostRoot } from "@kios/core/HostRoot"
 * import type { Connection } from "@kios/core/Kernel"
 *
 * const serve = ({ peer, send }: Connection) =>
 *   Effect.flatMap(isHostRoot(peer), (trusted) =>
 *     trusted ? Effect.ignore(send(Buffer.from("hello\n"))) : Effect.logWarning(`pid ${peer.pid} was turned away`),
 *   )
 * ```
 */
export const isHostRoot = ({ pid, uid }: Peer): Effect.Effect<boolean, never, Kernel> =>
  Effect.gen(function* () {
    // 0 is what a process of no namespace of ours has; that of a user namespace has a uid of its own.
    if (uid !== 0 || pid === 0) return false
    const kernel = yield* Kernel
    const own = yield* kernel.readLink("/proc/self/ns/pid")
    return (yield* kernel.readLink(`/proc/${pid}/ns/pid`)) === own
  }).pipe(Effect.orElseSucceed(() => false))
