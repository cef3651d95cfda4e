/**
 * The containers of a namespace as they start: those that run already, then each new one, once.
 *
 * How nothing is lost and nothing comes twice:
 * 1. Subscribe to the start events. containerd does not acknowledge a subscription, so we publish a marker
 *    event of our own until it comes back: from then on every event reaches us.
 * 2. Only now list the tasks. One that started before the subscription is in the list, one that started
 *    after it is in the events, and one in both is told apart by container id and pid.
 * 3. When the connection breaks, start over at 1; what was delivered is remembered for as long as its task
 *    lives, and what came in without having been delivered is tried again first.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Containers from "./Containers.ts"
import * as Events from "./Events.ts"
import type { Grpc } from "./Grpc.ts"
import { GrpcError } from "./GrpcStatus.ts"
import * as Tasks from "./Tasks.ts"

/** A container whose first process was started. */
export interface TaskStart {
  readonly containerId: string
  readonly pid: number
  /** Wall clock of the start event in nanoseconds since 1970; undefined for one that ran before we listened. */
  readonly startedAt: bigint | undefined
  /** Labels of the container's record, empty when it was deleted before we could ask. */
  readonly labels: Readonly<Record<string, string>>
  readonly image: string
  /** Label `io.cri-containerd.kind`: the pod's sandbox (pause) or one of its containers. */
  readonly kind: "sandbox" | "container" | undefined
  /** Label `io.kubernetes.pod.name`. */
  readonly podName: string | undefined
  /** Label `io.kubernetes.pod.namespace`. */
  readonly podNamespace: string | undefined
  /** Label `io.kubernetes.container.name`, undefined for a sandbox. */
  readonly containerName: string | undefined
}

interface Started {
  readonly containerId: string
  readonly pid: number
  readonly startedAt: bigint | undefined
}

const callTimeout = "10 seconds"
const keyOf = (task: { readonly containerId: string; readonly pid: number }) =>
  `${task.containerId} ${task.pid}`

/** 100 ms, 200 ms, ... up to 5 s between attempts to subscribe, with jitter. */
const backoff = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(
  Schedule.jittered,
)

let markers = 0

/**
 * The stream of started containers of `namespace`. It never fails and never ends by itself: it subscribes
 * again, with back-off, whenever containerd goes away.
 *
 * @example
 * ```ts
 * import { makeGrpc } from "@kios/stages-runtime/containerd/Grpc"
 * import { taskStarts } from "@kios/stages-runtime/containerd/TaskStarts"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * const firstTask = Effect.scoped(
 *   Effect.flatMap(makeGrpc("/run/containerd/containerd.sock"), (grpc) =>
 *     Stream.runHead(taskStarts(grpc, "k8s.io")),
 *   ),
 * )
 * ```
 */
export const taskStarts = (grpc: Grpc, namespace: string): Stream.Stream<TaskStart> =>
  Stream.callback<TaskStart>((queue) => follow(grpc, namespace, queue), { bufferSize: 64 })

const follow = (grpc: Grpc, namespace: string, queue: Queue.Enqueue<TaskStart>) =>
  Effect.suspend(() => {
    const delivered = new Set<string>()
    const pending = new Map<string, Started>()

    const enrich = (task: Started) =>
      grpc
        .unary(Containers.get, Containers.encodeGetRequest(task.containerId), Containers.decodeGetResponse, {
          namespace,
          timeout: callTimeout,
        })
        .pipe(
          Effect.catchIf(
            (e) => e.code === "NOT_FOUND",
            () => Effect.succeed<Containers.Container>({ id: task.containerId, labels: {}, image: "" }),
          ),
          Effect.map(({ image, labels }): TaskStart => {
            const kind = labels["io.cri-containerd.kind"]
            return {
              ...task,
              labels,
              image,
              kind: kind === "sandbox" || kind === "container" ? kind : undefined,
              podName: labels["io.kubernetes.pod.name"],
              podNamespace: labels["io.kubernetes.pod.namespace"],
              containerName: labels["io.kubernetes.container.name"],
            }
          }),
        )
    const deliver = (task: Started) =>
      Effect.suspend(() => {
        const key = keyOf(task)
        if (delivered.has(key)) return Effect.void
        pending.set(key, task)
        return Effect.flatMap(enrich(task), (start) =>
          Effect.suspend(() => {
            pending.delete(key)
            delivered.add(key)
            return Queue.offer(queue, start)
          }),
        )
      })

    const handle = ({ task, timestamp, topic }: Events.Event) => {
      if (task === undefined) return Effect.void
      if (topic === "/tasks/start")
        return deliver({ containerId: task.containerId, pid: task.pid, startedAt: timestamp })
      // Its start can not come again: forget it, or the set would grow for as long as the node is up.
      if (task.execId === "") delivered.delete(keyOf(task))
      return Effect.void
    }

    // `earlier`: what was delivered in sessions before this one, whose deletion may have gone unheard.
    const listRunning = Effect.fnUntraced(function* (earlier: ReadonlySet<string>) {
      const tasks = yield* grpc.unary(Tasks.list, new Uint8Array(0), Tasks.decodeListResponse, {
        namespace,
        timeout: callTimeout,
      })
      const alive = new Set(tasks.map(keyOf))
      for (const key of earlier) if (!alive.has(key)) delivered.delete(key)
      for (const task of tasks) {
        // CREATED: its start event is still to come. STOPPED: it is over, nothing was lost to us by it.
        if (task.status !== "RUNNING" && task.status !== "PAUSED" && task.status !== "PAUSING") continue
        yield* deliver({ containerId: task.containerId, pid: task.pid, startedAt: undefined })
      }
    })

    const subscribe = Effect.gen(function* () {
      const marker = `/kios/marker-${process.pid}-${markers++}`
      const call = yield* grpc.open(Events.subscribe, { namespace })
      yield* call.send(
        Events.encodeSubscribeRequest([
          `topic=="/tasks/start",namespace==${namespace}`,
          `topic=="/tasks/delete",namespace==${namespace}`,
          `topic=="${marker}",namespace==${namespace}`,
        ]),
      )
      yield* call.closeSend
      const next = Effect.flatMap(call.receive, (message) =>
        Effect.try({
          try: () => (Option.isNone(message) ? undefined : Events.decodeEnvelope(message.value)),
          catch: (e) =>
            new GrpcError({
              method: Events.subscribe,
              address: grpc.address,
              code: "INTERNAL",
              reason: `malformed event: ${e instanceof Error ? e.message : String(e)}`,
            }),
        }),
      ).pipe(
        Effect.flatMap((envelope) =>
          envelope === undefined
            ? Effect.fail(
                new GrpcError({
                  method: Events.subscribe,
                  address: grpc.address,
                  code: "UNAVAILABLE",
                  reason: "containerd ended the subscription",
                }),
              )
            : Effect.succeed(envelope),
        ),
      )
      const publish = grpc
        .unary(Events.publish, Events.encodePublishRequest(marker), () => undefined, {
          namespace,
          timeout: callTimeout,
        })
        .pipe(Effect.repeat(Schedule.spaced("50 millis")), Effect.andThen(Effect.never))
      // Events that come before the marker are kept in order, and handled after it: enriching them may take
      // a call, and meanwhile the marker would be published over and over.
      const early: Array<Events.Event> = []
      const seen = Effect.gen(function* () {
        while (true) {
          const envelope = yield* next
          if (envelope.topic === marker) return
          early.push(envelope)
        }
      })
      yield* Effect.raceFirst(seen, publish).pipe(
        Effect.timeoutOrElse({
          duration: callTimeout,
          orElse: () =>
            Effect.fail(
              new GrpcError({
                method: Events.subscribe,
                address: grpc.address,
                code: "DEADLINE_EXCEEDED",
                reason: "no event came back on the new subscription",
              }),
            ),
        }),
      )
      return { next, early }
    })

    // Fails when it could not be set up; succeeds when it was, and then was lost.
    const session = Effect.gen(function* () {
      const earlier = new Set(delivered)
      const { early, next } = yield* subscribe
      for (const task of pending.values()) yield* deliver(task)
      for (const envelope of early) yield* handle(envelope)
      yield* listRunning(earlier)
      yield* Effect.forever(Effect.flatMap(next, handle)).pipe(
        Effect.catch((e) =>
          Effect.logDebug("containerd event subscription lost, subscribing again", e.message),
        ),
      )
    }).pipe(Effect.scoped)
    return session.pipe(
      Effect.retry(backoff),
      Effect.ignore, // the schedule has no end: no failure gets here
      // The back-off starts afresh after each session, hence a floor between sessions that end at once.
      Effect.repeat(Schedule.spaced("100 millis")),
    )
  })
