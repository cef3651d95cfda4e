/**
 * containerd's configuration, rendered by kiOS so that nothing on the node can
 * change what the runtime executes: the file is not in /etc.
 */

/** What differs between nodes. */
export interface ContainerdConfigOptions {
  /** Images, layers and metadata. */
  readonly root: string
  /** Sockets and running containers. */
  readonly state: string
  /** The unix socket of its API and of CRI. */
  readonly address: string
  /** Image of the pause container of every pod. */
  readonly sandboxImage: string
  /** Directory of `HOST/hosts.toml` files: mirrors and private certificate authorities. */
  readonly registryConfigPath: string
  /** Directory of programs that are asked before each pull; there need not be one. */
  readonly imageVerifierDir: string
  readonly cniConfDir: string
  readonly cniBinDir: string
}

/**
 * What the reference distro uses.
 *
 * @example
 * ```ts
 * import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
 *
 * const toml = ContainerdConfig.render({ ...ContainerdConfig.reference, cniBinDir: "/lib/cni" })
 * ```
 */
export const reference: ContainerdConfigOptions = {
  root: "/var/lib/containerd",
  state: "/run/containerd",
  address: "/run/containerd/containerd.sock",
  sandboxImage: "localhost/kios/pause:3.10.2",
  registryConfigPath: "/etc/containerd/certs.d",
  // Of the image, which is read-only: containerd's own default is below /opt, where pods put programs.
  imageVerifierDir: "/lib/kios/image-verifiers",
  cniConfDir: "/etc/cni/net.d",
  cniBinDir: "/opt/cni/bin",
}

// A TOML basic string has the escapes of a JSON string.
const quote = (text: string): string => JSON.stringify(text)

/**
 * Renders config version 4 (containerd 2.4; docs/cri/config.md of containerd).
 *
 * NRI is off: its plugins are programs that containerd would execute on the
 * host. So are CDI's directories, whose files name programs for runc to
 * execute, and tracing, which nobody here collects.
 *
 * containerd asks every shim twice per `stats_collect_period` for the time its
 * pod has used, so that it can tell `crictl stats` a rate. Its default of a
 * second costs a node with idle pods more than anything else that it does
 * (docs/performance.md), and the kubelet does not use it: it reads the cgroups
 * by cAdvisor. Ten seconds is how often cAdvisor does that in a kubelet.
 *
 * @example
 * ```ts
 * import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"
 *
 * const toml = ContainerdConfig.render({ ...ContainerdConfig.reference, sandboxImage: "example.com/pause:1" })
 * ```
 */
export const render = (options: ContainerdConfigOptions): string => `version = 4
root = ${quote(options.root)}
state = ${quote(options.state)}
oom_score = -999
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[plugins."io.containerd.server.v1.grpc"]
  address = ${quote(options.address)}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = ${quote(options.sandboxImage)}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = ${quote(options.registryConfigPath)}

[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = ${quote(options.imageVerifierDir)}

[plugins."io.containerd.cri.v1.runtime"]
  cdi_spec_dirs = []
  stats_collect_period = "10s"

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [${quote(options.cniBinDir)}]
  conf_dir = ${quote(options.cniConfDir)}

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "/bin/runc"
  SystemdCgroup = false
`
