/** What the programs that run as PID 1 of a namespace share. */
import * as Init from "@kios/core/Init"
import * as Liveness from "@kios/core/Liveness"
import * as Pipeline from "@kios/core/Pipeline"
import * as Readiness from "@kios/core/Readiness"
import type * as Stage from "@kios/core/Stage"
import { Cause, Effect } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import type { Common } from "./namespace.ts"

/** Boots init with no stages, runs `work` as what follows the boot, and ends with the findings written. */
export const run = <Options extends Common>(
  work: (options: Options) => Effect.Effect<unknown, unknown, Stage.Platform>,
): void => {
  const options = JSON.parse(process.argv[2] ?? "{}") as Options
  Init.start({
    pipeline: Pipeline.make([]),
    afterBoot: work(options).pipe(
      Effect.catchCause((cause) => Effect.succeed({ broke: Cause.pretty(cause) })),
      Effect.map((found) => {
        fs.writeFileSync(`${options.result}.new`, JSON.stringify(found))
        fs.renameSync(`${options.result}.new`, options.result)
        process.exit(0)
      }),
    ),
  })
}

/** One question to an agent: whether it says "ok". */
const asks = (socket: string) =>
  Effect.callback<boolean>((resume) => {
    const client = net.connect({ path: `\0${socket}` })
    client.setTimeout(5000, () => client.destroy())
    client.once("data", () => {
      resume(Effect.succeed(true))
      client.destroy()
    })
    client.once("error", () => {})
    client.once("close", () => resume(Effect.succeed(false)))
    return Effect.sync(() => client.destroy())
  })

/** Ready when the agent answers on its socket. */
export const answers = (socket: string): Readiness.Readiness =>
  Readiness.make(
    `@${socket} answers`,
    asks(socket).pipe(
      Effect.flatMap((ok) => (ok ? Effect.succeed(true) : Effect.as(Effect.sleep("2 millis"), false))),
      Effect.repeat({ until: (ok: boolean) => ok }),
      Effect.asVoid,
    ),
  )

/** Asked twenty times a second; hangs when it has not answered twice, two seconds each. */
export const alive = (socket: string): Liveness.Liveness =>
  Liveness.make(
    `@${socket} answers`,
    Effect.flatMap(asks(socket), (ok) => (ok ? Effect.void : Effect.fail("no answer"))),
    { every: "50 millis", timeout: "2 seconds", failures: 2 },
  )

/** State, parent and name of each process but PID 1, by proc_pid_stat(5). */
export const others = (): ReadonlyArray<{
  readonly pid: number
  readonly name: string
  readonly state: string
}> =>
  fs
    .readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && name !== "1")
    .flatMap((pid) => {
      try {
        const line = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
        const end = line.lastIndexOf(")")
        return [
          { pid: Number(pid), name: line.slice(line.indexOf("(") + 1, end), state: line[end + 2] ?? "?" },
        ]
      } catch {
        return []
      }
    })
