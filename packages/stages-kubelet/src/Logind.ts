/**
 * Graceful node shutdown for an unmodified kubelet: init speaks logind's D-Bus.
 *
 * The kubelet takes an inhibitor, which is the writing end of a pipe. When the
 * machine is to go down, it gets the signal PrepareForShutdown, ends its pods in
 * their order and with their grace periods, and closes the pipe. So does the
 * kernel for one that dies. docs/logind.md has the protocol.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type Connection, Kernel } from "@kios/core/Kernel"
import { isHostRoot } from "@kios/core/HostRoot"
import { Shutdown } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Logind } from "@kios/core/capabilities/Logind"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as Allowance from "./internal/Allowance.ts"
import * as Session from "./internal/dbus/Session.ts"

/** Where clients of the system bus look, by way of /var/run. */
const DIRECTORY = "/run/dbus"
const SOCKET = `${DIRECTORY}/system_bus_socket`

// As much as anybody may wish to give pods: the kubelet asks systemd, which is not there, to raise what is less.
const DELAY_MAX = "20 minutes"
// From the kubelet's own deadline to its closing of the pipe.
const MARGIN = "10 seconds"

// Limits of what is not the kubelet. Its own needs: one client, one inhibitor, some 800 bytes.
const MAX_CLIENTS = 512
const MAX_INHIBITORS = 64
const MAX_BYTES = { burst: 32 * 1024, perSecond: 1024 }
const GREETED_WITHIN = "10 seconds"
// Complaints about clients: they come from outside, and must not fill the log.
const COMPLAINTS = { burst: 10, perSecond: 0.1 }

interface Inhibitor extends Session.InhibitRequest {
  readonly pid: number
}

/** What {@link make} takes. */
export interface LogindOptions {
  /**
   * The longest that a shutdown is delayed, and what clients are told (default 20 minutes). The kubelet's own
   * shutdownGracePeriod must not be longer; it usually decides.
   */
  readonly delayMax?: Duration.Input
}

const milliseconds = Effect.flatMap(Kernel, (kernel) =>
  Effect.map(kernel.monotonic, (nanos) => Number(nanos / 1_000_000n)),
)

const listen = Effect.fnUntraced(function* (delayMax: Duration.Duration) {
  const kernel = yield* Kernel
  const shutdown = yield* Shutdown
  const scope = yield* Effect.scope
  const guid = (yield* kernel.readText("/proc/sys/kernel/random/uuid")).trim().replaceAll("-", "")
  const clients = new Set<{ readonly session: Session.Session; readonly connection: Connection }>()
  const inhibitors = new Set<Inhibitor>()
  const released = yield* Latch.make(false)
  const complaints = Allowance.make(COMPLAINTS.burst, COMPLAINTS.perSecond)
  let names = 0

  const complain = (connection: Connection, what: string) =>
    Effect.gen(function* () {
      if (complaints.take(1, yield* milliseconds))
        yield* Effect.logWarning(`client pid=${connection.peer.pid} uid=${connection.peer.uid}: ${what}`)
    })

  const inhibit = (connection: Connection, action: Extract<Session.Action, { readonly _tag: "Inhibit" }>) =>
    Effect.gen(function* () {
      const { granted, refused, request } = action
      if (yield* shutdown.requested)
        return yield* connection.send(
          refused("org.freedesktop.login1.OperationInProgress", "the machine is going down already"),
        )
      if (inhibitors.size >= MAX_INHIBITORS)
        return yield* connection.send(
          refused(
            "org.freedesktop.DBus.Error.LimitsExceeded",
            `${MAX_INHIBITORS} inhibitors are held already`,
          ),
        )
      const inhibitor = { pid: connection.peer.pid, ...request }
      // The pipe's own: it outlives the connection, as logind has it.
      const held = yield* Scope.make()
      const pipe = yield* Scope.provide(connection.sendPipe(granted), held)
      inhibitors.add(inhibitor)
      yield* Effect.logInfo(`shutdown waits for ${request.who} pid=${inhibitor.pid}: ${request.why}`)
      yield* pipe.released.pipe(
        Effect.andThen(Effect.logInfo(`shutdown no longer waits for ${request.who} pid=${inhibitor.pid}`)),
        Effect.ensuring(
          Effect.suspend(() => {
            inhibitors.delete(inhibitor)
            if (inhibitors.size === 0) released.openUnsafe()
            return Scope.close(held, Exit.void)
          }),
        ),
        Effect.forkIn(scope),
      )
    })

  /** Whether to go on with this client. */
  const perform = (connection: Connection, action: Session.Action) => {
    switch (action._tag) {
      case "Send":
        return Effect.as(connection.send(action.bytes), true)
      case "Inhibit":
        return Effect.as(inhibit(connection, action), true)
      case "Close":
        return Effect.as(complain(connection, action.reason), false)
    }
  }

  const serve = (connection: Connection) =>
    Effect.gen(function* () {
      if (!(yield* isHostRoot(connection.peer))) return yield* complain(connection, "is not root of the host")
      const session = Session.make({
        uid: connection.peer.uid,
        guid,
        name: `:1.${++names}`,
        delayMaxUSec: BigInt(Duration.toMillis(delayMax)) * 1000n,
      })
      const client = { session, connection }
      yield* Effect.acquireRelease(
        Effect.sync(() => clients.add(client)),
        () => Effect.sync(() => clients.delete(client)),
      )
      const bytes = Allowance.make(MAX_BYTES.burst, MAX_BYTES.perSecond)
      /** One portion; whether to go on. */
      const portion = Effect.gen(function* () {
        const received = yield* connection.receive
        if (received === undefined) return false
        if (!bytes.take(received.length, yield* milliseconds)) {
          yield* complain(connection, "sends more than is taken from anybody")
          return false
        }
        for (const action of session.receive(received))
          if (!(yield* perform(connection, action))) return false
        return true
      })
      const greeted = yield* portion.pipe(
        Effect.repeat({ while: (goOn: boolean) => goOn && !session.greeted() }),
        Effect.timeoutOrElse({
          duration: GREETED_WITHIN,
          orElse: () =>
            Effect.as(complain(connection, `said nothing of use within ${GREETED_WITHIN}`), false),
        }),
      )
      if (greeted) yield* Effect.repeat(portion, { while: (goOn: boolean) => goOn })
    }).pipe(
      Effect.scoped,
      Effect.catchTag("KernelError", (error) => complain(connection, error.message)),
      Effect.provideService(Kernel, kernel),
    )

  const prepare = Effect.gen(function* () {
    for (const { connection, session } of clients) {
      const signal = session.prepareForShutdown(true)
      if (signal !== undefined)
        yield* Effect.catch(connection.send(signal), (error) => complain(connection, error.message))
    }
    if (inhibitors.size > 0) {
      released.closeUnsafe()
      yield* Effect.logInfo(`waiting for ${whoOf(inhibitors)}`)
      yield* released.await
    }
  }).pipe(
    // Late, or somebody is in a hurry: who it was belongs to what is kept of this shutdown.
    Effect.onInterrupt(() => shutdown.remark(`going down without waiting for ${whoOf(inhibitors)}`)),
    Effect.provideService(Kernel, kernel),
  )

  yield* kernel.makeDirectory(DIRECTORY)
  yield* kernel.listen({ path: SOCKET, maxConnections: MAX_CLIENTS, serve })
  yield* shutdown.before({
    name: "inhibitors",
    deadline: Duration.sum(delayMax, Duration.fromInputUnsafe(MARGIN)),
    run: prepare,
  })
  return Logind.of({
    socket: SOCKET,
    inhibitors: Effect.sync(() => [...inhibitors].map(({ pid, who, why }) => ({ pid, who, why }))),
  })
})

const whoOf = (inhibitors: ReadonlySet<Inhibitor>): string =>
  [...inhibitors].map(({ pid, who }) => `${who} pid=${pid}`).join(", ")

/**
 * The stage, with a longest delay of one's own.
 *
 * @example
 * ```ts
 * import * as Logind from "@kios/stages-kubelet/Logind"
 *
 * const patient = Logind.make({ delayMax: "1 hour" })
 * ```
 */
export const make = (options: LogindOptions = {}) =>
  Stage.make({
    name: "logind",
    description: "logind's D-Bus, by which the kubelet ends its pods before the node goes down",
    requires: [PseudoFilesystems, EphemeralFilesystems],
    // Only the kubelet waits for it: it is time enough while the runtime comes up, which starts before there is a name.
    wants: [Hostname],
    provides: [Logind],
    criticality: "optional",
    layer: Layer.effect(Logind, listen(Duration.fromInputUnsafe(options.delayMax ?? DELAY_MAX))),
  })

/**
 * The stage as the reference distro has it.
 *
 * @example
 * ```ts
 * import * as Pipeline from "@kios/core/Pipeline"
 * import * as Logind from "@kios/stages-kubelet/Logind"
 * import * as Kubelet from "@kios/stages-kubelet/Kubelet"
 *
 * // Stages that the kubelet wants come before it.
 * const order = [Logind.stage, Kubelet.stage].map(({ name }) => name)
 * ```
 */
export const stage = make()
