/**
 * The kernel command line, read once, with what is wrong in it told.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cmdline from "@kios/core/Cmdline"
import { Kmsg } from "@kios/core/Kmsg"
import * as Stage from "@kios/core/Stage"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"

/**
 * The stage. A key or value that does not fit is a warning on the console; the
 * default is used in its place and the boot goes on.
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Cmdline } from "@kios/core/Cmdline"
 *
 * const where = Cmdline.use(({ values }) => Effect.succeed(values.datapart))
 * ```
 */
export const stage = Stage.make({
  name: "command-line",
  description: "read the kernel command line",
  requires: [PseudoFilesystems],
  provides: [Cmdline.Cmdline],
  layer: Layer.effect(
    Cmdline.Cmdline,
    Effect.gen(function* () {
      const cmdline = yield* Cmdline.read
      const kmsg = yield* Kmsg
      yield* kmsg.logFrom(severities[cmdline.values.logLevel])
      for (const { key, reason, value } of cmdline.problems) {
        yield* Effect.logWarning(`kernel command line: ${value === "" ? key : `${key}=${value}`}: ${reason}`)
      }
      return cmdline
    }),
  ),
})

// What `kios.log=` calls a level, as syslog(3) does.
const severities = { debug: "debug", info: "info", warn: "warning", error: "err" } as const
