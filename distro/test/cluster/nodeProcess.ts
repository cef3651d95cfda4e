// What init does for the kubelet, on Linux and without a machine: started by kubelet.kernel.test.ts in namespaces of
// its own, with a containerd beside it. It is asked by lines of JSON, and answers each with one.
import { Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as readline from "node:readline"
import { BootReport } from "@kios/core/BootReport"
import { Cmdline } from "@kios/core/Cmdline"
import { Events } from "@kios/core/Events"
import { Kmsg, loggerLayer } from "@kios/core/Kmsg"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { Shutdown } from "@kios/core/Shutdown"
import { Supervisor, type Supervised } from "@kios/core/Supervisor"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { ContainerRuntime } from "@kios/core/capabilities/ContainerRuntime"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Etc } from "@kios/core/capabilities/Etc"
import { Loopback } from "@kios/core/capabilities/Loopback"
import { Modules } from "@kios/core/capabilities/Modules"
import { Sysctls } from "@kios/core/capabilities/Sysctls"
import { Kubelet } from "@kios/core/capabilities/Kubelet"
import * as KubeletStage from "@kios/stages-kubelet/Kubelet"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import * as Hostname from "@kios/stages-runtime/Hostname"

const SOCKET = "unix:///run/containerd/containerd.sock"
const kmsg: Array<string> = []

const platform = Supervisor.layer.pipe(
  Layer.provideMerge(Shutdown.layer),
  Layer.provideMerge(BootReport.layer),
  Layer.provideMerge(loggerLayer),
  Layer.provideMerge(Events.layer),
  Layer.provideMerge(Layer.merge(LinuxKernel.layer(), Kmsg.layerArray(kmsg))),
)
const before = Layer.mergeAll(
  Layer.succeed(Cmdline, { values: { logLevel: "info", modules: [] }, text: "", problems: [] } as never),
  Layer.succeed(Cgroups, {
    root: "/run/cg",
    controllers: [],
    init: "/run/cg",
    runtime: "/run/cg",
    kubelet: "/run/cg",
    memoryMin: { init: 0, runtime: 0, kubelet: 0 },
  }),
  Layer.succeed(ContainerRuntime, {
    endpoint: SOCKET,
    process: { awaitUp: () => Effect.void } as Partial<Supervised> as Supervised,
  }),
  Layer.succeed(EphemeralFilesystems, { mounted: [] }),
  Layer.succeed(Etc, { persistent: false }),
  Layer.succeed(Loopback, { interface: "lo" }),
  Layer.succeed(Modules, { loaded: [] }),
  Layer.succeed(Sysctls, { missing: [] }),
)
const stages = KubeletStage.stage.layer.pipe(
  Layer.provide(KubeletConfigFile.make({ containerRuntimeEndpoint: SOCKET }).layer),
  Layer.provide(Hostname.stage.layer),
  Layer.provide(before),
  Layer.provideMerge(platform),
)

interface Question {
  /** Files to write, in their order. */
  readonly write?: Readonly<Record<string, string>>
  /** A file or directory to remove. */
  readonly remove?: string
  /** Starts the kubelet again. */
  readonly restart?: boolean
  /** A file to read. */
  readonly read?: string
}

const main = Effect.gen(function* () {
  const { process: kubelet } = yield* Kubelet
  const tell = (value: object) => Effect.sync(() => void fs.writeSync(1, `${JSON.stringify(value)}\n`))
  yield* tell({ up: true })
  for (;;) {
    const { line } = yield* Effect.promise(next)
    if (line === undefined) break
    const { read, remove, restart, write = {} } = JSON.parse(line) as Question
    for (const [file, text] of Object.entries(write)) {
      fs.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true })
      fs.writeFileSync(file, text)
    }
    if (remove !== undefined) fs.rmSync(remove, { recursive: true })
    if (restart === true) yield* kubelet.restart
    const text = read !== undefined && fs.existsSync(read) ? fs.readFileSync(read, "utf8") : null
    yield* tell({ starts: yield* kubelet.starts, state: (yield* kubelet.state)._tag, text, kmsg })
  }
}).pipe(Effect.provide(stages), Effect.scoped)

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const next = async () => {
  const { done, value } = await lines.next()
  return { line: done === true ? undefined : value }
}

Effect.runPromise(main).catch((cause: unknown) => {
  fs.writeSync(2, `${String(cause)}\n${kmsg.join("\n")}\n`)
  process.exit(1)
})
