/**
 * A cluster in a namespace of the test's own: etcd, the API server, the
 * controllers that a node meets, the scheduler, and kubectl to look at it.
 */
import { Context, Effect, Layer, Scope } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { eventually } from "../boot/support.ts"
import { authority, type Authority, type Pair } from "./Certificates.ts"
import { component } from "./Components.ts"
import { type Daemon, GATEWAY, Network } from "./Network.ts"

export const API_PORT = 6443
/** Where the node finds the API server. */
export const API_SERVER = `https://${GATEWAY}:${API_PORT}`
/** A token of kubeadm's form: `abcdef.0123456789abcdef`. */
export const TOKEN = { id: "k10sk1", secret: "0123456789abcdef" }

// Machines with two processors compile and emulate at the same time.
const PATIENCE = 180

/** A server that can be ended and started again with the same words. */
export interface Restartable {
  readonly start: Effect.Effect<void, Error>
  readonly stop: Effect.Effect<void>
}

/** What kubectl takes. */
export interface KubectlOptions {
  readonly input?: string
  readonly seconds?: number
}

/** The cluster that runs. */
export class Cluster extends Context.Service<
  Cluster,
  {
    readonly authority: Authority
    /** Runs kubectl as administrator; its output. Fails when it does. */
    readonly kubectl: (args: ReadonlyArray<string>, options?: KubectlOptions) => Effect.Effect<string, Error>
    /** Creates or changes objects. */
    readonly apply: (...objects: ReadonlyArray<unknown>) => Effect.Effect<void, Error>
    /** An object, or a list of them. */
    readonly get: <A>(args: ReadonlyArray<string>) => Effect.Effect<A, Error>
    readonly etcd: Restartable
    readonly apiServer: Restartable
    /** Waits until the API server says that it is ready. */
    readonly ready: Effect.Effect<void, Error>
  }
>()("kios/test/Cluster") {
  static readonly layer = Layer.effect(
    Cluster,
    Effect.gen(function* () {
      const { directory, run } = yield* Network
      const [etcdProgram, apiServerProgram, controllerManager, scheduler, kubectlProgram] = yield* Effect.all(
        [
          component("etcd", "bin/etcd"),
          component("kubernetes", "bin/kube-apiserver"),
          component("kubernetes", "bin/kube-controller-manager"),
          component("kubernetes", "bin/kube-scheduler"),
          component("kubernetes", "bin/kubectl"),
        ],
      )
      const ca = yield* authority(directory)
      const tokens = yield* ca.signingKey
      const server = yield* ca.issue("apiserver", {
        commonName: "kube-apiserver",
        names: ["DNS:localhost", "DNS:kubernetes.default.svc", "IP:127.0.0.1", `IP:${GATEWAY}`],
      })
      // Whom the API server is for the kubelet: RBAC gives this name nothing, a binding below does.
      const toKubelet = yield* ca.issue("to-kubelet", { commonName: "kube-apiserver-kubelet-client" })
      const admin = yield* ca.issue("admin", { commonName: "admin", organization: "system:masters" })
      const kubeconfig = path.join(directory, "admin.kubeconfig")
      fs.writeFileSync(kubeconfig, kubeconfigOf(ca, `https://127.0.0.1:${API_PORT}`, admin), { mode: 0o600 })

      const etcd = yield* restartable("etcd", [
        etcdProgram,
        `--data-dir=${path.join(directory, "etcd")}`,
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
      ])
      const apiServer = yield* restartable("kube-apiserver", [
        apiServerProgram,
        "--etcd-servers=http://127.0.0.1:2379",
        `--secure-port=${API_PORT}`,
        `--advertise-address=${GATEWAY}`,
        `--tls-cert-file=${server.certificate}`,
        `--tls-private-key-file=${server.key}`,
        `--client-ca-file=${ca.certificate}`,
        `--kubelet-client-certificate=${toKubelet.certificate}`,
        `--kubelet-client-key=${toKubelet.key}`,
        "--kubelet-preferred-address-types=InternalIP",
        // The kubelet's certificate is of the cluster, or there are no logs.
        `--kubelet-certificate-authority=${ca.certificate}`,
        `--service-account-key-file=${tokens.public}`,
        `--service-account-signing-key-file=${tokens.private}`,
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth",
        "--allow-privileged=true",
        // No others will ever be: and an API server that ends need not tell etcd.
        "--endpoint-reconciler-type=none",
      ])

      const kubectl = (args: ReadonlyArray<string>, options: KubectlOptions = {}) =>
        run([kubectlProgram, `--kubeconfig=${kubeconfig}`, ...args], options).pipe(
          Effect.flatMap(({ exitCode, stderr, stdout }) =>
            exitCode === 0
              ? Effect.succeed(stdout)
              : Effect.fail(new Error(`kubectl ${args.join(" ")}: ${stderr.trim() || stdout}`)),
          ),
        )
      const ready = eventually(
        "the API server",
        kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"]),
        PATIENCE,
      ).pipe(Effect.asVoid)
      const apply = (...objects: ReadonlyArray<unknown>) =>
        Effect.asVoid(
          kubectl(["apply", "-f", "-"], { input: objects.map((one) => JSON.stringify(one)).join("\n---\n") }),
        )
      const get = <A>(args: ReadonlyArray<string>) =>
        Effect.map(kubectl(["get", ...args, "-o", "json"]), (text) => JSON.parse(text) as A)

      yield* etcd.start
      yield* apiServer.start
      yield* ready
      const controllers = yield* restartable("kube-controller-manager", [
        controllerManager,
        `--kubeconfig=${kubeconfig}`,
        "--leader-elect=false",
        `--controllers=${[
          "serviceaccount-controller",
          "root-ca-certificate-publisher-controller",
          "namespace-controller",
          "garbage-collector-controller",
          "daemonset-controller",
          "replicaset-controller",
          "certificatesigningrequest-signing-controller",
          // They make an outage dangerous for pods: who is away for too long is evicted.
          "node-lifecycle-controller",
          "taint-eviction-controller",
        ].join(",")}`,
        `--cluster-signing-cert-file=${ca.certificate}`,
        `--cluster-signing-key-file=${ca.key}`,
        `--service-account-private-key-file=${tokens.private}`,
        `--root-ca-file=${ca.certificate}`,
      ])
      const scheduling = yield* restartable("kube-scheduler", [
        scheduler,
        `--kubeconfig=${kubeconfig}`,
        "--leader-elect=false",
      ])
      yield* controllers.start
      yield* scheduling.start
      yield* eventually("the roles of a node that joins", apply(...joining), PATIENCE)
      yield* eventually(
        "the service account of pods",
        kubectl(["get", "serviceaccount", "default"]),
        PATIENCE,
      )
      return Cluster.of({ authority: ca, kubectl, apply, get, etcd, apiServer, ready })
    }),
  )
}

/** Ends with the scope; its first start is the caller's. */
const restartable = Effect.fnUntraced(function* (
  name: string,
  command: ReadonlyArray<string>,
): Effect.fn.Return<Restartable, never, Network | Scope.Scope> {
  const { daemon } = yield* Network
  const scope = yield* Effect.scope
  let running: Daemon | undefined
  return {
    start: daemon(name, command).pipe(
      Scope.provide(scope),
      Effect.map((started) => {
        running = started
      }),
    ),
    stop: Effect.suspend(() => running?.stop ?? Effect.void),
  }
})

/** For the administrator, or with a bootstrap token. */
export const kubeconfigOf = (ca: Pair, server: string, user: Pair | string): string => {
  const base64 = (file: string) => fs.readFileSync(file).toString("base64")
  return `${JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server, "certificate-authority-data": base64(ca.certificate) } }],
    users: [
      {
        name: "user",
        user:
          typeof user === "string"
            ? { token: user }
            : {
                "client-certificate-data": base64(user.certificate),
                "client-key-data": base64(user.key),
              },
      },
    ],
    contexts: [{ name: "test", context: { cluster: "test", user: "user" } }],
    "current-context": "test",
  })}\n`
}

const binding = (name: string, role: string, kind: "User" | "Group", subject: string) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind, name: subject }],
})

/** What kubeadm makes as well: a token, what its bearer may, and what the API server may at kubelets. */
const joining = [
  {
    apiVersion: "v1",
    kind: "Secret",
    type: "bootstrap.kubernetes.io/token",
    metadata: { name: `bootstrap-token-${TOKEN.id}`, namespace: "kube-system" },
    stringData: {
      "token-id": TOKEN.id,
      "token-secret": TOKEN.secret,
      "usage-bootstrap-authentication": "true",
      "auth-extra-groups": "system:bootstrappers:kios",
    },
  },
  binding("kios-bootstrap", "system:node-bootstrapper", "Group", "system:bootstrappers:kios"),
  binding("kios-kubelet-api", "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"),
]
