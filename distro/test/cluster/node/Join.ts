/** From a node that knows nobody to one that runs a pod of the cluster. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import * as EventRecord from "@kios/core/EventRecord"
import { eventuallyAssert, Node } from "../../boot/support.ts"
import { API_SERVER, Cluster, kubeconfigOf, TOKEN } from "../Cluster.ts"
import { GATEWAY, Network, NODE } from "../Network.ts"
import { ask, Cloud, cni, FILES_PORT, mapped, Marks, NAME, POD_NETWORK, web } from "../support.ts"
import {
  containers,
  node,
  nodeReady,
  PATIENCE,
  webReady,
  pods,
  readiness,
  signingRequests,
} from "./Objects.ts"

/** Starts of the kubelet that init counts. */
export const kubeletStarts = Effect.gen(function* () {
  const { lines } = yield* Node
  const record = yield* EventRecord.fromJson((yield* lines("cat /host/run/kios/events.json")).join("\n"))
  return record.processes.find(({ process }) => process === "kubelet")?.starts
})

/** Whether the log of a pod of the node itself was begun: one directory for each of its incarnations. */
const incarnations = (pod: string) =>
  Effect.flatMap(Node, ({ lines }) => lines(`ls -d /host/var/log/pods/${pod}_*`))

/** Waits for a request of this signer, and approves it. */
const approve = Effect.fnUntraced(function* (signer: string, username: string) {
  const { kubectl } = yield* Cluster
  const found = yield* eventuallyAssert(
    `a request to ${signer}`,
    Effect.map(signingRequests, (all) => all.filter(({ spec }) => spec.signerName === signer)),
    (requests) =>
      assert.deepStrictEqual(
        requests.map(({ spec }) => spec.username),
        [username],
      ),
    PATIENCE,
  )
  for (const { metadata } of found) yield* kubectl(["certificate", "approve", metadata.name])
  return { groups: found.flatMap(({ spec }) => spec.groups) }
})

export const join = (it: Vitest.MethodsNonLive<Node | Cluster | Network | Cloud | Marks>) => {
  it.effect("the bootstrap pod waits for its metadata; until then there is no cluster", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      assert.deepStrictEqual(yield* lines("ls /host/etc/kubernetes"), [
        "config.yaml",
        "manifests",
        "node-ip",
        "node-labels",
        "node-taints",
      ])
      yield* eventuallyAssert(
        "its log",
        lines("cat /host/var/log/pods/kube-system_cloud-bootstrap-*/bootstrap/*.log"),
        (said) => assert.include(said.join("\n"), "no /latest/user-data at http://169.254.169.254 yet"),
        PATIENCE,
      )
      assert.strictEqual(yield* kubeletStarts, 1)
    }),
  )

  it.effect("what it writes has the node ask for a certificate, under its new name", () =>
    Effect.gen(function* () {
      const { authority } = yield* Cluster
      const { mark } = yield* Marks
      const { publish } = yield* Cloud
      yield* publish("latest/meta-data/local-hostname", `${NAME}\n`)
      yield* publish("latest/user-data", kubeconfigOf(authority, API_SERVER, `${TOKEN.id}.${TOKEN.secret}`))
      yield* mark("the metadata service has a kubeconfig")
      const { groups } = yield* approve(
        "kubernetes.io/kube-apiserver-client-kubelet",
        `system:bootstrap:${TOKEN.id}`,
      )
      assert.include(groups, "system:bootstrappers:kios")
      yield* mark("its request for a certificate is approved")
      yield* eventuallyAssert(
        "the node",
        node,
        ({ metadata }) => assert.strictEqual(metadata.name, NAME),
        PATIENCE,
      )
      yield* mark("the node is registered")
      // As itself now: by this one the API server knows it when it asks for logs.
      yield* approve("kubernetes.io/kubelet-serving", `system:node:${NAME}`)
    }),
  )

  it.effect("the kubelet was started again once, and static pods were made anew once", () =>
    Effect.gen(function* () {
      const seen = yield* eventuallyAssert(
        "the node's own pods",
        pods,
        (all) =>
          assert.deepStrictEqual(
            all
              .map(({ metadata, status }) => `${metadata.namespace}/${metadata.name} ${status.phase}`)
              .sort(),
            [
              `default/hello-${NAME} Running`,
              `default/kios-probe-${NAME} Running`,
              `kube-system/cloud-bootstrap-${NAME} Succeeded`,
              `kube-system/dhcp-${NAME} Running`,
              `kube-system/node-logs-${NAME} Running`,
              `kube-system/ntp-${NAME} Running`,
            ],
          ),
        PATIENCE,
      )
      // The probe is one of those pods: it is asked until the new one answers.
      yield* eventuallyAssert("starts of the kubelet", kubeletStarts, (starts) =>
        assert.strictEqual(starts, 2),
      )
      for (const { status } of seen)
        for (const { restartCount } of status.containerStatuses ?? []) assert.strictEqual(restartCount, 0)
      for (const pod of ["default_hello", "kube-system_dhcp", "kube-system_node-logs", "kube-system_ntp"])
        assert.strictEqual((yield* incarnations(`${pod}-${NAME}`)).length, 1, pod)
    }),
  )

  it.effect("its labels, taint, address and name are those that were configured", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const { metadata, spec, status } = yield* node
      assert.strictEqual(metadata.labels["kubernetes.io/hostname"], NAME)
      assert.strictEqual(metadata.labels["example.com/rack"], "r7")
      assert.strictEqual(metadata.labels["example.com/empty"], "")
      assert.deepInclude(spec.taints ?? [], { key: "kios.dev/test", value: "yes", effect: "NoSchedule" })
      assert.deepStrictEqual(status.addresses.map(({ address, type }) => `${type} ${address}`).sort(), [
        `Hostname ${NAME}`,
        `InternalIP ${NODE}`,
      ])
      assert.deepStrictEqual(yield* lines("cat /host/etc/hostname /proc/sys/kernel/hostname"), [NAME, NAME])
      // The owner's config.yaml, which says this and nothing else.
      assert.strictEqual(status.capacity["pods"], "42")
      assert.match(status.nodeInfo["kubeletVersion"] ?? "", /^v\d+\.\d+\.\d+$/u, "upstream's own version")
      assert.match(status.nodeInfo["osImage"] ?? "", /^kiOS /u)
    }),
  )

  it.effect("it is not ready without a network, and ready when a DaemonSet has installed one", () =>
    Effect.gen(function* () {
      const { apply, kubectl } = yield* Cluster
      const { lines } = yield* Node
      const { mark } = yield* Marks
      const before = readiness(yield* node)
      assert(before !== undefined)
      assert.strictEqual(before.status, "False")
      assert.include(before.message, "cni plugin not initialized")
      yield* apply(cni)
      yield* nodeReady()
      yield* mark("the node is Ready: a CNI is installed")
      assert.deepStrictEqual(yield* lines("ls /host/opt/cni/bin"), [
        "bridge",
        "host-local",
        "loopback",
        "portmap",
      ])
      assert.include(
        yield* kubectl(["logs", "daemonset/cni", "-n", "kube-system", "-c", "install"]),
        "installed",
      )
    }),
  )

  it.effect("runs a pod of the cluster; kubectl logs and exec reach it, and its network is routed", () =>
    Effect.gen(function* () {
      const { apply, kubectl } = yield* Cluster
      const { filesLog } = yield* Cloud
      const { run } = yield* Network
      const { mark } = yield* Marks
      yield* apply(web)
      const { ip, name } = yield* webReady
      yield* mark("a pod of the cluster runs")
      assert.strictEqual((yield* kubectl(["logs", name])).trim(), `serving as ${name}`)
      const said = yield* kubectl(["exec", name, "--", "/bin/sh", "-c", "hostname; exit 0"])
      assert.strictEqual(said.trim(), name)
      const failed = yield* Effect.flip(kubectl(["exec", name, "--", "/bin/sh", "-c", "exit 7"]))
      assert.include(failed.message, "exit code 7")
      // Standard input too.
      assert.strictEqual(
        yield* kubectl(["exec", "-i", name, "--", "/bin/cat"], { input: "in and out" }),
        "in and out",
      )
      assert.match(
        yield* kubectl(["exec", name, "--", "/bin/ls", "/var/run/secrets/kubernetes.io/serviceaccount"]),
        /ca\.crt[^]*token/u,
      )

      // Routed as a cloud's router or a fabric would.
      yield* run(["ip", "route", "replace", POD_NETWORK, "via", NODE])
      assert.match(ip, /^10\.244\.0\.\d+$/u)
      const page = yield* ask({ url: `http://${ip}:8080/` })
      assert.strictEqual("status" in page ? page.status : page.error, 200)
      // And the other way with the pod's own address: nobody has masqueraded it.
      yield* kubectl([
        "exec",
        name,
        "--",
        "/bin/wget",
        "-q",
        "-O",
        "/dev/null",
        `http://${GATEWAY}:${FILES_PORT}/loopback`,
      ])
      assert.include(yield* filesLog, ip)
      assert.isAbove((yield* containers).length, 4)
    }),
  )

  it.effect("a plugin that needs iptables or nft on the host says so, and its pod can be deleted", () =>
    Effect.gen(function* () {
      const { apply, kubectl } = yield* Cluster
      yield* apply(mapped)
      yield* eventuallyAssert(
        "the pod's event",
        kubectl([
          "get",
          "events",
          "--field-selector=involvedObject.name=mapped",
          "-o",
          "jsonpath={.items[*].message}",
        ]),
        (said) => assert.match(said, /plugin type="portmap" failed \(add\)/u),
        PATIENCE,
      )
      yield* kubectl(["delete", "pod", "mapped", "--timeout=120s"], { seconds: 150 })
    }),
  )
}
