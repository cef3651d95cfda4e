/**
 * The kubelet's configuration: of a node without an API server, and of one in
 * a cluster.
 *
 * The kubelet merges it with what the node's owner has written (`--config-dir`):
 * {@link base} below that, {@link fixed} above.
 *
 * JSON is YAML, so that init needs no YAML writer; names are those of
 * KubeletConfiguration (kubelet.config.k8s.io/v1beta1).
 */

import type { Mode } from "./Membership.ts"
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
  /** The authorities whose client certificates are let in, once there is a cluster; without it, none are. */
  readonly clientCAFile?: string
  /** What is kept away from pods; without it, nothing is. */
  readonly reservations?: Reservations
}

type FixedOptions = Pick<KubeletConfigOptions, "containerRuntimeEndpoint" | "staticPodPath">

/**
 * What makes a file a KubeletConfiguration.
 *
 * @example
 * ```ts
 * import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
 *
 * const mine = JSON.stringify({ ...KubeletConfig.header, maxPods: 50 })
 * ```
 */
export const header = { apiVersion: "kubelet.config.k8s.io/v1beta1", kind: "KubeletConfiguration" }

/**
 * What holds unless the node's owner says otherwise.
 *
 * In a cluster the kubelet asks the API server who somebody is and what they
 * may do (webhooks), and knows the clients that the cluster's authority has
 * signed; its own certificates are the cluster's, and are renewed. Until the
 * cluster has signed a serving certificate it serves its own.
 *
 * @example
 * ```ts
 * import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
 *
 * const config = KubeletConfig.base({ _tag: "Standalone" }, {
 *   tlsCertFile: "/run/kios/kubelet.crt",
 *   tlsPrivateKeyFile: "/run/kios/kubelet.key",
 * })
 * ```
 */
export const base = (
  mode: Mode,
  {
    clientCAFile,
    reservations,
    tlsCertFile,
    tlsPrivateKeyFile,
  }: Omit<KubeletConfigOptions, keyof FixedOptions>,
) => ({
  ...header,
  tlsCertFile,
  tlsPrivateKeyFile,
  ...reservations,
  ...(mode._tag === "Standalone"
    ? {}
    : {
        authentication: {
          anonymous: { enabled: false },
          webhook: { enabled: true },
          ...(clientCAFile === undefined ? {} : { x509: { clientCAFile } }),
        },
        authorization: { mode: "Webhook" },
        rotateCertificates: true,
        serverTLSBootstrap: true,
        address: "0.0.0.0",
      }),
  // What speaks to a kubelet is written in Go, or a browser of today: nobody needs 1.2.
  tlsMinVersion: "VersionTLS13",
  readOnlyPort: 0,
  // It sets its own: below any pod's (a Guaranteed one has -997), so that pods are killed first.
  oomScoreAdj: -999,
  failSwapOn: false,
  resolvConf: "/etc/resolv.conf",
  // iptables is not on the host; a CNI that wants its chains brings them.
  makeIPTablesUtilChains: false,
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
  // Of this time, what is critical to the node gets the last part. Init waits as long as the kubelet does.
  shutdownGracePeriod: "30s",
  shutdownGracePeriodCriticalPods: "10s",
  logging: { format: "text", verbosity: 1 },
})

/**
 * What the node's owner cannot change, because kiOS would not work any more or
 * not be what it promises; null takes away what they have written.
 *
 * A standalone node lets nobody in: it has no one to ask, so whoever
 * authenticates may do everything. Its port is for the node itself.
 *
 * @example
 * ```ts
 * import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
 *
 * const options = { containerRuntimeEndpoint: "unix:///run/x.sock", staticPodPath: "/m" }
 * const keys = Object.keys(KubeletConfig.fixed({ _tag: "Cluster", bootstrap: false }, options))
 * ```
 */
export const fixed = (mode: Mode, { containerRuntimeEndpoint, staticPodPath }: FixedOptions) => ({
  ...header,
  // The runtime that init supervises, and the pods that make the node.
  containerRuntimeEndpoint,
  imageServiceEndpoint: null,
  staticPodPath,
  // Where init asks whether the kubelet works.
  healthzBindAddress: "127.0.0.1",
  healthzPort: 10248,
  // The groups that init has made, beside which pods are.
  cgroupDriver: "cgroupfs",
  cgroupRoot: "/",
  cgroupsPerQOS: true,
  kubeletCgroups: null,
  systemCgroups: null,
  // On /kubepods only. On /kios it would set memory.max: the node's own daemons would be killed.
  enforceNodeAllocatable: ["pods"],
  kubeReservedCgroup: null,
  systemReservedCgroup: null,
  // An executable there would be run by the kubelet: the directory is in the read-only image.
  volumePluginDir: "/lib/kios/volume-plugins",
  ...(mode._tag === "Cluster"
    ? {}
    : {
        address: "127.0.0.1",
        authentication: {
          anonymous: { enabled: false },
          webhook: { enabled: false },
          x509: { clientCAFile: null },
        },
        authorization: { mode: "AlwaysAllow" },
        readOnlyPort: 0,
        rotateCertificates: false,
        serverTLSBootstrap: false,
      }),
})
