/**
 * A fault of the emulator that looks like one of the guest.
 *
 * QEMU before 8.1, emulating with a thread for each processor, now and then (in
 * one boot of some hundred) lets one processor run into the breakpoint by
 * which another one is just patching the kernel's code: `int3: 0000`, and the
 * kernel panics. It patches itself as it starts and as cgroups and modules come
 * into use, so a machine that dies of it before its boot is complete is
 * switched on once more; a processor that is no emulation does not do so.
 */
import { Effect, Stream } from "effect"
import type { Accelerator } from "./VmHost.ts"
import type { Console } from "./Console.ts"
import type { Qmp } from "./Qmp.ts"

/** More in a row are no accident. */
const most = 3

interface Watched {
  readonly accelerator: Accelerator
  readonly console: Console
  readonly qmp: Qmp
  /** The machine ends when the guest resets it. */
  readonly noReboot: boolean
}

/** What was mended. */
export interface Mended {
  /** Whether a reset of ours is under way: the panic before it is none of the guest's. */
  readonly recovering: () => boolean
  /** Resets of ours so far. */
  readonly resets: () => number
}

/** Whether a line of the console is the fault's. */
export const isFault = (line: string): boolean => /\bint3: 0000 \[#\d+\]/.test(line)

/** Watches while the scope is open. */
export const mend = Effect.fnUntraced(function* ({ accelerator, console, noReboot, qmp }: Watched) {
  let resets = 0
  let starting = false
  let recovering = false
  const action = (reboot: "reset" | "shutdown") =>
    noReboot ? qmp.execute("set-action", { reboot }) : Effect.void
  const look = Effect.fnUntraced(function* (text: string) {
    if (text.includes("Linux version ")) {
      starting = true
      if (!recovering) return
      recovering = false
      yield* action("shutdown")
    } else if (text.includes("kios: milestone boot-complete")) starting = false
    else if (starting && resets < most && isFault(text)) {
      starting = false
      resets++
      recovering = true
      yield* Effect.logWarning("the emulator broke the guest (int3 during its boot): starting it again")
      yield* action("reset")
      yield* qmp.systemReset
    }
  })
  if (accelerator._tag === "tcg")
    yield* console.lines.pipe(
      Stream.runForEach(({ text }) => look(text)),
      // Its monitor is gone: so is the machine.
      Effect.ignore,
      Effect.forkScoped,
    )
  return { recovering: () => recovering, resets: () => resets } satisfies Mended
})
