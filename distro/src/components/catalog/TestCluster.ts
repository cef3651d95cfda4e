import { Array, Effect } from "effect"
import * as path from "node:path"
import * as Component from "../Component.ts"
import * as GoModule from "../sources/GoModule.ts"
import { goPin, KUBERNETES, kubernetesLdflags } from "./Kubernetes.ts"
import { type CatalogPart, componentsDirectory } from "./Recipe.ts"

const CNI_PLUGINS = "1.10.0"

/** What of Kubernetes makes a cluster that a node can join, with the client. */
const programs = [
  "k8s.io/kubernetes/cmd/kube-apiserver",
  "k8s.io/kubernetes/cmd/kube-controller-manager",
  "k8s.io/kubernetes/cmd/kube-scheduler",
  "k8s.io/kubernetes/cmd/kubectl",
] as const

/** The CNI plugins by which pods of the tests get addresses. */
const plugins = [
  "github.com/containernetworking/plugins/plugins/main/bridge",
  "github.com/containernetworking/plugins/plugins/main/loopback",
  "github.com/containernetworking/plugins/plugins/ipam/host-local",
  "github.com/containernetworking/plugins/plugins/meta/portmap",
] as const

const inBin = (packages: Array.NonEmptyReadonlyArray<string>) =>
  Array.map(packages, (name) => `bin/${path.posix.basename(name)}`)

/**
 * The cluster that tests let a node join, and a CNI for it. No image has any of
 * this: it is not in the catalog of the distro, and is built when a test asks
 * for it. Kubernetes has a go.mod of its own, so that what a cluster's programs
 * need decides nothing about the kubelet in the image.
 */
export const testCluster: CatalogPart<"etcd" | "kubernetes" | "cni-plugins"> = (debian) =>
  Effect.gen(function* () {
    const toolchain = yield* goPin(debian)
    return {
      etcd: Component.make({
        name: "etcd",
        version: (yield* debian.pin("etcd-server")).version,
        license: "Apache-2.0",
        arch: "x86_64",
        provides: ["bin/etcd"],
        sources: [yield* debian.source({ "etcd-server": [{ from: "usr/bin/etcd", to: "bin/etcd" }] })],
      }),
      kubernetes: Component.make({
        name: "kubernetes",
        version: KUBERNETES.slice(1),
        license: "Apache-2.0",
        arch: "x86_64",
        provides: inBin(programs),
        sources: [
          GoModule.source({
            directory: path.join(componentsDirectory, "cluster"),
            toolchain,
            packages: programs,
            to: "bin",
            ldflags: kubernetesLdflags,
          }),
        ],
      }),
      "cni-plugins": Component.make({
        name: "cni-plugins",
        version: CNI_PLUGINS,
        license: "Apache-2.0",
        arch: "x86_64",
        provides: inBin(plugins),
        sources: [
          GoModule.source({
            directory: path.join(componentsDirectory, "cni"),
            toolchain,
            packages: plugins,
            to: "bin",
            ldflags: ["-s", "-w"],
          }),
        ],
      }),
    }
  })
