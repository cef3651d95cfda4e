/**
 * The kubelet's configuration for a node without an API server.
 *
 * JSON is YAML, so that init needs no YAML writer; names are those of
 * KubeletConfiguration (kubelet.config.k8s.io/v1beta1).
 */

import type { Reservations } from "./Reservations.ts"

/** What the reference distro chooses; the rest is fixed by how kiOS is built. */
export interface KubeletConfigOptions {
  /** CRI endpoint. */
  readonly containerRuntimeEndpoint: string
  /** Directory of static pod manifests. */
  readonly staticPodPath: string
  /** Serving certificate and key, PEM files. */
  readonly tlsCertFile: string
  readonly tlsPrivateKeyFile: string
  /** What is kept away from pods; without it, nothing is. */
  readonly reservations?: Reservations
}

/**
 * The standalone KubeletConfiguration.
 *
 * Nobody can authenticate: anonymous requests are off, there is no client CA,
 * and token review (webhook) needs an API server. So the kubelet's port
 * answers 401 to everybody, which is what a standalone node wants.
 *
 * @example
 * ```ts
 * import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
 *
 * const config = KubeletConfig.standalone({
 *   containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
 *   staticPodPath: "/etc/kubernetes/manifests",
 *   tlsCertFile: "/run/kios/kubelet.crt",
 *   tlsPrivateKeyFile: "/run/kios/kubelet.key",
 * })
 * ```
 */
export const standalone = ({ reservations, ...options }: KubeletConfigOptions) => ({
  apiVersion: "kubelet.config.k8s.io/v1beta1",
  kind: "KubeletConfiguration",
  ...options,
  ...reservations,
  // On /kubepods only. On /kios it would set memory.max: the node's own daemons would be killed.
  enforceNodeAllocatable: ["pods"],
  // It sets its own: below any pod's (a Guaranteed one has -997), so that pods are killed first.
  oomScoreAdj: -999,
  authentication: { anonymous: { enabled: false }, webhook: { enabled: false } },
  authorization: { mode: "AlwaysAllow" },
  address: "0.0.0.0",
  healthzBindAddress: "127.0.0.1",
  healthzPort: 10248,
  readOnlyPort: 0,
  cgroupDriver: "cgroupfs",
  cgroupRoot: "/",
  failSwapOn: false,
  resolvConf: "/etc/resolv.conf",
  // iptables is not on the host; a CNI that wants its chains brings them.
  makeIPTablesUtilChains: false,
  // An executable there would be run by the kubelet: the directory is in the read-only image.
  volumePluginDir: "/lib/kios/volume-plugins",
  podLogsDir: "/var/log/pods",
  seccompDefault: true,
  // RAM is the node's disk until there is a data partition: the kubelet's
  // defaults (10 % and 15 % free) would evict everything from a small one.
  // Static pods are never evicted: against them there are only the cgroups.
  evictionHard: {
    "memory.available": "50Mi",
    "nodefs.available": "5%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "5%",
    "pid.available": "5%",
  },
  // Manifests are also watched by inotify; this is the net below it.
  fileCheckFrequency: "20s",
  logging: { format: "text", verbosity: 1 },
})
