/**
 * The machine's identity, machine-id(5).
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Etc } from "@kios/core/capabilities/Etc"
import { MachineId } from "@kios/core/capabilities/MachineId"

const PATH = "/etc/machine-id"

/**
 * The stage: keeps what /etc/machine-id says and writes a random one where
 * there is none. With a data partition it stays the same for ever, without one
 * it is new at every boot.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { MachineId } from "@kios/core/capabilities/MachineId"
 *
 * const who = MachineId.use(({ id }) => Effect.succeed(id))
 * ```
 */
export const stage = Stage.make({
  name: "machine-id",
  description: "the machine's identity",
  criticality: "optional",
  requires: [Etc],
  provides: [MachineId],
  tolerates: [
    {
      operation: "readText",
      path: /^\/etc\/machine-id$/u,
      errno: ["ENOENT"],
      because: "the first boot",
      silent: true,
    },
    { operation: "readText", path: /^\/etc\/machine-id$/u, because: "a new one is made" },
  ],
  layer: Layer.effect(
    MachineId,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const kept = (yield* Effect.catch(kernel.readText(PATH), (error) =>
        Effect.as(
          error.errno === "ENOENT"
            ? Effect.void
            : Effect.logWarning(`${error.message}: writing a new machine id`),
          "",
        ),
      )).trim()
      if (/^[0-9a-f]{32}$/u.test(kept)) return { id: kept }
      if (kept !== "" && kept !== "uninitialized")
        yield* Effect.logWarning(`${PATH} held no machine id, writing a new one`)
      // The kernel's own generator, so that no cryptography has to be loaded for it.
      const id = (yield* kernel.readText("/proc/sys/kernel/random/uuid")).trim().replaceAll("-", "")
      yield* kernel.writeFile(PATH, `${id}\n`, 0o444)
      return { id }
    }),
  ),
})
