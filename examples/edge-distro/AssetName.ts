/**
 * A stage in the place of kiOS's `hostname`: a machine is called after the
 * serial number that its maker gave it, so that nobody has to name it.
 */
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Hostname } from "@kios/core/capabilities/Hostname"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

// Documentation/ABI/testing/sysfs-firmware-dmi-tables; not every machine has one.
const SERIAL = "/sys/class/dmi/id/product_serial"

/** A serial number as a host name (RFC 1123), or undefined when nothing of it is left. */
export const nameOf = (serial: string): string | undefined => {
  const name = serial
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/gu, "-")
    .slice(0, 63)
    .replaceAll(/^-|-$/gu, "")
  return name === "" ? undefined : name
}

/**
 * The stage: `kios.hostname=` on the kernel command line, else the serial
 * number, else `edge`. It reads nothing of /etc and so does not wait for it,
 * as the stage that it replaces does.
 */
export const stage = Stage.make({
  name: "asset-name",
  description: "the host name, after the machine's serial number",
  requires: [PseudoFilesystems, Cmdline],
  provides: [Hostname],
  layer: Layer.effect(
    Hostname,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const { values } = yield* Cmdline
      const serial = yield* kernel.readText(SERIAL).pipe(
        Effect.catchIf(
          (error) => error.errno === "ENOENT",
          () => Effect.succeed(""),
        ),
      )
      const name = values.hostname ?? nameOf(serial) ?? "edge"
      yield* kernel.setHostname(name)
      return { name }
    }),
  ),
})
