// Starts a real containerd in a directory of its own.
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { awaitReady } from "@kios/stages-runtime/containerd/Probe"

const componentsDir = () => {
  const cache = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache")
  return path.join(process.env["KIOS_CACHE"] ?? path.join(cache, "kios"), "components")
}

/** The newest file of that name in the component cache (`components/<name>-<version>-<key>/files/...`). */
const newestInCache = (name: string): string | undefined => {
  const root = componentsDir()
  if (!fs.existsSync(root)) return undefined
  const modified = (f: string) => fs.statSync(f).mtimeMs
  return fs
    .readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((f) => path.basename(f) === name)
    .map((f) => path.join(root, f))
    .filter((f) => fs.statSync(f).isFile())
    .sort((a, b) => modified(b) - modified(a))[0]
}

/** A program that belongs to containerd: beside it, else in the component cache, else on PATH. */
const companion = (binary: string, name: string): string => {
  const beside = path.join(path.dirname(binary), name)
  return fs.existsSync(beside) ? beside : (newestInCache(name) ?? name)
}

/**
 * The containerd to test: KIOS_CONTAINERD, else the newest in the component cache. Undefined skips the tests;
 * in CI, where a skipped test would go unnoticed, it is an error.
 */
export const containerdBinary = (): string | undefined => {
  const named = process.env["KIOS_CONTAINERD"]
  if (named !== undefined && !fs.existsSync(named)) throw new Error(`KIOS_CONTAINERD=${named} does not exist`)
  const binary = named ?? newestInCache("containerd")
  if (binary === undefined && process.env["CI"] !== undefined)
    throw new Error("no containerd: set KIOS_CONTAINERD or build the components")
  const root = process.getuid?.() === 0
  if (!root && process.env["CI"] !== undefined) throw new Error("these tests need root")
  return root ? binary : undefined
}

const config = (dir: string, runc: string) => `version = 3
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = [ "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri" ]
[grpc]
  address = "${dir}/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.runtime"]
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "${dir}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "${runc}"
`

/** How to start `binary` in a directory of its own: its configuration is written there. */
export const commandOf = (binary: string, dir: string) => {
  const runc = companion(binary, "runc")
  const shim = path.dirname(companion(binary, "containerd-shim-runc-v2"))
  fs.writeFileSync(`${dir}/config.toml`, config(dir, runc))
  return {
    address: `${dir}/containerd.sock`,
    args: ["--config", `${dir}/config.toml`],
    // The tests make their containers without CRI, so that runc is looked up by name.
    env: { PATH: `${shim}:${path.dirname(runc)}:${process.env["PATH"]}` },
  }
}

export interface RealContainerd {
  readonly address: string
  readonly pid: () => number
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void>
  readonly restart: Effect.Effect<void>
}

/** Starts `binary` and waits until it is ready; killed with the scope. Its log is `<dir>/log`. */
export const startContainerd = (binary: string, dir: string) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const { address, args, env } = commandOf(binary, dir)
      let child: ChildProcess | undefined
      const start = Effect.gen(function* () {
        const log = fs.openSync(`${dir}/log`, "a")
        child = spawn(binary, args, { stdio: ["ignore", log, log], env })
        child.on("error", () => {})
        fs.closeSync(log)
        yield* awaitReady(address).pipe(
          Effect.timeout("30 seconds"),
          Effect.mapError(
            (e) => new Error(`${e.message}\n${fs.readFileSync(`${dir}/log`, "utf8").slice(-2000)}`),
          ),
        )
      }).pipe(Effect.orDie)
      const kill = Effect.callback<void>((resume) => {
        const running = child
        child = undefined
        if (running === undefined || running.exitCode !== null || running.signalCode !== null)
          return resume(Effect.void)
        running.once("exit", () => resume(Effect.void))
        running.kill("SIGKILL")
      })
      yield* start
      const restart = Effect.andThen(kill, start)
      return { address, pid: () => child?.pid ?? 0, kill, start, restart } satisfies RealContainerd
    }),
    (c) => c.kill,
  )
