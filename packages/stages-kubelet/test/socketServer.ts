// Both sockets as init has them, in a process of its own; started by sockets.kernel.test.ts, which asks by lines.
import { Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as readline from "node:readline"
import { BootReport } from "@kios/core/BootReport"
import { Events } from "@kios/core/Events"
import { make } from "@kios/core/internal/ShutdownCoordinator"
import { Kmsg } from "@kios/core/Kmsg"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"
import { Shutdown } from "@kios/core/Shutdown"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Logind } from "@kios/core/capabilities/Logind"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { SystemSocket } from "@kios/core/capabilities/SystemSocket"
import * as LogindStage from "@kios/stages-kubelet/Logind"
import * as SystemSocketStage from "@kios/stages-kubelet/SystemSocket"

const restarts = { kubelet: 0, runtime: 0 }
let requests = 0
let longest = { wall: 0, own: 0 }
let turned = performance.now()
let used = process.threadCpuUsage()
// How long the loop was held, by the clock and by this thread's own work: on a busy machine others hold it too.
setInterval(() => {
  const [now, cpu] = [performance.now(), process.threadCpuUsage()]
  const own = (cpu.user + cpu.system - used.user - used.system) / 1000
  longest = { wall: Math.max(longest.wall, now - turned), own: Math.max(longest.own, own) }
  turned = now
  used = cpu
}, 1)

const main = Effect.gen(function* () {
  const tell = (value: object) => void fs.writeSync(1, `${JSON.stringify(value)}\n`)
  const platform = yield* Layer.build(
    BootReport.layer.pipe(
      Layer.provideMerge(Events.layer),
      Layer.provideMerge(Layer.merge(LinuxKernel.layer(), Kmsg.layerArray([]))),
    ),
  )
  const { drive, shutdown } = yield* Effect.provideContext(make, platform)
  yield* Effect.forkScoped(drive({ reboot: () => Effect.sync(() => tell({ down: true })) }), {
    startImmediately: true,
  })
  const counted = {
    ...shutdown,
    // Not asked in truth, so that it can be asked again and again.
    request: () =>
      Effect.sync(() => {
        requests++
      }),
  }
  const services = yield* Layer.build(
    Layer.mergeAll(LogindStage.stage.layer, SystemSocketStage.stage.layer).pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Layer.succeedContext(platform),
          Layer.succeed(Shutdown, counted),
          Layer.succeed(EphemeralFilesystems, { mounted: [] }),
          Layer.succeed(PseudoFilesystems, { mounted: [] }),
        ),
      ),
    ),
  )
  const { inhibitors } = yield* Effect.provide(Logind, services)
  const { restartable } = yield* Effect.provide(SystemSocket, services)
  for (const what of ["kubelet", "runtime"] as const)
    yield* restartable(what, {
      restart: Effect.sync(() => void restarts[what]++),
      state: Effect.succeed({ _tag: "Up", pid: Number(process.argv[2]) }),
    })
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    if (line === "steps") return void Effect.runPromise(shutdown.request({ action: "HALT", by: "a test" }))
    tell({
      longest,
      requests,
      restarts,
      inhibitors: Effect.runSync(inhibitors).length,
      descriptors: fs.readdirSync("/proc/self/fd").length,
      rss: process.memoryUsage.rss(),
    })
    longest = { wall: 0, own: 0 }
  })
  tell({ up: true })
  return yield* Effect.never
})
void Effect.runPromise(Effect.scoped(main))
