// What is there before the kubelet is, for tests.
import { Effect, Layer } from "effect"
import type { Supervised } from "@kios/core/Supervisor"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Etc } from "@kios/core/capabilities/Etc"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Images } from "@kios/core/capabilities/Images"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"

export { Cgroups, ContainerRuntime, EphemeralFilesystems, Etc, Hostname, Images, Loopback, Modules, Sysctls }

const MiB = 1024 * 1024

/** All of it. */
export const ready = Layer.mergeAll(
  Layer.succeed(Cgroups, {
    root: "/cg",
    controllers: [],
    init: "/cg/init",
    runtime: "/cg/runtime",
    kubelet: "/cg/kubelet",
    memoryMin: { init: 48 * MiB, runtime: 144 * MiB, kubelet: 64 * MiB },
  }),
  Layer.succeed(ContainerRuntime, {
    endpoint: "unix:///run/x.sock",
    process: { awaitUp: () => Effect.void } as Partial<Supervised> as Supervised,
  }),
  Layer.succeed(EphemeralFilesystems, { mounted: [] }),
  Layer.succeed(Etc, { persistent: false }),
  Layer.succeed(Hostname, { name: "node-7" }),
  Layer.succeed(Images, { names: [] }),
  Layer.succeed(Loopback, { interface: "lo" }),
  Layer.succeed(Modules, { loaded: [] }),
  Layer.succeed(Sysctls, { missing: [] }),
)
