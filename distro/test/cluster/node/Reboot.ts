/** The machine is started again; nobody helps it. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { eventuallyAssert, Node } from "../../boot/support.ts"
import { Cluster } from "../Cluster.ts"
import { Network } from "../Network.ts"
import { ask, Marks } from "../support.ts"
import { kubeletStarts } from "./Join.ts"
import { node, nodeReady, PATIENCE, webReady, signingRequests } from "./Objects.ts"

/** What the node has asked the cluster to sign. */
const asked = Effect.map(signingRequests, (all) =>
  all.map(({ metadata, spec }) => `${metadata.name} ${spec.signerName}`).toSorted(),
)

/** The kubelet's client certificate: a link with the host's absolute path, and what it leads to. */
const certificate =
  "file=$(readlink /host/var/lib/kubelet/pki/kubelet-client-current.pem) && sha256sum /host$file"

export const reboot = (it: Vitest.MethodsNonLive<Node | Cluster | Network | Marks>) => {
  it.effect("after a reboot the node is Ready again by itself, with the identity that it had", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const { mark, restart } = yield* Marks
      const identity = yield* lines(certificate)
      const requests = yield* asked
      const before = (yield* node).status.nodeInfo["bootID"]
      // SIGINT to init is a reboot.
      yield* lines("(sleep 1; kill -INT 1) >/dev/null 2>&1 &")
      yield* restart
      yield* eventuallyAssert(
        "another boot of the node",
        node,
        ({ status }) => assert.notStrictEqual(status.nodeInfo["bootID"], before),
        PATIENCE * 2,
      )
      yield* mark("the node has told of its new boot")
      yield* nodeReady()
      yield* mark("the node is Ready")
      // What the API server says of it may still be of before.
      yield* eventuallyAssert(
        "the page of a pod of the cluster",
        Effect.flatMap(webReady, ({ ip }) => ask({ url: `http://${ip}:8080/` })),
        (page) => assert.strictEqual("status" in page ? page.status : page.error, 200),
        PATIENCE,
      )
      yield* mark("a pod of the cluster serves again")
      assert.deepStrictEqual(yield* lines(certificate, 240), identity)
      assert.deepStrictEqual(
        yield* asked,
        requests,
        "it asks for no other identity, and needs nobody's approval",
      )
      assert.strictEqual(yield* kubeletStarts, 1)
    }),
  )
}
