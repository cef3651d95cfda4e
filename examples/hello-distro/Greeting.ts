/**
 * A stage of one's own: once the kubelet is up, say on the console which
 * machine this is.
 */
import { BootReport } from "@kios/core/BootReport"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { Kubelet } from "@kios/core/capabilities/Kubelet"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** What the machine's firmware calls it. */
export class Machine extends Context.Service<Machine, { readonly product: string }>()("hello/Machine") {}

// Documentation/ABI/testing/sysfs-firmware-dmi-tables; not every machine has one.
const PRODUCT = "/sys/class/dmi/id/product_name"

/**
 * The stage: provides {@link Machine} and tells the milestone `hello`, which
 * `kios run --until milestone=hello` waits for. A machine without a product
 * name is "unknown"; any other failure is the stage's.
 */
export const stage = Stage.make({
  name: "greeting",
  description: "say which machine this is",
  criticality: "optional",
  requires: [Hostname, Kubelet],
  provides: [Machine],
  layer: Layer.effect(
    Machine,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const report = yield* BootReport
      const { name } = yield* Hostname
      const product = yield* kernel.readText(PRODUCT).pipe(
        Effect.map((text) => text.trim()),
        Effect.catchIf(
          (error) => error.errno === "ENOENT",
          () => Effect.succeed("unknown"),
        ),
      )
      yield* report.milestone("hello", { node: name, product })
      return { product }
    }),
  ),
})
