/**
 * The host name, which the kubelet registers the node under.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Cmdline } from "@kios/core/Cmdline"
import { Kernel, type KernelShape } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Etc } from "@kios/core/capabilities/Etc"
import { Hostname } from "@kios/core/capabilities/Hostname"

const DEFAULT = "kios"
// RFC 1123, and at most what sethostname(2) takes.
const valid = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/u

/**
 * The stage: `kios.hostname=` on the kernel command line, else the first line
 * of /etc/hostname (hostname(5)), else `kios`. The file may change while the node
 * runs, when a bootstrap pod names the node: whoever depends on the name asks
 * for it anew (\`refresh\`).
 *
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Hostname } from "@kios/core/capabilities/Hostname"
 *
 * const greet = Hostname.use(({ name }) => Effect.log(name))
 * ```
 */
export const stage = Stage.make({
  name: "hostname",
  description: "the host name",
  requires: [Cmdline, Etc],
  provides: [Hostname],
  tolerates: [
    { operation: "readText", errno: ["ENOENT"], because: "no name was chosen", silent: true },
    { operation: "readText", because: "a node works by any name" },
  ],
  layer: Layer.effect(
    Hostname,
    Effect.gen(function* () {
      const kernel = yield* Kernel
      const { values } = yield* Cmdline
      const choose = (otherwise: string) =>
        values.hostname === undefined ? readName(kernel, otherwise) : Effect.succeed(values.hostname)
      const name = yield* choose(DEFAULT)
      yield* kernel.setHostname(name)
      let set = name
      const refresh = Effect.gen(function* () {
        const next = yield* choose(set)
        if (next === set) return
        yield* kernel.setHostname(next)
        yield* Effect.logInfo(`the host name is ${next} now, and was ${set}`)
        set = next
      }).pipe(
        Effect.catch((error) => Effect.logWarning(`the host name stays ${set}: ${error.message}`)),
        Effect.andThen(Effect.sync(() => set)),
      )
      return { name, refresh }
    }),
  ),
})

/** What /etc/hostname says, if it is a name. */
const readName = (kernel: KernelShape, otherwise: string) =>
  Effect.gen(function* () {
    const file = yield* Effect.catch(kernel.readText("/etc/hostname"), (error) =>
      Effect.as(error.errno === "ENOENT" ? Effect.void : Effect.logWarning(error.message), ""),
    )
    const inFile =
      file
        .split("\n")
        .map((line) => line.trim())
        .find((line) => line !== "" && !line.startsWith("#"))
        ?.toLowerCase() ?? ""
    if (valid.test(inFile) && inFile.length <= 64) return inFile
    if (inFile !== "")
      yield* Effect.logWarning(
        `/etc/hostname: ${JSON.stringify(inFile)} is not a DNS name (RFC 1123), using ${otherwise}`,
      )
    return otherwise
  })
