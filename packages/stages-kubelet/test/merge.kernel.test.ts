// What the real kubelet makes of the configuration that it is given, and of its owner's.
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import type { Mode } from "@kios/stages-kubelet/Membership"

const kubelet = (() => {
  if (process.env["KIOS_COMPONENT_KUBELET"] !== undefined) return process.env["KIOS_COMPONENT_KUBELET"]
  const cache = `${process.env["KIOS_CACHE"] ?? `${os.homedir()}/.cache/kios`}/components`
  const built = fs.existsSync(cache)
    ? fs.readdirSync(cache).filter((name) => name.startsWith("kubelet-"))
    : []
  return built.map((name) => `${cache}/${name}/files/bin/kubelet`).findLast((file) => fs.existsSync(file))
})()

// All that must not be taken as it is, and some that must.
const OWNER = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 42
evictionHard: { memory.available: 99Mi }
staticPodPath: /elsewhere
healthzPort: 1
systemCgroups: /all
kubeReservedCgroup: /kube
enforceNodeAllocatable: [pods, kube-reserved]
volumePluginDir: /opt/plugins
readOnlyPort: 10255
address: 0.0.0.0
authentication:
  anonymous: { enabled: true }
  webhook: { enabled: true }
  x509: { clientCAFile: /etc/kubernetes/other.crt }
# Where this test runs, that may be what there is.
failCgroupV1: false
`

interface Effective extends Readonly<Record<string, unknown>> {
  readonly Authentication: {
    readonly X509: { readonly ClientCAFile: string }
    readonly Webhook: { readonly Enabled: boolean }
    readonly Anonymous: { readonly Enabled: boolean }
  }
  readonly EvictionHard: Readonly<Record<string, string>>
}

/** The configuration that it says it has, just before it looks for the runtime, which is not there. */
const effective = (mode: Mode): Effective => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kios-kubelet-"))
  try {
    const json = (file: string, content: object) =>
      fs.writeFileSync(`${dir}/${file}`, JSON.stringify(content))
    fs.mkdirSync(`${dir}/config.d`)
    const tls = { tlsCertFile: "/c", tlsPrivateKeyFile: "/k", clientCAFile: "/etc/kubernetes/pki/ca.crt" }
    json("config.json", KubeletConfig.base(mode, tls))
    fs.writeFileSync(`${dir}/config.yaml`, OWNER)
    fs.symlinkSync(`${dir}/config.yaml`, `${dir}/config.d/10-config.conf`)
    const taints = [{ key: "example.com/gpu", value: "yes", effect: "NoSchedule" }]
    json("config.d/90-node.conf", {
      ...KubeletConfig.header,
      providerID: "a://b",
      registerWithTaints: taints,
    })
    const options = { containerRuntimeEndpoint: `unix://${dir}/none.sock`, staticPodPath: "/m" }
    json("config.d/99-kios.conf", KubeletConfig.fixed(mode, options))
    const { stderr } = spawnSync(
      kubelet ?? "",
      [`--config=${dir}/config.json`, `--config-dir=${dir}/config.d`, "--v=5", `--root-dir=${dir}/root`],
      { encoding: "utf8", timeout: 60_000, killSignal: "SIGKILL", env: { PATH: "/usr/bin:/bin" } },
    )
    const text = /"KubeletConfiguration" configuration=<\n([\s\S]*?)\n >/u.exec(stderr)?.[1]
    if (text === undefined) throw new Error(`the kubelet told no configuration:\n${stderr.slice(-3000)}`)
    return JSON.parse(text) as Effective
  } finally {
    fs.rmSync(dir, { recursive: true, force: true })
  }
}

describe.skipIf(kubelet === undefined)("the real kubelet", () => {
  const fixed = {
    StaticPodPath: "/m",
    HealthzPort: 10248,
    SystemCgroups: "",
    KubeReservedCgroup: "",
    EnforceNodeAllocatable: ["pods"],
    VolumePluginDir: "/lib/kios/volume-plugins",
  }
  const taken = { MaxPods: 42, ProviderID: "a://b", SeccompDefault: true, OOMScoreAdj: -999 }
  it("standalone, takes what is its owner's, and lets nobody in", () => {
    const config = effective({ _tag: "Standalone" })
    assert.deepInclude(config, { ...fixed, ...taken, Address: "127.0.0.1", ReadOnlyPort: 0 })
    assert.strictEqual(config.Authentication.X509.ClientCAFile, "")
    assert.isFalse(config.Authentication.Anonymous.Enabled)
    assert.isFalse(config.Authentication.Webhook.Enabled)
    assert.strictEqual(config.EvictionHard["memory.available"], "99Mi")
    assert.strictEqual(config.EvictionHard["nodefs.available"], "5%")
  })
  it("in a cluster, leaves to its owner who is let in", () => {
    const config = effective({ _tag: "Cluster", bootstrap: false })
    assert.deepInclude(config, { ...fixed, ...taken, Address: "0.0.0.0", ReadOnlyPort: 10_255 })
    assert.deepInclude(config, { RotateCertificates: true, ServerTLSBootstrap: true })
    assert.deepInclude(config, { TLSMinVersion: "VersionTLS13" })
    assert.strictEqual(config.Authentication.X509.ClientCAFile, "/etc/kubernetes/other.crt")
    assert.isTrue(config.Authentication.Anonymous.Enabled)
  })
})
