/**
 * The kubelet as upstream builds it joins a real cluster under init's own code,
 * without a machine: standalone, TLS bootstrap, its identity, its certificates,
 * who is let in, and back. Pods are the virtual machine's business.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as readline from "node:readline"
import { fileURLToPath } from "node:url"
import { eventuallyAssert } from "../boot/support.ts"
import { API_SERVER, Cluster, kubeconfigOf, TOKEN } from "./Cluster.ts"
import { Network, NODE } from "./Network.ts"
import { programs } from "../kubelet/programs.ts"

const NAME = "node-7"
const OWN = "/etc/kubernetes/kubelet.conf"
const BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
const PATIENCE = 180

const containerd = `version = 3
root = "/run/containerd-root"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
`

// A development machine is no node, whatever its cgroups are: flags, which win over the configuration that init writes.
const wrapper = `#!/bin/sh
exec "$KUBELET" "$@" --cgroups-per-qos=false --enforce-node-allocatable= --fail-cgroupv1=false
`

/** In namespaces of its own; what init would have mounted, and nothing written to the machine. */
const script = `set -e
mount -t tmpfs run /run
mkdir -p /run/cg /run/kios/log /run/upper /run/work /run/bin /run/lib
: > /run/cg/cgroup.procs
mount -t overlay etc -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mkdir -p /etc/kubernetes/manifests
echo early > /etc/hostname
sed "s|\\$KUBELET|$KUBELET|" "$DIR/kubelet.sh" > /run/bin/kubelet
chmod 755 /run/bin/kubelet
mount -t overlay bin -o lowerdir=/run/bin:/usr/bin /usr/bin
mount --bind /run/lib /var/lib
"$CONTAINERD" --config "$DIR/containerd.toml" > "$DIR/containerd.log" 2>&1 &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
exec "$NODE" --conditions=@kios/source "$INIT"
`

interface Answer {
  readonly up?: boolean
  readonly starts: number
  readonly state: string
  readonly text: string | null
  readonly kmsg: ReadonlyArray<string>
}

/** The node, up; a question to it is written, and its answer waited for. */
const node = Effect.gen(function* () {
  const { directory, inside } = yield* Network
  const binaries = yield* programs
  fs.writeFileSync(path.join(directory, "containerd.toml"), containerd)
  fs.writeFileSync(path.join(directory, "kubelet.sh"), wrapper)
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
  const [file = "", ...args] = [...inside, "unshare", ...namespaces, "sh", "-c", script]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(file, args, {
        stdio: ["pipe", "pipe", "inherit"],
        env: {
          ...process.env,
          ...binaries,
          DIR: directory,
          NODE: process.execPath,
          INIT: fileURLToPath(new URL("nodeProcess.ts", import.meta.url)),
        },
      }),
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL")),
  )
  const answers = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = Effect.promise(async () => {
    const { done, value } = await answers.next()
    if (done === true) throw new Error("the node ended")
    return JSON.parse(value) as Answer
  })
  yield* answer
  return (question: object) =>
    Effect.andThen(
      Effect.sync(() => void child.stdin.write(`${JSON.stringify(question)}\n`)),
      answer,
    )
})

interface Request {
  readonly metadata: { readonly name: string }
  readonly spec: { readonly signerName: string; readonly username: string }
  readonly status?: { readonly certificate?: string }
}
interface NodeObject {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> }
  readonly spec: { readonly taints?: ReadonlyArray<object>; readonly providerID?: string }
  readonly status: { readonly addresses: ReadonlyArray<{ readonly type: string; readonly address: string }> }
}

it.live(
  "standalone, into a cluster by a token, through an outage, back, and in again by a certificate",
  () =>
    Effect.gen(function* () {
      const { run } = yield* Network
      const { apiServer, authority, get, kubectl, ready } = yield* Cluster
      yield* run(["ip", "address", "add", `${NODE}/32`, "dev", "lo"])
      const ask = yield* node
      const first = yield* ask({})
      assert.deepInclude(first, { starts: 1, state: "Up" })
      // Nobody else can even connect.
      const port = (address: string) =>
        run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", `https://${address}:10250/pods`])
      assert.strictEqual((yield* port(NODE)).stdout, "000")
      assert.strictEqual((yield* port("127.0.0.1")).stdout, "401")

      const files = {
        "/etc/hostname": `${NAME}\n`,
        "/etc/kubernetes/pki/ca.crt": fs.readFileSync(authority.certificate, "utf8"),
        "/etc/kubernetes/node-labels": "example.com/rack=r7\nnode-role.kubernetes.io/worker=\n",
        "/etc/kubernetes/node-taints": "example.com/test=yes:NoSchedule\n",
        "/etc/kubernetes/node-ip": `${NODE}\n`,
        "/etc/kubernetes/provider-id": "test:///node-7\n",
        "/etc/kubernetes/config.yaml":
          "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n",
      }
      const kubeconfig = kubeconfigOf(authority, API_SERVER, `${TOKEN.id}.${TOKEN.secret}`)
      // In two pieces, as who writes in place does.
      yield* ask({ write: { ...files, [BOOTSTRAP]: kubeconfig.slice(0, 200) } })
      yield* ask({ write: { [BOOTSTRAP]: kubeconfig } })

      const approve = (signer: string, username: string) =>
        Effect.gen(function* () {
          const [request] = yield* eventuallyAssert(
            `a request to ${signer}`,
            Effect.map(get<{ readonly items: ReadonlyArray<Request> }>(["csr"]), ({ items }) =>
              items.filter(
                ({ spec, status }) => spec.signerName === signer && status?.certificate === undefined,
              ),
            ),
            (requests) =>
              assert.deepStrictEqual(
                requests.map(({ spec }) => spec.username),
                [username],
              ),
            PATIENCE,
          )
          yield* kubectl(["certificate", "approve", request?.metadata.name ?? ""])
        })
      yield* approve("kubernetes.io/kube-apiserver-client-kubelet", `system:bootstrap:${TOKEN.id}`)
      const registered = yield* eventuallyAssert(
        "the node",
        Effect.map(get<{ readonly items: ReadonlyArray<NodeObject> }>(["nodes"]), ({ items }) => items),
        (nodes) =>
          assert.deepStrictEqual(
            nodes.map(({ metadata }) => metadata.name),
            [NAME],
          ),
        PATIENCE,
      )
      assert.deepInclude(registered[0]?.metadata.labels, {
        "example.com/rack": "r7",
        "kubernetes.io/hostname": NAME,
      })
      assert.notProperty(registered[0]?.metadata.labels, "node-role.kubernetes.io/worker")
      assert.strictEqual(registered[0]?.spec.providerID, "test:///node-7")
      const taint = { key: "example.com/test", value: "yes", effect: "NoSchedule" }
      assert.deepInclude<unknown>(registered[0]?.spec.taints ?? [], taint)
      assert.deepInclude<unknown>(registered[0]?.status.addresses ?? [], {
        type: "InternalIP",
        address: NODE,
      })

      // Its serving certificate is the cluster's, which the API server insists on; it asks for it by its own name.
      yield* approve("kubernetes.io/kubelet-serving", `system:node:${NAME}`)
      const proxied = (what: string) => kubectl(["get", "--raw", `/api/v1/nodes/${NAME}/proxy/${what}`])
      yield* eventuallyAssert(
        "the API server reaches it",
        proxied("healthz"),
        (text) => assert.strictEqual(text, "ok"),
        PATIENCE,
      )
      const { kubeletconfig } = JSON.parse(yield* proxied("configz")) as {
        readonly kubeletconfig: Readonly<Record<string, unknown>>
      }
      assert.deepInclude(kubeletconfig, {
        maxPods: 42,
        tlsMinVersion: "VersionTLS13",
        rotateCertificates: true,
      })
      assert.strictEqual((yield* port(NODE)).stdout, "401")

      // It has written its own kubeconfig meanwhile, and whoever brought the token takes it away.
      const joined = yield* ask({ remove: BOOTSTRAP, read: OWN })
      assert.include(joined.text, "/var/lib/kubelet/pki/kubelet-client-current.pem")
      yield* Effect.sleep("8 seconds")
      const later = yield* ask({})
      assert.deepInclude(later, { starts: 2, state: "Up" })
      assert.deepStrictEqual(
        later.kmsg.filter((line) => line.includes("/etc/kubernetes/")),
        [
          "err error /etc/kubernetes/node-labels:2: a kubelet may not set node-role.kubernetes.io/worker itself (NodeRestriction); set it by the API: kubectl label node",
        ],
      )

      // The API server is away, and the kubelet too: the node is what it was, and asks for no other identity.
      const requests = Effect.map(
        get<{ readonly items: ReadonlyArray<Request> }>(["csr"]),
        ({ items }) => items.length,
      )
      const before = yield* requests
      yield* apiServer.stop
      yield* ask({ restart: true })
      yield* eventuallyAssert(
        "it is up without the API server",
        ask({}),
        (now) => assert.deepInclude(now, { starts: 3, state: "Up" }),
        PATIENCE,
      )
      yield* apiServer.start
      yield* ready
      yield* eventuallyAssert(
        "the API server reaches it again",
        proxied("healthz"),
        (text) => assert.strictEqual(text, "ok"),
        PATIENCE,
      )
      assert.strictEqual(yield* requests, before)

      const standalone = (starts: number) =>
        Effect.gen(function* () {
          yield* ask({ remove: OWN })
          yield* eventuallyAssert(
            "it is standalone again",
            ask({}),
            (now) => assert.deepInclude(now, { starts, state: "Up" }),
            PATIENCE,
          )
          assert.strictEqual((yield* port(NODE)).stdout, "000")
        })
      yield* standalone(4)

      // Another life, by a certificate this time.
      yield* kubectl(["delete", "node", NAME])
      yield* ask({ remove: "/var/lib/kubelet/pki" })
      const user = yield* authority.issue("rack", {
        commonName: "rack-7",
        organization: "system:bootstrappers:kios",
      })
      yield* ask({ write: { [BOOTSTRAP]: kubeconfigOf(authority, API_SERVER, user) } })
      yield* approve("kubernetes.io/kube-apiserver-client-kubelet", "rack-7")
      yield* approve("kubernetes.io/kubelet-serving", `system:node:${NAME}`)
      yield* eventuallyAssert(
        "the API server reaches it",
        proxied("healthz"),
        (text) => assert.strictEqual(text, "ok"),
        PATIENCE,
      )
      yield* ask({ remove: BOOTSTRAP })
      yield* standalone(6)
    }).pipe(Effect.provide(Layer.provideMerge(Cluster.layer, Network.layer)), Effect.scoped),
  900_000,
)
