/**
 * PID 1 of the machine that dies: the reference distro's stages as far as they
 * have to do with it, and one death of {@link faults} in each boot.
 */
import { Data, Effect, Layer } from "effect"
import * as Init from "@kios/core/Init"
import { Kernel } from "@kios/core/Kernel"
import { Kmsg } from "@kios/core/Kmsg"
import * as Pipeline from "@kios/core/Pipeline"
import * as Stage from "@kios/core/Stage"
import { DataPartition } from "@kios/core/capabilities/DataPartition"
import { PreviousBoot } from "@kios/core/capabilities/PreviousBoot"
import { WatchdogTimer } from "@kios/core/capabilities/WatchdogTimer"
import * as Mount from "@kios/stages-mount/DataPartition"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Previous from "@kios/stages-runtime/PreviousBoot"
import * as Watchdog from "@kios/stages-runtime/Watchdog"
import { type Fault, faults, NEXT } from "./faults.ts"
import { modules } from "./modules.ts"

const koffiPath = "/lib/kios/koffi.node"

// What holds the loop, so that a test can let go of it.
const holding: Array<NodeJS.Timeout> = []
const { setInterval: realInterval, setTimeout: realTimeout } = globalThis
globalThis.setInterval = ((...args: Parameters<typeof realInterval>) => {
  const timer = realInterval(...args)
  holding.push(timer)
  return timer
}) as typeof setInterval

/** From now on no timer holds the loop. */
const letGo = (): void => {
  for (const timer of holding) timer.unref()
  globalThis.setInterval = realInterval
  globalThis.setTimeout = ((...args: Parameters<typeof realTimeout>) =>
    realTimeout(...args).unref()) as typeof setTimeout
}

/** Calls a function of libc's with an address that is nobody's. */
const crash = (): void => {
  const module = { exports: {} as { load: (path: null) => { func: (prototype: string) => (n: number) => number } } }
  process.dlopen(module, koffiPath)
  module.exports.load(null).func("size_t strlen(size_t at)")(8)
}

class Broken extends Data.TaggedError("Broken")<{ readonly message: string }> {}

/** What a stage or afterBoot can not wait for comes from a callback. */
const later = (body: () => void) => Effect.sync(() => void setImmediate(body))

const die: Record<Fault, Effect.Effect<unknown>> = {
  "uncaught-throw": later(() => {
    throw new Error("thrown in a callback")
  }),
  "rejected-promise": later(() => void Promise.reject(new Error("rejected in a callback"))),
  "fiber-defect": Effect.forkDetach(Effect.die(new Error("died in a fiber"))),
  "empty-event-loop": Effect.sync(letGo),
  exit: later(() => process.exit(7)),
  "heap-exhaustion": later(() => {
    const kept: Array<unknown> = []
    for (;;) kept.push(Array.from({ length: 1000 }, (_, n) => ({ n })))
  }),
  "segmentation-fault": later(crash),
  abort: later(() => process.abort()),
  // Done by the stage.
  "boot-failure": Effect.void,
  "blocked-loop": later(() => {
    for (;;);
  }),
}

/** After these init goes on: the machine is asked to restart. */
const survived: ReadonlyArray<Fault> = [
  "uncaught-throw",
  "rejected-promise",
  "fiber-defect",
  "empty-event-loop",
]

const next = Effect.gen(function* () {
  const kernel = yield* Kernel
  const text = yield* Effect.orElseSucceed(kernel.readText(NEXT), () => "0")
  return { index: Number(text), fault: faults[Number(text)] }
})

const announce = (fault: Fault, index: number) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const kmsg = yield* Kmsg
    yield* kernel.writeFile(NEXT, String(index + 1))
    yield* kernel.sync
    yield* kmsg.write("notice", `milestone fault name=${fault}`)
  })

const failing = Stage.make({
  name: "failing",
  description: "the stage that fails when it is its turn",
  requires: [DataPartition],
  // The others are up by then.
  wants: [PreviousBoot, WatchdogTimer],
  layer: Layer.effectDiscard(
    Effect.gen(function* () {
      const { fault, index } = yield* next
      if (fault !== "boot-failure") return
      yield* announce(fault, index)
      return yield* new Broken({ message: "the disk of this test is on fire" })
    }),
  ),
})

const { boot, node } = KernelModules.stages({ boot: modules.boot, node: modules.node })

const pipeline = Pipeline.make([
  RootSwitch.stage,
  PseudoFilesystems.stage,
  CommandLine.stage,
  EphemeralFilesystems.stage,
  boot,
  Mount.stage,
  PersistentStore.stage,
  Previous.stage,
  node,
  Watchdog.stage,
  failing,
])

const afterBoot = Effect.gen(function* () {
  const { fault, index } = yield* next
  if (fault === undefined) {
    const kmsg = yield* Kmsg
    yield* kmsg.write("notice", "milestone faults-done")
    return process.kill(process.pid, "SIGTERM")
  }
  yield* announce(fault, index)
  yield* die[fault]
  if (!survived.includes(fault)) return yield* Effect.never
  // Unlike the others this one comes in its own time.
  yield* Effect.sleep(fault === "empty-event-loop" ? "5 seconds" : "500 millis")
  return process.kill(process.pid, "SIGINT")
})

Init.start({ pipeline, koffiPath, afterBoot })
