/**
 * The containers of a namespace, ended in order: SIGTERM, a grace period,
 * SIGKILL; a pod's containers before its sandbox, which holds the network that
 * they may need to end well.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as os from "node:os"
import type { ShutdownShape } from "@kios/core/Shutdown"
import * as Containers from "./Containers.ts"
import type { Grpc } from "./Grpc.ts"
import type { GrpcError } from "./GrpcStatus.ts"
import * as Tasks from "./Tasks.ts"

// containerd asks each shim, and one that is ending on a busy machine takes its time; what bounds the step is its caller.
const CALL_TIMEOUT = "12 seconds"
// A sandbox has nothing to write.
const SANDBOX_GRACE = "2 seconds"
// What is still there then is for who ends processes.
const KILL_DEADLINE = "3 seconds"

interface Running {
  readonly id: string
  /** `default/web main`, or the container's id. */
  readonly name: string
  readonly sandbox: boolean
}

/** How long they may take, and whom to tell who was killed. */
export interface StopTasksOptions {
  readonly namespace: string
  readonly grace: Duration.Input
  readonly shutdown: Pick<ShutdownShape, "grace" | "remark">
}

/** Ends them all. Fails when containerd does not answer. */
export const stopTasks = (
  grpc: Grpc,
  { grace, namespace, shutdown }: StopTasksOptions,
): Effect.Effect<void, GrpcError> => {
  const options = { namespace, timeout: CALL_TIMEOUT } as const
  const records = new Map<string, Running>()
  const describe = (id: string) =>
    Effect.suspend(() => {
      const known = records.get(id)
      if (known !== undefined) return Effect.succeed(known)
      return grpc
        .unary(Containers.get, Containers.encodeGetRequest(id), Containers.decodeGetResponse, options)
        .pipe(
          Effect.map(({ labels }) => labels),
          // Its record may be gone by now.
          Effect.orElseSucceed((): Readonly<Record<string, string>> => ({})),
          Effect.map((labels) => {
            const pod = labels["io.kubernetes.pod.name"]
            const running: Running = {
              id,
              name:
                pod === undefined
                  ? id
                  : `${labels["io.kubernetes.pod.namespace"] ?? ""}/${pod} ${labels["io.kubernetes.container.name"] ?? ""}`.trim(),
              sandbox: labels["io.cri-containerd.kind"] === "sandbox",
            }
            records.set(id, running)
            return running
          }),
        )
    })
  const running = (sandbox: boolean) =>
    grpc.unary(Tasks.list, new Uint8Array(0), Tasks.decodeListResponse, options).pipe(
      Effect.flatMap((tasks) =>
        Effect.forEach(
          tasks.filter(({ status }) => status !== "STOPPED"),
          ({ containerId }) => describe(containerId),
          { concurrency: 8 },
        ),
      ),
      Effect.map((all) => all.filter((one) => one.sandbox === sandbox)),
    )
  const signal = (tasks: ReadonlyArray<Running>, name: "SIGTERM" | "SIGKILL") =>
    Effect.forEach(
      tasks,
      ({ id }) =>
        // It may have ended by now.
        Effect.ignore(
          grpc.unary(
            Tasks.kill,
            Tasks.encodeKillRequest(id, os.constants.signals[name], name === "SIGKILL"),
            () => undefined,
            options,
          ),
        ),
      { concurrency: 8, discard: true },
    )
  /** Until none is left, or the time is over; gives those that are left. */
  const wait = (sandbox: boolean, time: Effect.Effect<void>) => {
    const noneLeft = Effect.andThen(Effect.sleep("100 millis"), running(sandbox)).pipe(
      Effect.repeat({ until: (left: ReadonlyArray<Running>) => left.length === 0 }),
    )
    // Where resources are released, who loses a race that cannot be interrupted is waited for.
    return Effect.raceFirst(
      Effect.interruptible(noneLeft),
      Effect.interruptible(Effect.andThen(time, running(sandbox))),
    )
  }
  const stop = Effect.fnUntraced(function* (sandbox: boolean, period: Duration.Input) {
    const found = yield* running(sandbox)
    if (found.length === 0) return
    yield* signal(found, "SIGTERM")
    const stayed = yield* wait(sandbox, shutdown.grace(period))
    if (stayed.length === 0) return
    yield* shutdown.remark(`killing ${stayed.map(({ name }) => name).join(", ")}`)
    yield* signal(stayed, "SIGKILL")
    yield* wait(sandbox, Effect.sleep(KILL_DEADLINE))
  })
  return Effect.andThen(stop(false, grace), stop(true, SANDBOX_GRACE))
}
