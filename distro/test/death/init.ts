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
import * as EtcOverlay from "@kios/stages-mount/EtcOverlay"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as CommandLine from "@kios/stages-runtime/CommandLine"
import * as KernelModules from "@kios/stages-runtime/KernelModules"
import * as PersistentStore from "@kios/stages-runtime/PersistentStore"
import * as Previous from "@kios/stages-runtime/PreviousBoot"
import * as Watchdog from "@kios/stages-runtime/Watchdog"
import { type Fatal, fatal, type Survived, survived } from "./faults.ts"
import * as modules from "./modules.ts"

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
  const module = {
    exports: {} as { load: (path: null) => { func: (prototype: string) => (n: number) => number } },
  }
  process.dlopen(module, koffiPath)
  module.exports.load(null).func("size_t strlen(size_t at)")(8)
}

class Broken extends Data.TaggedError("Broken")<{ readonly message: string }> {}

const block = (): void => {
  for (;;);
}

/** What a stage or afterBoot can not wait for comes from a callback. */
const later = (body: () => void) => Effect.sync(() => void setImmediate(body))

const faults: Record<Survived | Fatal, Effect.Effect<unknown>> = {
  "uncaught-throw": later(() => {
    throw new Error("thrown in a callback")
  }),
  "rejected-promise": later(() => void Promise.reject(new Error("rejected in a callback"))),
  "fiber-defect": Effect.forkDetach(Effect.die(new Error("died in a fiber"))),
  "empty-event-loop": Effect.callback((done) => {
    letGo()
    process.once("beforeExit", () => done(Effect.void))
  }),
  exit: later(() => process.exit(7)),
  "heap-exhaustion": later(() => {
    const kept: Array<unknown> = []
    // oxlint-disable-next-line unicorn/no-new-array -- its memory is reserved at once: the heap is full in a moment
    for (;;) kept.push(new Array(2_000_000))
  }),
  "segmentation-fault": later(crash),
  abort: later(() => process.abort()),
  // Its stage does it.
  "boot-failure": Effect.void,
  "blocked-loop": later(block),
  "blocked-loop-soft": later(block),
}

// Where the machine remembers how many of its deaths it has behind it; the first boot has none.
const BEHIND = "/var/log/deaths"

const behind = Effect.gen(function* () {
  const kernel = yield* Kernel
  return yield* Effect.match(kernel.readText(BEHIND), { onFailure: () => undefined, onSuccess: Number })
})

const tell = (name: Survived | Fatal) =>
  Kmsg.use((kmsg) => kmsg.write("notice", `milestone fault name=${name}`))

const remember = (count: number) =>
  Kernel.use((kernel) => Effect.andThen(kernel.writeFile(BEHIND, String(count)), kernel.sync))

const failing = Stage.make({
  name: "failing",
  description: "the stage that fails when it is its turn",
  requires: [DataPartition],
  // The others are up by then.
  wants: [PreviousBoot, WatchdogTimer],
  layer: Layer.effectDiscard(
    Effect.gen(function* () {
      const count = yield* behind
      if (count === undefined || fatal[count] !== "boot-failure") return
      yield* remember(count + 1)
      yield* tell("boot-failure")
      return yield* new Broken({ message: "the disk of this test is on fire" })
    }),
  ),
})

const { boot, node } = KernelModules.stages({ boot: modules.boot, node: [] })

const pipeline = Pipeline.make([
  RootSwitch.stage,
  PseudoFilesystems.stage,
  CommandLine.stage,
  EphemeralFilesystems.stage,
  boot,
  Mount.stage,
  PersistentStore.stage,
  Previous.stage,
  EtcOverlay.stage,
  node,
  Watchdog.stage,
  failing,
])

const modprobeConfig = (text: string) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    yield* kernel.makeDirectory("/etc/modprobe.d")
    yield* kernel.writeFile("/etc/modprobe.d/test.conf", text)
  })

/** Init is told to stop, as somebody at the machine would. */
const stop = (signal: NodeJS.Signals) => Effect.sync(() => void process.kill(process.pid, signal))

const afterBoot = Effect.gen(function* () {
  const count = yield* behind
  if (count === undefined) {
    yield* remember(0)
    for (const name of survived) {
      yield* tell(name)
      yield* faults[name]
      yield* Effect.sleep("300 millis")
    }
    return yield* stop("SIGINT")
  }
  const name = fatal[count]
  if (name === undefined) {
    yield* Kmsg.use((kmsg) => kmsg.write("notice", "milestone faults-done"))
    return yield* stop("SIGTERM")
  }
  // That boot is to find no driver for the watchdog, those after it are: /etc is on the data partition.
  if (fatal[count + 1] === "blocked-loop-soft") yield* modprobeConfig("blacklist i6300esb\n")
  if (name === "blocked-loop-soft") yield* modprobeConfig("")
  yield* remember(count + 1)
  yield* tell(name)
  yield* faults[name]
  return yield* Effect.never
})

Init.start({ pipeline, koffiPath, afterBoot })
