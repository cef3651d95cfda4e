/** What the tests of a node in a cluster share: the machine on the cable, what the network sees, what a CNI's pod does. */
import { Context, Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as DiskImage from "../../src/image/DiskImage.ts"
import * as Probe from "../../src/vm/Probe.ts"
import { VmHost } from "../../src/vm/VmHost.ts"
import * as Timeline from "../../src/vm/Timeline.ts"
import * as VmRun from "../../src/vm/VmRun.ts"
import { busybox, efi, linesOf, Node, unhardened } from "../boot/support.ts"
import { component } from "./Components.ts"
import { GATEWAY, METADATA, Network, NODE, TAP } from "./Network.ts"
import type { Answer, Question } from "./Outside.ts"

/** The name that the metadata service gives the node. */
export const NAME = "node-7"
export const POD_NETWORK = "10.244.0.0/24"
export const FILES_PORT = 8000

/** What the disk's owner has put into /etc. */
const etc = {
  "kubernetes/manifests/kios-probe.json": Buffer.from(Probe.probeManifest({ image: busybox })),
  "kubernetes/manifests/cloud-bootstrap.yaml": fs.readFileSync(
    fileURLToPath(new URL("../../manifests/cloud-bootstrap.yaml", import.meta.url)),
  ),
  "kubernetes/node-labels": Buffer.from("example.com/rack=r7\nexample.com/empty=\n"),
  "kubernetes/node-ip": Buffer.from(`${NODE}\n`),
  "kubernetes/node-taints": Buffer.from("kios.dev/test=yes:NoSchedule\n"),
  "kubernetes/config.yaml": Buffer.from(
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 42\n",
  ),
}

/** The machine on the cable, up, with the probe in it. */
export const node = Layer.effect(
  Node,
  Effect.gen(function* () {
    const { directory, inside } = yield* Network
    const { watch } = yield* Marks
    const image = path.join(directory, "data.img")
    const made = yield* DiskImage.write({
      output: image,
      data: {
        sizeMiB: 512,
        files: Object.entries(etc).map(([name, bytes]) => ({ path: `meta/etc/${name}`, bytes })),
      },
    })
    const partition = made.partitions.find(({ type }) => type === DiskImage.DATA_TYPE)
    if (partition === undefined) return yield* Effect.die(new Error("the disk has no data partition"))
    const host = yield* VmHost
    const machine = yield* VmRun.boot({
      efi: yield* efi,
      boot: "kernel",
      memoryMiB: 1536,
      network: { tap: TAP },
      cmdline: unhardened,
      console: { tee: path.join(directory, "console.log") },
      ports: [Probe.defaultProbePort],
      disks: [{ path: image, format: "raw" }],
    }).pipe(Effect.provideService(VmHost, { ...host, dieWithParent: Effect.succeed(inside) }))
    yield* watch(machine)
    const verdict = yield* machine.until(
      { milestones: ["boot-complete"], pods: ["default/kios-probe", "default/hello"] },
      { timeout: "20 minutes" },
    )
    if (!verdict.reached) return yield* Effect.die(new Error(`${verdict.reason}\n${verdict.tail.join("\n")}`))
    const probe = yield* Probe.make({ path: machine.vm.ports[Probe.defaultProbePort] ?? "" })
    yield* probe.ready({ timeout: "10 minutes" })
    return { machine, data: { path: image, partition }, helloPort: 8080, lines: linesOf(probe) }
  }),
)

/** When what the cluster saw happened, beside what the console told: printed with the scope's end. */
export class Marks extends Context.Service<
  Marks,
  {
    readonly watch: (machine: VmRun.Machine) => Effect.Effect<void>
    readonly mark: (name: string) => Effect.Effect<void>
    /** What follows is another boot's. */
    readonly restart: Effect.Effect<void>
  }
>()("kios/test/Marks") {
  static readonly layer = Layer.effect(
    Marks,
    Effect.gen(function* () {
      let machine: VmRun.Machine | undefined
      let since = process.hrtime.bigint()
      let lines: Array<string> = []
      const tell = Effect.sync(() => {
        if (machine === undefined || lines.length === 0) return
        const timeline = Timeline.fromEvents(machine.events(), since)
        console.log(`${Timeline.render(timeline, { width: 100 })}\n\n${lines.join("\n")}\n`)
      })
      yield* Effect.addFinalizer(() => tell)
      return Marks.of({
        watch: (of) =>
          Effect.sync(() => {
            machine = of
            since = of.vm.startedAt
          }),
        mark: (name) =>
          Effect.sync(() => {
            const seconds = Number(process.hrtime.bigint() - since) / 1e9
            lines.push(`${seconds.toFixed(1).padStart(8)} s  ${name}`)
          }),
        restart: Effect.andThen(
          tell,
          Effect.sync(() => {
            since = process.hrtime.bigint()
            lines = []
          }),
        ),
      })
    }),
  )
}

const outside = fileURLToPath(new URL("Outside.ts", import.meta.url))
const fromOutside = Effect.fnUntraced(function* <A>(...words: ReadonlyArray<string>) {
  const { run } = yield* Network
  const { exitCode, stderr, stdout } = yield* run([process.execPath, "--no-warnings", outside, ...words], {
    seconds: 600,
  })
  if (exitCode !== 0) return yield* Effect.fail(new Error(stderr))
  return JSON.parse(stdout) as A
})

/** A request from the node's network. */
export const ask = (question: Question) => fromOutside<Answer>("ask", JSON.stringify(question))

/** TCP ports of an address that accept connections, and those that do not even refuse them. */
export const scan = (address: string) =>
  fromOutside<{ readonly open: ReadonlyArray<number>; readonly silent: ReadonlyArray<number> }>(
    "scan",
    address,
  )

/**
 * The cloud's side: a metadata service that has nothing to tell until a file is
 * published, and a server with the programs of a CNI.
 */
export class Cloud extends Context.Service<
  Cloud,
  {
    /** Puts a file where the metadata service finds it. */
    readonly publish: (name: string, text: string) => Effect.Effect<void>
    /** Who has asked the other server for what. */
    readonly filesLog: Effect.Effect<string>
  }
>()("kios/test/Cloud") {
  static readonly layer = Layer.effect(
    Cloud,
    Effect.gen(function* () {
      const { daemon, directory } = yield* Network
      const httpd = yield* component("busybox", "bin/busybox")
      const metadata = path.join(directory, "metadata")
      const files = path.join(directory, "files")
      for (const made of [metadata, files]) fs.mkdirSync(made)
      for (const name of plugins)
        fs.copyFileSync(yield* component("cni-plugins", `bin/${name}`), path.join(files, name))
      yield* daemon("metadata", [httpd, "httpd", "-f", "-vv", "-p", `${METADATA}:80`, "-h", metadata])
      const server = yield* daemon("files", [
        httpd,
        "httpd",
        "-f",
        "-vv",
        "-p",
        `${GATEWAY}:${FILES_PORT}`,
        "-h",
        files,
      ])
      return Cloud.of({
        filesLog: Effect.sync(() => fs.readFileSync(server.log, "utf8")),
        publish: (name, text) =>
          Effect.sync(() => {
            const file = path.join(metadata, name)
            fs.mkdirSync(path.dirname(file), { recursive: true })
            fs.writeFileSync(`${file}.new`, text)
            fs.renameSync(`${file}.new`, file)
          }),
      })
    }),
  )
}

const plugins = ["bridge", "host-local", "loopback", "portmap"] as const

/** Pods' addresses are routed, not translated: the bridge does not masquerade and nobody needs iptables. */
const network = JSON.stringify({
  cniVersion: "1.0.0",
  name: "kios-test",
  plugins: [
    {
      type: "bridge",
      bridge: "cni0",
      isGateway: true,
      ipMasq: false,
      ipam: { type: "host-local", ranges: [[{ subnet: POD_NETWORK }]], routes: [{ dst: "0.0.0.0/0" }] },
    },
    // As everybody has it; it does nothing for a pod that asks for no port of the host.
    { type: "portmap", capabilities: { portMappings: true } },
  ],
})

// Programs first: the runtime takes the network as ready when it sees its configuration.
const install = `set -eu
for name in ${plugins.join(" ")}; do
  wget -q -T 30 -O /host/bin/.new http://${GATEWAY}:${FILES_PORT}/$name
  chmod 0755 /host/bin/.new
  mv /host/bin/.new /host/bin/$name
done
cat >/host/net.d/.new <<'END'
${network}
END
mv /host/net.d/.new /host/net.d/10-kios-test.conflist
echo installed`

const hostPath = (name: string, directory: string) => ({
  name,
  hostPath: { path: directory, type: "DirectoryOrCreate" },
})

/** A CNI as they come: a DaemonSet on the host's network that puts programs and configuration on the host. */
export const cni = {
  apiVersion: "apps/v1",
  kind: "DaemonSet",
  metadata: { name: "cni", namespace: "kube-system" },
  spec: {
    selector: { matchLabels: { app: "cni" } },
    template: {
      metadata: { labels: { app: "cni" } },
      spec: {
        hostNetwork: true,
        tolerations: [{ operator: "Exists" }],
        terminationGracePeriodSeconds: 1,
        initContainers: [
          {
            name: "install",
            image: busybox,
            imagePullPolicy: "Never",
            command: ["/bin/sh", "-c", install],
            volumeMounts: [
              { name: "bin", mountPath: "/host/bin" },
              { name: "net", mountPath: "/host/net.d" },
            ],
          },
        ],
        containers: [
          { name: "main", image: busybox, imagePullPolicy: "Never", command: ["/bin/sleep", "1000000"] },
        ],
        volumes: [hostPath("bin", "/opt/cni/bin"), hostPath("net", "/etc/cni/net.d")],
      },
    },
  },
}

/** What a pod with a page at port 8080 is. */
const page = (port: Readonly<Record<string, unknown>> = {}) => ({
  spec: {
    terminationGracePeriodSeconds: 1,
    tolerations: [{ key: "kios.dev/test", operator: "Exists" }],
    containers: [
      {
        name: "main",
        image: busybox,
        imagePullPolicy: "Never",
        command: ["/bin/sh", "-c", "echo serving as $(hostname); exec httpd -f -p 8080 -h /www"],
        ports: [{ containerPort: 8080, ...port }],
      },
    ],
  },
})

/**
 * For the API server to give to the node: a page, a log, a service account's
 * token. Not a pod by itself, which would not come again when a node that is
 * shut down has ended it.
 */
export const web = {
  apiVersion: "apps/v1",
  kind: "ReplicaSet",
  metadata: { name: "web", namespace: "default" },
  spec: {
    selector: { matchLabels: { app: "web" } },
    template: { metadata: { labels: { app: "web" } }, ...page() },
  },
}

/** The host's own port is to lead to it. */
export const mapped = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "mapped", namespace: "default" },
  ...page({ hostPort: 8081 }),
}
