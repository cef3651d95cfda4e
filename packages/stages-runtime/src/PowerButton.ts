/**
 * The power button: ACPI's, as an input device. The driver (`button`, and
 * `evdev` for its device file) is loaded because the machine has one; a button
 * that appears later is found within seconds. Documentation/input/event-codes.rst
 * of the kernel; drivers/acpi/button.c has the names.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { Kernel } from "@kios/core/Kernel"
import type { KernelError } from "@kios/core/KernelError"
import { Shutdown, type ShutdownAction } from "@kios/core/Shutdown"
import * as Stage from "@kios/core/Stage"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

const EV_KEY = 1
const KEY_POWER = 116
const PRESSED = 1
const NAME = "Power Button"
const DIRECTORY = "/sys/class/input"
const LOOK_EVERY = "10 seconds"

const tellUnless = (errnos: ReadonlyArray<string>) => (error: KernelError) =>
  errnos.includes(error.errno) ? Effect.void : Effect.logWarning(error.message)

/** Hears the power buttons that are there and were not yet. */
const look = (heard: Set<string>, press: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const context = yield* Effect.context<never>()
    // No directory, no devices.
    const names = yield* Effect.catch(kernel.readDirectory(DIRECTORY), (error) =>
      Effect.as(tellUnless(["ENOENT"])(error), [] as ReadonlyArray<string>),
    )
    for (const node of heard) if (!names.includes(node)) heard.delete(node)
    for (const node of names) {
      if (!/^event\d+$/u.test(node) || heard.has(node)) continue
      // It may be gone by now.
      const name = yield* Effect.orElseSucceed(kernel.readText(`${DIRECTORY}/${node}/device/name`), () => "")
      if (name.trim() !== NAME) continue
      yield* kernel
        .watchInput(`/dev/input/${node}`, ({ code, type, value }) => {
          // KEY_SLEEP and the like are for machines that somebody sits at.
          if (type === EV_KEY && code === KEY_POWER && value === PRESSED) Effect.runForkWith(context)(press)
        })
        .pipe(
          Effect.andThen(Effect.sync(() => void heard.add(node))),
          Effect.catch((error) => Effect.logWarning(`the power button is not heard: ${error.message}`)),
        )
    }
  })

/**
 * The stage. It is up whether there is a button or not.
 *
 * @param action what pressing it asks for
 *
 * @example
 * ```ts
 * import * as PowerButton from "@kios/stages-runtime/PowerButton"
 *
 * const rebooting = PowerButton.make("RESTART")
 * ```
 */
export const make = (action: ShutdownAction) =>
  Stage.make({
    name: "power-button",
    description: "hear the power button",
    criticality: "optional",
    // The drivers are among the node's modules.
    requires: [PseudoFilesystems, Modules],
    tolerates: [
      {
        operation: "readDirectory",
        errno: ["ENOENT"],
        because: "the machine has no input devices",
        silent: true,
      },
      { operation: "readDirectory", because: "it is tried again" },
      { operation: "readText", path: /\/device\/name$/u, because: "the device is gone", silent: true },
      { operation: "watchInput", because: "it is tried again, and there are other ways to go down" },
    ],
    layer: Layer.effectDiscard(
      Effect.gen(function* () {
        const shutdown = yield* Shutdown
        const heard = new Set<string>()
        const once = look(heard, shutdown.request({ action, by: "power button" }))
        yield* once
        yield* Effect.forkScoped(Effect.schedule(once, Schedule.spaced(LOOK_EVERY)))
      }),
    ),
  })

/**
 * The stage of the reference distro: the button powers the machine off, in order.
 *
 * @example
 * ```ts
 * import * as PowerButton from "@kios/stages-runtime/PowerButton"
 *
 * console.log(PowerButton.stage.description)
 * ```
 */
export const stage = make("POWER_OFF")
