/** The cluster of the VM tests, without a node: it serves, survives what the tests do to it, and leaves nothing behind. */
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, Scope, Exit } from "effect"
import * as fs from "node:fs"
import { API_SERVER, Cluster, kubeconfigOf, TOKEN } from "./Cluster.ts"
import { Network } from "./Network.ts"

/** Pids of the machine whose network namespace is this one. */
const inNamespace = (namespace: string): ReadonlyArray<string> =>
  fs.readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && fs.readlinkSync(`/proc/${pid}/ns/net`) === namespace
    } catch {
      return false // it has ended meanwhile
    }
  })

it.live(
  "a cluster in a network of its own serves, comes back with its data, and is gone with its scope",
  () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(Layer.provideMerge(Cluster.layer, Network.layer), scope)
      const cluster = Context.get(services, Cluster)
      const network = Context.get(services, Network)
      const holder = network.inside.find((word) => word.startsWith("--net="))?.slice("--net=".length) ?? ""
      const namespace = fs.readlinkSync(holder)
      assert.notStrictEqual(namespace, fs.readlinkSync("/proc/self/ns/net"))
      // etcd, three of Kubernetes, DHCP, and who holds the namespace.
      assert.strictEqual(inNamespace(namespace).length, 6)

      // The bearer of the token may ask for a certificate and nothing else.
      const bootstrap = `${network.directory}/bootstrap.kubeconfig`
      fs.writeFileSync(bootstrap, kubeconfigOf(cluster.authority, API_SERVER, `${TOKEN.id}.${TOKEN.secret}`))
      const may = (verb: string, what: string) =>
        cluster.kubectl([`--kubeconfig=${bootstrap}`, "auth", "can-i", verb, what])
      assert.strictEqual((yield* may("create", "certificatesigningrequests")).trim(), "yes")
      assert.match((yield* Effect.flip(may("get", "secrets"))).message, /\bno\b/)

      yield* cluster.kubectl(["create", "configmap", "kept", "--from-literal=key=value"])
      yield* cluster.apiServer.stop
      assert.match((yield* Effect.flip(cluster.kubectl(["get", "configmap", "kept"]))).message, /refused/)
      yield* cluster.etcd.stop
      yield* cluster.etcd.start
      yield* cluster.apiServer.start
      yield* cluster.ready
      const kept = yield* cluster.get<{ readonly data: { readonly key: string } }>(["configmap", "kept"])
      assert.strictEqual(kept.data.key, "value")

      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(inNamespace(namespace), [])
      assert.isFalse(fs.existsSync(network.directory))
    }),
  600_000,
)
