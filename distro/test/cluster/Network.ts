/**
 * A network of the test's own: a namespace with a cable (a tap device) to the
 * node, a DHCP server, and whatever servers the test starts in it. Nothing of
 * the machine's network is touched or seen, and all of it ends with the scope.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { temporaryDirectory } from "../boot/support.ts"
import { component } from "./Components.ts"

/** The other end of the cable: gateway, DHCP server, API server. */
export const GATEWAY = "10.0.2.2"
/** The only address that is leased. */
export const NODE = "10.0.2.15"
/** Where clouds have their metadata service. */
export const METADATA = "169.254.169.254"
export const TAP = "kios0"

/** What a program said. */
export interface Output {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** A server that runs until its scope ends, or {@link Daemon.stop}. */
export interface Daemon {
  readonly pid: number
  /** Its output, for messages. */
  readonly log: string
  readonly exited: () => boolean
  readonly stop: Effect.Effect<void>
}

/** The namespace. */
export class Network extends Context.Service<
  Network,
  {
    /** For files of servers. */
    readonly directory: string
    /** Words before a command that put it into the namespace and end it with this process. */
    readonly inside: ReadonlyArray<string>
    /** Runs a program to its end, with standard input. */
    readonly run: (
      command: ReadonlyArray<string>,
      options?: { readonly input?: string; readonly seconds?: number },
    ) => Effect.Effect<Output, Error>
    readonly daemon: (
      name: string,
      command: ReadonlyArray<string>,
    ) => Effect.Effect<Daemon, Error, Scope.Scope>
  }
>()("kios/test/Network") {
  static readonly layer = Layer.effect(
    Network,
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const holder = yield* namespace
      const inside = [...dieWithUs, "nsenter", `--net=/proc/${holder}/ns/net`, "--"]
      const network = Network.of({
        directory,
        inside,
        run: (command, options) => run([...inside, ...command], options),
        daemon: (name, command) => daemon(name, [...inside, ...command], path.join(directory, `${name}.log`)),
      })
      yield* dhcp(network)
      return network
    }),
  )
}

const dieWithUs = ["setpriv", "--pdeathsig", "KILL", "--"]

const script = `set -e
ip link set lo up
ip address add ${METADATA}/32 dev lo
ip tuntap add dev ${TAP} mode tap
ip address add ${GATEWAY}/24 dev ${TAP}
ip link set ${TAP} up
echo ready
exec sleep infinity`

/** How long a program that was asked to end may take, ms. */
const graceMs = 10_000

const ended = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once("exit", () => resolve()))

const terminate = (child: ChildProcess) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const timer = setTimeout(() => child.kill("SIGKILL"), graceMs)
    child.kill("SIGTERM")
    await ended(child)
    clearTimeout(timer)
  })

/** A process that holds a namespace with the cable in it; gives its pid. */
const namespace = Effect.acquireRelease(
  Effect.callback<ChildProcess, Error>((resume) => {
    const command = [...dieWithUs, "unshare", "--net", "--", "sh", "-c", script]
    const [file = "", ...args] = command
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] })
    let said = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text))
    child.stdout.once("data", () => resume(Effect.succeed(child)))
    child.once("error", (cause) => resume(Effect.fail(cause)))
    child.once("close", () => resume(Effect.fail(new Error(`no network namespace: ${said}`))))
  }),
  terminate,
).pipe(Effect.map(({ pid }) => pid ?? 0))

const run = (
  [file = "", ...args]: ReadonlyArray<string>,
  options: { readonly input?: string; readonly seconds?: number } = {},
): Effect.Effect<Output, Error> =>
  Effect.callback((resume, signal) => {
    const child = execFile(
      file,
      args,
      { signal, timeout: (options.seconds ?? 60) * 1000, killSignal: "SIGKILL", maxBuffer: 1 << 26 },
      (error, stdout, stderr) => {
        if (error === null) resume(Effect.succeed({ exitCode: 0, stdout, stderr }))
        else if (typeof error.code === "number")
          resume(Effect.succeed({ exitCode: error.code, stdout, stderr }))
        else resume(Effect.fail(new Error(`${args.join(" ")}: ${error.message}`)))
      },
    )
    // A program that does not read it.
    child.stdin?.on("error", () => {})
    child.stdin?.end(options.input ?? "")
  })

const daemon = (name: string, [file = "", ...args]: ReadonlyArray<string>, log: string) =>
  Effect.acquireRelease(
    Effect.callback<ChildProcess, Error>((resume) => {
      const output = fs.openSync(log, "a")
      const child = spawn(file, args, { stdio: ["ignore", output, output] })
      fs.closeSync(output)
      child.once("error", (cause) => resume(Effect.fail(new Error(`${name}: ${cause.message}`))))
      child.once("spawn", () => resume(Effect.succeed(child)))
    }),
    terminate,
  ).pipe(
    Effect.map((child): Daemon => ({
      pid: child.pid ?? 0,
      log,
      exited: () => child.exitCode !== null || child.signalCode !== null,
      stop: terminate(child),
    })),
  )

/** Leases {@link NODE} to whoever asks. */
const dhcp = Effect.fnUntraced(function* (network: Network["Service"]) {
  const { directory } = network
  const busybox = yield* component("busybox", "bin/busybox")
  const file = path.join(directory, "udhcpd.conf")
  fs.writeFileSync(path.join(directory, "leases"), "")
  fs.writeFileSync(
    file,
    [
      `start ${NODE}`,
      `end ${NODE}`,
      `interface ${TAP}`,
      "max_leases 1",
      `lease_file ${directory}/leases`,
      `pidfile ${directory}/udhcpd.pid`,
      // A machine that boots anew may look like another client.
      "decline_time 1",
      "conflict_time 1",
      "offer_time 1",
      "option subnet 255.255.255.0",
      `option router ${GATEWAY}`,
      "option lease 864000",
      "",
    ].join("\n"),
  )
  yield* network.daemon("udhcpd", [busybox, "udhcpd", "-f", "-S", "-I", GATEWAY, file])
})
