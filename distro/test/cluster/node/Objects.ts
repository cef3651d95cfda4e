/** What the API server says of the node and its pods, as far as the tests look at it. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { eventuallyAssert } from "../../boot/support.ts"
import { Cluster } from "../Cluster.ts"
import { NAME } from "../support.ts"

// Two processors emulate the node and run its cluster.
export const PATIENCE = 600

interface Condition {
  readonly type: string
  readonly status: string
  readonly reason?: string
  readonly message?: string
}

export interface NodeObject {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> }
  readonly spec: {
    readonly taints?: ReadonlyArray<{
      readonly key: string
      readonly value?: string
      readonly effect: string
    }>
  }
  readonly status: {
    readonly addresses: ReadonlyArray<{ readonly type: string; readonly address: string }>
    readonly conditions: ReadonlyArray<Condition>
    readonly capacity: Readonly<Record<string, string>>
    readonly nodeInfo: Readonly<Record<string, string>>
  }
}

export interface PodObject {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly uid: string }
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly conditions?: ReadonlyArray<Condition>
    readonly containerStatuses?: ReadonlyArray<{
      readonly name: string
      readonly containerID?: string
      readonly restartCount: number
      readonly ready: boolean
    }>
  }
}

export interface SigningRequest {
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly signerName: string
    readonly username: string
    readonly groups: ReadonlyArray<string>
  }
  readonly status: { readonly conditions?: ReadonlyArray<Condition>; readonly certificate?: string }
}

export const node = Effect.flatMap(Cluster, ({ get }) => get<NodeObject>(["node", NAME]))

export const readiness = (of: NodeObject): Condition | undefined =>
  of.status.conditions.find(({ type }) => type === "Ready")

export const signingRequests = Effect.flatMap(Cluster, ({ get }) =>
  Effect.map(
    get<{ readonly items: ReadonlyArray<SigningRequest> }>(["certificatesigningrequests"]),
    ({ items }) => items,
  ),
)

/** All pods of the node, its own too. */
export const pods = Effect.flatMap(Cluster, ({ get }) =>
  Effect.map(
    get<{ readonly items: ReadonlyArray<PodObject> }>([
      "pods",
      "--all-namespaces",
      `--field-selector=spec.nodeName=${NAME}`,
    ]),
    ({ items }) => items,
  ),
)

/** Each running container, by pod: a new one has another id. */
export const containers = Effect.map(pods, (all) =>
  all
    .filter(({ status }) => status.phase === "Running")
    .flatMap(({ metadata, status }) =>
      (status.containerStatuses ?? []).map(
        ({ containerID, name, restartCount }) =>
          `${metadata.namespace}/${metadata.name} ${name} ${restartCount} ${containerID}`,
      ),
    )
    .toSorted(),
)

/** Waits until the API server says that the node is ready, and the kubelet has said so itself since `after`. */
export const nodeReady = (after = new Date(0)) =>
  Effect.gen(function* () {
    const { get } = yield* Cluster
    return yield* eventuallyAssert(
      "the node is Ready",
      Effect.all([
        node,
        get<{ readonly spec: { readonly renewTime: string } }>([
          "lease",
          NAME,
          "--namespace=kube-node-lease",
        ]),
      ]),
      ([object, lease]) => {
        const condition = readiness(object)
        assert.strictEqual(condition?.status, "True", condition?.message)
        assert.isAbove(Date.parse(lease.spec.renewTime), after.getTime(), "its lease")
      },
      PATIENCE,
    )
  })

/** Waits until the pod of the ReplicaSet is ready. */
export const webReady = Effect.gen(function* () {
  const { get } = yield* Cluster
  const found = yield* eventuallyAssert(
    "a pod of the ReplicaSet is ready",
    Effect.map(get<{ readonly items: ReadonlyArray<PodObject> }>(["pods", "-l", "app=web"]), ({ items }) =>
      items.filter(({ status }) =>
        (status.conditions ?? []).some(({ status: is, type }) => type === "Ready" && is === "True"),
      ),
    ),
    (ready) => assert.strictEqual(ready.length, 1),
    PATIENCE,
  )
  const [pod] = found
  return { name: pod?.metadata.name ?? "", ip: pod?.status.podIP ?? "" }
})
