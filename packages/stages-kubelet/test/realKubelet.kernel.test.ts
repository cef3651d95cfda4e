// What the real kubelet makes of the configuration and the kubeconfigs that it is given.
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import * as Kubeconfig from "@kios/stages-kubelet/Kubeconfig"
import type { Mode } from "@kios/stages-kubelet/Membership"
import { kubeconfig } from "./life.ts"

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

/** Runs something in a directory of its own. */
const within = <A>(run: (dir: string) => A): A => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kios-kubelet-"))
  try {
    return run(dir)
  } finally {
    fs.rmSync(dir, { recursive: true, force: true })
  }
}

/** Starts it, until it ends for want of a runtime or sooner; what it has written. */
const logOf = (dir: string, flags: ReadonlyArray<string>): string =>
  spawnSync(kubelet ?? "", [...flags, `--root-dir=${dir}/root`, `--cert-dir=${dir}/pki`], {
    encoding: "utf8",
    timeout: 60_000,
    killSignal: "SIGKILL",
    env: { PATH: "/usr/bin:/bin" },
  }).stderr

/** The configuration that it says it has, just before it looks for the runtime, which is not there. */
const effective = (mode: Mode): Effective =>
  within((dir) => {
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
    const stderr = logOf(dir, [`--config=${dir}/config.json`, `--config-dir=${dir}/config.d`, "--v=5"])
    const text = /"KubeletConfiguration" configuration=<\n([\s\S]*?)\n >/u.exec(stderr)?.[1]
    if (text === undefined) throw new Error(`the kubelet told no configuration:\n${stderr.slice(-3000)}`)
    return JSON.parse(text) as Effective
  })

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
  for (const [what, broken] of [
    ["a context that leads nowhere", (text: string) => text.replace("cluster: c", "cluster: none")],
    ["an authority that is none", (text: string) => text],
    [
      "an address that is none",
      (text: string) => text.replace(/https:.*/u, "'::::'").replace(/ +cert.*\n/u, ""),
    ],
  ] as const)
    for (const name of ["kubeconfig", "bootstrap-kubeconfig"])
      it(`refuses, as ${name}, ${what}, in words that init knows`, () =>
        within((dir) => {
          const text = broken(kubeconfig())
          assert.isUndefined(Kubeconfig.examine(text).problem)
          fs.writeFileSync(`${dir}/given.conf`, text)
          fs.writeFileSync(
            `${dir}/config.yaml`,
            `${OWNER}rotateCertificates: true\ncontainerRuntimeEndpoint: unix://${dir}/none.sock\n`
              .replace("clientCAFile: /etc/kubernetes/other.crt", "")
              .replace(/^(system|kubeReserved|enforce).*\n/gmu, ""),
          )
          const own = name === "kubeconfig" ? [] : [`--kubeconfig=${dir}/own.conf`]
          const log = logOf(dir, [`--config=${dir}/config.yaml`, `--${name}=${dir}/given.conf`, ...own])
          const refusals = log.split("\n").map(Kubeconfig.refusal)
          assert.isTrue(
            refusals.some((reason) => reason !== undefined),
            log.slice(-2000),
          )
        }))
})
