/** What of the node answers to its network, and to whom. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { Node } from "../../boot/support.ts"
import { Cluster, TOKEN } from "../Cluster.ts"
import { Network, NODE } from "../Network.ts"
import { ask, scan } from "../support.ts"

/** The sample pod's page, and in a cluster the kubelet. */
const PAGE = 8080
const KUBELET = 10250

/** Sockets of the host's network that anybody can reach: not lo's, and not those that are connected to somebody. */
const udpSockets = Effect.flatMap(Node, ({ lines }) =>
  Effect.map(lines("cat /proc/net/udp /proc/net/udp6"), (all) =>
    all.flatMap((line) => {
      const [, address = "", peer = ""] = /^\s*\d+: ([0-9A-F]+):[0-9A-F]+ ([0-9A-F]+):/u.exec(line) ?? []
      if (/[^0]/u.test(peer)) return []
      // 127.0.0.0/8 and ::1, in the kernel's order of bytes.
      return address === "" || /^(?:.{6}7F|0{24}01000000)$/u.test(address) ? [] : [line.trim()]
    }),
  ),
)

/** The status of the kubelet's answer to each of those who may ask. */
const answers = (path: string) =>
  Effect.gen(function* () {
    const { authority } = yield* Cluster
    const url = `https://${NODE}:${KUBELET}${path}`
    const status = (question: Omit<Parameters<typeof ask>[0], "url">) =>
      Effect.map(ask({ url, ...question }), (answer) => ("status" in answer ? answer.status : answer.error))
    // Of the cluster's authority, and of another one that says the same names.
    const admin = yield* authority.issue("somebody", {
      commonName: "somebody",
      organization: "system:masters",
    })
    return {
      nobody: yield* status({}),
      "an unknown token": yield* status({ token: "abcdef.0123456789abcdef" }),
      "a bootstrap token": yield* status({ token: `${TOKEN.id}.${TOKEN.secret}` }),
      "an administrator of the cluster": yield* status(admin),
    }
  })

export const standalonePorts = (it: Vitest.MethodsNonLive<Node | Cluster | Network>) => {
  it.effect("standalone: of 65,535 ports only the sample pod's is open", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* scan(NODE), { open: [PAGE], silent: [] })
      assert.deepStrictEqual(yield* udpSockets, [])
    }),
  )
}

export const joinedPorts = (it: Vitest.MethodsNonLive<Node | Cluster | Network>) => {
  it.effect("joined: the kubelet's is open too, and answers those whom the cluster lets", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* scan(NODE), { open: [PAGE, KUBELET], silent: [] })
      assert.deepStrictEqual(yield* udpSockets, [])
      for (const path of ["/pods", "/metrics", "/healthz", "/configz"])
        assert.deepStrictEqual(
          yield* answers(path),
          {
            nobody: 401,
            "an unknown token": 401,
            "a bootstrap token": 403,
            "an administrator of the cluster": 200,
          },
          path,
        )
    }),
  )
}
