/** The cluster goes away and comes back; pods do not notice. */
import { assert, type Vitest } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { Node } from "../../boot/support.ts"
import { Cluster } from "../Cluster.ts"
import { Network } from "../Network.ts"
import { scaled } from "../../../../packages/core/test/support/Scale.ts"
import { ask } from "../support.ts"
import { kubeletStarts } from "./Join.ts"
import { containers, nodeReady, webReady } from "./Objects.ts"

/** The whole is as long as a pod tolerates a node that is not ready. */
const OUTAGE_SECONDS = scaled(40, 300)

export const outage = (it: Vitest.MethodsNonLive<Node | Cluster | Network>) => {
  const survives = <E, R>(away: Effect.Effect<void, E, R>) =>
    Effect.gen(function* () {
      const before = yield* containers
      const starts = yield* kubeletStarts
      yield* away
      yield* nodeReady(new Date(yield* Clock.currentTimeMillis))
      assert.deepStrictEqual(yield* containers, before, "pod, container, restarts, id")
      assert.strictEqual(yield* kubeletStarts, starts)
    })

  /** The pod is asked for its page all the time that the others are away. */
  const served = Effect.gen(function* () {
    const { ip } = yield* webReady
    const url = `http://${ip}:8080/`
    return Effect.gen(function* () {
      const until = (yield* Clock.currentTimeMillis) + OUTAGE_SECONDS * 1000
      while ((yield* Clock.currentTimeMillis) < until) {
        const page = yield* ask({ url })
        assert.strictEqual("status" in page ? page.status : page.error, 200)
      }
    })
  })

  it.effect(`the API server is away for ${OUTAGE_SECONDS} seconds`, () =>
    Effect.gen(function* () {
      const { apiServer, ready } = yield* Cluster
      const serves = yield* served
      yield* survives(
        Effect.gen(function* () {
          yield* apiServer.stop
          yield* serves
          yield* apiServer.start
          yield* ready
        }),
      )
    }),
  )

  it.effect("etcd is restarted under the API server", () =>
    Effect.gen(function* () {
      const { etcd, ready } = yield* Cluster
      yield* survives(
        Effect.gen(function* () {
          yield* etcd.stop
          yield* etcd.start
          yield* ready
        }),
      )
    }),
  )
}
