/**
 * The loopback interface.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Loopback } from "@kios/core/capabilities/Loopback"

/**
 * The stage: sets `lo` up; the kernel gives it 127.0.0.1 and ::1 by itself.
 * Without it the kubelet's health endpoint answers nobody.
 *
 * @example
 * ```ts
 * import * as Loopback from "@kios/stages-runtime/Loopback"
 *
 * console.log(Loopback.stage.description)
 * ```
 */
export const stage = Stage.make({
  name: "loopback",
  description: "the loopback interface",
  provides: [Loopback],
  layer: Layer.effect(
    Loopback,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      yield* kernel.linkUp("lo")
      return { interface: "lo" }
    }),
  ),
})
