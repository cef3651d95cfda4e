import { Effect } from "effect"
import * as path from "node:path"
import * as Component from "../Component.ts"
import * as CProgram from "../sources/CProgram.ts"
import * as GoModule from "../sources/GoModule.ts"
import { type CatalogPart, componentsDirectory, type DebianRecipes } from "./Recipe.ts"

/** Of the kubelet, and of the API server that tests join. */
export const KUBERNETES = "v1.36.3"
const CONTAINERD = "v2.4.2"
const RUNC = "1.5.2"
const PAUSE = "3.10.2"

/** The toolchain of everything that is written in Go. */
const GO = "go1.26.8"

const directory = (name: string) => path.join(componentsDirectory, name)

const stamp = "k8s.io/component-base/version"

/** What every program of Kubernetes is linked with: its version. */
export const kubernetesLdflags: ReadonlyArray<string> = [
  "-s",
  "-w",
  `-X ${stamp}.gitVersion=${KUBERNETES}`,
  `-X ${stamp}.gitMajor=${KUBERNETES.slice(1).split(".")[0]}`,
  `-X ${stamp}.gitMinor=${KUBERNETES.slice(1).split(".")[1]}`,
  `-X ${stamp}.gitTreeState=clean`,
]

/** Enough of a Go to fetch and start the pinned toolchain; it compiles nothing itself. */
const goBootstrap = Effect.fnUntraced(function* (debian: DebianRecipes) {
  const go = "usr/lib/go-1.24"
  return Component.make({
    name: "go-bootstrap",
    version: (yield* debian.pin("golang-1.24-go")).version,
    license: "BSD-3-Clause",
    arch: "x86_64",
    provides: ["bin/go"],
    sources: [
      yield* debian.source({
        "golang-1.24-go": [
          { from: `${go}/bin/go`, to: "bin/go" },
          { from: `${go}/VERSION`, to: "VERSION" },
          { from: `${go}/go.env`, to: "go.env" },
          // A directory with tools is how go knows its own root.
          { from: `${go}/pkg/tool/linux_amd64/buildid`, to: "pkg/tool/linux_amd64/buildid" },
        ],
      }),
    ],
  })
})

/** The pinned toolchain. */
export const goPin = (debian: DebianRecipes) =>
  Effect.map(goBootstrap(debian), (bootstrap) => ({ version: GO, bootstrap }))

/** The kubelet, the container runtime and the pause program of pods, built from their modules. */
export const kubernetes: CatalogPart<
  "go-bootstrap" | "containerd" | "runc" | "kubelet" | "pause" | "image-policy"
> = (debian) =>
  Effect.gen(function* () {
    const toolchain = yield* goPin(debian)
    return {
      "go-bootstrap": toolchain.bootstrap,
      containerd: Component.make({
        name: "containerd",
        version: CONTAINERD.slice(1),
        license: "Apache-2.0",
        arch: "x86_64",
        provides: ["bin/containerd", "bin/containerd-shim-runc-v2"],
        sources: [
          GoModule.source({
            directory: directory("containerd"),
            toolchain,
            packages: [
              "github.com/containerd/containerd/v2/cmd/containerd",
              "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            ],
            to: "bin",
            // Off are snapshotters that need other programs or devices, Intel RDT, and OpenTelemetry export.
            // no_systemd would save 8 KB and lose sd_notify(3), by which containerd says that it is ready.
            tags: [
              "osusergo",
              "netgo",
              "static_build",
              "no_btrfs",
              "no_devmapper",
              "no_zfs",
              "no_rdt",
              "no_tracing",
            ],
            ldflags: ["-s", "-w", `-X github.com/containerd/containerd/v2/version.Version=${CONTAINERD}`],
          }),
        ],
      }),
      runc: Component.make({
        name: "runc",
        version: RUNC,
        // libseccomp and glibc are linked in.
        license: "Apache-2.0 AND LGPL-2.1-only AND LGPL-2.1-or-later",
        arch: "x86_64",
        provides: ["bin/runc"],
        sources: [
          GoModule.source({
            directory: directory("runc"),
            toolchain,
            packages: ["github.com/opencontainers/runc"],
            to: "bin",
            tags: ["seccomp", "netgo", "osusergo"],
            ldflags: ["-s", "-w", `-X main.version=${RUNC}`, "-linkmode external", "-extldflags '-static'"],
            cgo: {
              libraries: [{ pkgConfig: "libseccomp", package: "libseccomp-dev", license: "LGPL-2.1-only" }],
            },
          }),
        ],
      }),
      kubelet: Component.make({
        name: "kubelet",
        version: KUBERNETES.slice(1),
        license: "Apache-2.0",
        arch: "x86_64",
        provides: ["bin/kubelet"],
        sources: [
          GoModule.source({
            directory: directory("kubelet"),
            toolchain,
            packages: ["k8s.io/kubernetes/cmd/kubelet"],
            to: "bin",
            ldflags: kubernetesLdflags,
          }),
        ],
      }),
      // Only in images that are built with a policy: see ImagePolicy.ts.
      "image-policy": Component.make({
        name: "image-policy",
        version: "1.0.0",
        license: "Apache-2.0 AND LGPL-2.1-or-later",
        arch: "x86_64",
        provides: ["bin/image-policy"],
        sources: [
          CProgram.source({
            from: { file: path.join(directory("image-policy"), "image-policy.c") },
            sha256: "ec9e08995d17a4e07355adad552038f6bff7216a88a261e370e35e01b5cea237",
            flags: ["-Os", "-Wall", "-Wextra", "-Werror"],
            to: "bin/image-policy",
          }),
        ],
      }),
      pause: Component.make({
        name: "pause",
        version: PAUSE,
        license: "Apache-2.0 AND LGPL-2.1-or-later",
        arch: "x86_64",
        provides: ["pause"],
        sources: [
          CProgram.source({
            from: {
              module: "k8s.io/kubernetes",
              file: "build/pause/linux/pause.c",
              directory: directory("kubelet"),
              toolchain,
            },
            sha256: "14a3fe21ab5f8e62937a2b453e76f3b94b0d3c7c04c3d09bc37195f54c1695ea",
            flags: ["-Os", "-Wall", "-Werror", `-DVERSION=v${PAUSE}`],
            to: "pause",
          }),
        ],
      }),
    }
  })
