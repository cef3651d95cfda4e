// The kubelet as upstream builds it, against logind's D-Bus: it takes its inhibitor, hears of the shutdown and lets
// go. With containerd, without pods, in namespaces of its own; with pods it is in a virtual machine.
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as readline from "node:readline"
import { fileURLToPath } from "node:url"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import { programs } from "./programs.ts"

const init = fileURLToPath(new URL("../../../packages/stages-kubelet/test/socketServer.ts", import.meta.url))

const containerd = `version = 3
root = "/run/containerd-root"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
`

const settings = {
  apiVersion: "kubelet.config.k8s.io/v1beta1",
  kind: "KubeletConfiguration",
  containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
  staticPodPath: "/run/manifests",
  authentication: { anonymous: { enabled: false }, webhook: { enabled: false } },
  authorization: { mode: "AlwaysAllow" },
  address: "127.0.0.1",
  // A development machine is no node: whatever its cgroups and swap are.
  failSwapOn: false,
  failCgroupV1: false,
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  cgroupDriver: "cgroupfs",
  makeIPTablesUtilChains: false,
  evictionHard: {},
  podLogsDir: "/run/pod-logs",
  volumePluginDir: "/run/volume-plugins",
  logging: { format: "text", verbosity: 1 },
}

/** In a mount, pid and network namespace; the stand-in for init is its PID 1. */
const script = `
mount -t tmpfs run /run && mkdir -p /run/manifests /run/kubelet || exit 1
ip link set lo up
"$CONTAINERD" --config "$DIR/containerd.toml" > "$DIR/containerd.log" 2>&1 &
(
  until [ -S /run/containerd/containerd.sock ] && [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
  exec "$KUBELET" --config="$DIR/kubelet.json" --root-dir=/run/kubelet --cert-dir=/run/kubelet/pki \\
    --hostname-override=test > "$DIR/kubelet.log" 2>&1 < /dev/null
) &
exec "$NODE" --conditions=@kios/source "$INIT" 0
`

it("an unmodified kubelet registers its inhibitor and runs its graceful shutdown", async () => {
  const binaries = await Effect.runPromise(programs)
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kios-logind-"))
  // The grace that a node has.
  const { shutdownGracePeriod, shutdownGracePeriodCriticalPods } = KubeletConfig.base(
    { _tag: "Standalone" },
    { tlsCertFile: "", tlsPrivateKeyFile: "" },
  )
  const config = { ...settings, shutdownGracePeriod, shutdownGracePeriodCriticalPods }
  fs.writeFileSync(path.join(dir, "kubelet.json"), JSON.stringify(config))
  fs.writeFileSync(path.join(dir, "containerd.toml"), containerd)
  const log = () => fs.readFileSync(path.join(dir, "kubelet.log"), "utf8")
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
  const node = spawn("unshare", [...namespaces, "sh", "-c", script], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...binaries, DIR: dir, NODE: process.execPath, INIT: init },
  })
  try {
    const answers = readline.createInterface({ input: node.stdout })[Symbol.asyncIterator]()
    const next = async () => {
      for (;;) {
        const { done, value } = await answers.next()
        if (done === true) throw new Error(`the node ended: ${log()}`)
        if (value.startsWith("{")) return JSON.parse(value) as { readonly inhibitors?: number }
      }
    }
    await next()
    for (const end = Date.now() + 200_000; ; await new Promise((done) => setTimeout(done, 200))) {
      node.stdin.write("report\n")
      if ((await next()).inhibitors === 1) break
      if (Date.now() > end) assert.fail(`no inhibitor: ${log()}`)
    }
    const began = performance.now()
    node.stdin.write("steps\n")
    await next()
    // There is no pod to wait for.
    assert.isBelow(performance.now() - began, 20_000)
    for (const line of [
      /Creating node shutdown manager" shutdownGracePeriodRequested="30s" shutdownGracePeriodCriticalPods="10s"/u,
      /Shutdown manager detected new shutdown event" event="shutdown"/u,
      /Shutdown manager completed processing shutdown event, node will shutdown shortly/u,
    ])
      assert.match(log(), line)
    assert.notMatch(log(), /Failed to start node shutdown manager/u)
  } finally {
    node.kill("SIGKILL")
    fs.rmSync(dir, { recursive: true, force: true })
  }
}, 400_000)
