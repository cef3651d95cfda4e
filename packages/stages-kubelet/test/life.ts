// A kubelet on a machine in memory that does as its kubeconfigs say.
import { Effect, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Liveness from "@kios/core/Liveness"
import * as Readiness from "@kios/core/Readiness"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { forever, type Program } from "@kios/core/testing/TestPrograms"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as Kubelet from "@kios/stages-kubelet/Kubelet"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import { ready } from "./ready.ts"

/** A kubeconfig as kubectl writes it. */
export const kubeconfig = (server = "https://10.0.0.1:6443", user = "token: abc") =>
  [
    "apiVersion: v1",
    "clusters:",
    "- cluster:",
    "    certificate-authority-data: QUJDRA==",
    `    server: ${server}`,
    "  name: c",
    "contexts:",
    "- context:",
    "    cluster: c",
    "    user: u",
    "  name: x",
    "current-context: x",
    "kind: Config",
    "users:",
    "- name: u",
    "  user:",
    `    ${user}`,
    "",
  ].join("\n")

export const OWN = "/etc/kubernetes/kubelet.conf"
export const BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
// Longer than a file is given to be written to the end.
export const SETTLED = "7 seconds"

/** A node with these files whose kubelet was started. */
export const node = (
  options: {
    readonly files?: TestMachine.TestMachineOptions["files"]
    readonly program?: Program
    /** It never gets ready. */
    readonly unready?: boolean
    readonly prepare?: (machine: TestMachine.TestMachine) => void
  } = {},
) =>
  Effect.gen(function* () {
    const machine = TestMachine.make({
      programs: { "/bin/kubelet": options.program ?? forever },
      files: {
        "/proc/": "",
        "/cg/kubelet/cgroup.procs": "",
        "/run/kios/log/": "",
        "/var/lib/": "",
        "/etc/kubernetes/": "",
        "/etc/hostname": "node-7\n",
        ...options.files,
      },
    })
    yield* machine.kernel.mount({ source: "proc", target: "/proc", fstype: "proc", flags: [] })
    options.prepare?.(machine)
    const named = Effect.sync(() => machine.read("/etc/hostname").trim())
    const layer = Kubelet.make({
      readiness: options.unready === true ? Readiness.make("nothing", Effect.never) : Readiness.immediate,
      liveness: Liveness.make("nothing", Effect.void),
    }).layer.pipe(
      Layer.provide(KubeletConfigFile.make({ containerRuntimeEndpoint: "unix:///run/x.sock" }).layer),
      Layer.provide(Layer.succeed(Hostname, { name: "node-7", refresh: named })),
      Layer.provide(ready),
      Layer.provide(TestMachine.platform(machine)),
    )
    const scope = yield* Scope.make()
    const built = yield* Layer.build(layer).pipe(Scope.provide(scope), Effect.forkChild)
    yield* TestClock.adjust(0)
    return {
      machine,
      scope,
      up: Fiber.join(built),
      /** The flags of each start that are about a cluster. */
      starts: () =>
        machine.calls
          .filter(({ errno, operation }) => operation === "spawn" && errno === undefined)
          .map(({ text }) =>
            Array.from(text.matchAll(/"--(kubeconfig|bootstrap-kubeconfig)=/gu), ([, flag]) => flag).join(
              " ",
            ),
          ),
      /** What was told of files, as `file: reason`. */
      told: () => machine.kmsg.filter((line) => /\/etc\/kubernetes\/[^ ]+: /u.test(line)),
      write: (files: Parameters<TestMachine.TestMachine["write"]>[0]) =>
        Effect.andThen(
          Effect.sync(() => machine.write(files)),
          TestClock.adjust(SETTLED),
        ),
      remove: (path: string) => Effect.andThen(machine.kernel.unlink(path), TestClock.adjust(SETTLED)),
      config: (name = "config.json") =>
        JSON.parse(machine.read(`/run/kios/kubelet/${name}`)) as Record<string, unknown>,
    }
  })
