/**
 * The system socket of the original kiOS: one byte is a command, one byte is an
 * event. Its clients, and the kubelet that it patched, keep working.
 *
 *   0x01 ──▶ shut down, with the pods' grace    ◀── 0x01 the machine goes down
 *   0x02 ──▶ go on with it: the pods have ended
 *   0x03 ──▶ restart the kubelet
 *   0x04 ──▶ restart the container runtime
 *
 * docs/system-socket.md.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import { isHostRoot } from "@kios/core/HostRoot"
import { type Connection, Kernel } from "@kios/core/Kernel"
import { Shutdown } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import type { Supervised } from "@kios/core/Supervisor"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
import * as Allowance from "./internal/Allowance.ts"

const SOCKET = "/run/system.sock"

const SHUTDOWN = 1
const CONTINUE = 2
const RESTART_KUBELET = 3
const RESTART_RUNTIME = 4
const GOING_DOWN = Uint8Array.of(1)

const MAX_CLIENTS = 512
// Of commands of one client: nobody means so many.
const MAX_COMMANDS = { burst: 16, perSecond: 1 }
// Restarts that are asked for faster are one.
const RESTARTS_APART = "1 second"
// A patched kubelet has its own grace period, and tells when it is over.
const ANSWERED_WITHIN = "20 minutes"
const COMPLAINTS = { burst: 10, perSecond: 0.1 }

type What = "kubelet" | "runtime"

const milliseconds = Effect.flatMap(Kernel, (kernel) =>
  Effect.map(kernel.monotonic, (nanos) => Number(nanos / 1_000_000n)),
)

const listen = Effect.gen(function* () {
  const kernel = yield* Kernel
  const shutdown = yield* Shutdown
  const clients = new Set<Connection>()
  const processes = new Map<
    What,
    { readonly process: Pick<Supervised, "state">; readonly asked: Latch.Latch }
  >()
  // Those of which the shutdown waits for a "go on".
  const expected = new Set<Connection>()
  const answered = yield* Latch.make(false)
  const complaints = Allowance.make(COMPLAINTS.burst, COMPLAINTS.perSecond)

  const complain = ({ peer }: Connection, what: string) =>
    Effect.gen(function* () {
      if (complaints.take(1, yield* milliseconds))
        yield* Effect.logWarning(`client pid=${peer.pid} uid=${peer.uid}: ${what}`)
    })
  const answer = (connection: Connection): boolean => {
    const waited = expected.delete(connection)
    if (expected.size === 0) answered.openUnsafe()
    return waited
  }

  const restart = (what: What) =>
    Effect.flatMap(shutdown.requested, (going) => {
      // A new kubelet would run the pods that were ended again.
      if (going) return Effect.logWarning(`the machine goes down: the ${what} is not restarted`)
      const known = processes.get(what)
      if (known === undefined) return Effect.logWarning(`there is no ${what} yet that could be restarted`)
      known.asked.openUnsafe()
      return Effect.logInfo(`restart of the ${what} was asked for`)
    })

  const obey = (connection: Connection, command: number): Effect.Effect<unknown> => {
    const request = shutdown.request({
      action: "POWER_OFF",
      by: `the system socket, pid=${connection.peer.pid}`,
    })
    switch (command) {
      case SHUTDOWN:
        // Once asked is asked: more of it is no wish for more haste, for which there is another command.
        return Effect.flatMap(shutdown.requested, (going) => (going ? Effect.void : request))
      case CONTINUE:
        return Effect.suspend(() =>
          answer(connection)
            ? Effect.void
            : // Without a shutdown to go on with, it is one without the pods' grace: the second request.
              Effect.flatMap(shutdown.requested, (going) =>
                going ? request : Effect.andThen(request, request),
              ),
        )
      case RESTART_KUBELET:
        return restart("kubelet")
      default:
        return restart("runtime")
    }
  }

  const serve = (connection: Connection) =>
    Effect.gen(function* () {
      if (!(yield* isHostRoot(connection.peer))) return yield* complain(connection, "is not root of the host")
      yield* Effect.acquireRelease(
        Effect.sync(() => clients.add(connection)),
        () =>
          Effect.sync(() => {
            clients.delete(connection)
            answer(connection)
          }),
      )
      const commands = Allowance.make(MAX_COMMANDS.burst, MAX_COMMANDS.perSecond)
      for (;;) {
        const received = yield* connection.receive
        if (received === undefined) return
        for (const command of received) {
          if (command < SHUTDOWN || command > RESTART_RUNTIME)
            return yield* complain(connection, `sends 0x${command.toString(16)}, which is no command`)
          if (!commands.take(1, yield* milliseconds))
            return yield* complain(connection, "sends more commands than are taken from anybody")
          yield* obey(connection, command)
        }
      }
    }).pipe(Effect.scoped, Effect.provideService(Kernel, kernel))

  const prepare = Effect.gen(function* () {
    const state = yield* processes.get("kubelet")?.process.state ?? Effect.undefined
    for (const connection of clients) {
      // Nobody else is waited for: a client that only listens answers nothing.
      if (state !== undefined && "pid" in state && state.pid === connection.peer.pid) expected.add(connection)
      yield* Effect.ignore(connection.send(GOING_DOWN))
    }
    if (expected.size === 0) return
    answered.closeUnsafe()
    yield* Effect.logInfo("waiting for the kubelet to go on")
    yield* answered.await
  })

  yield* kernel.listen({ path: SOCKET, maxConnections: MAX_CLIENTS, serve })
  yield* shutdown.before({ name: "system-socket", deadline: ANSWERED_WITHIN, run: prepare })
  return SystemSocket.of({
    path: SOCKET,
    restartable: (what, process) =>
      Effect.gen(function* () {
        const asked = yield* Latch.make(false)
        yield* Effect.acquireRelease(
          Effect.sync(() => processes.set(what, { process, asked })),
          () => Effect.sync(() => processes.delete(what)),
        )
        yield* asked.await.pipe(
          Effect.andThen(Effect.sync(() => asked.closeUnsafe())),
          Effect.andThen(Effect.suspend(() => process.restart)),
          Effect.andThen(Effect.sleep(RESTARTS_APART)),
          Effect.forever,
          Effect.forkScoped,
        )
      }),
  })
})

/**
 * The stage.
 *
 * @example
 * ```ts
 * import * as Kubelet from "@kios/stages-kubelet/Kubelet"
 * import * as SystemSocket from "@kios/stages-kubelet/SystemSocket"
 *
 * // Stages that the kubelet wants come before it.
 * const order = [SystemSocket.stage, Kubelet.stage].map(({ name }) => name)
 * ```
 */
export const stage = Stage.make({
  name: "system-socket",
  description: "/run/system.sock: shutdown and restarts by one byte, as the original kiOS had it",
  requires: [PseudoFilesystems, EphemeralFilesystems],
  // As with logind: not before the runtime is started.
  wants: [Hostname],
  provides: [SystemSocket],
  criticality: "optional",
  layer: Layer.effect(SystemSocket, listen),
})
