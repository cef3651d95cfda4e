// Starts a real containerd in a directory of its own.
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { awaitReady } from "../../../src/containerd/Probe.ts"

const cacheDir = () =>
  process.env["KIOS_CACHE"] ??
  path.join(process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache"), "kios")

const newestInCache = (): string | undefined => {
  const root = cacheDir()
  if (!fs.existsSync(root)) return undefined
  const found = fs
    .readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((f) => path.basename(f) === "containerd")
    .map((f) => path.join(root, f))
    .filter((f) => fs.statSync(f).isFile())
  return found.sort((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs)[0]
}

/**
 * The containerd to test: KIOS_CONTAINERD, else the newest in the component cache. Undefined skips the tests;
 * in CI, where a skipped test would go unnoticed, it is an error.
 */
export const containerdBinary = (): string | undefined => {
  const named = process.env["KIOS_CONTAINERD"]
  if (named !== undefined && !fs.existsSync(named)) throw new Error(`KIOS_CONTAINERD=${named} does not exist`)
  const binary = named ?? newestInCache()
  if (binary === undefined && process.env["CI"] !== undefined)
    throw new Error("no containerd: set KIOS_CONTAINERD or build the components")
  return process.getuid?.() === 0 ? binary : undefined
}

const config = (dir: string, bin: string) => `version = 3
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
  BinaryName = "${bin}/runc"
`

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
      const bin = path.dirname(binary)
      const address = `${dir}/containerd.sock`
      fs.writeFileSync(`${dir}/config.toml`, config(dir, bin))
      let child: ChildProcess | undefined
      const start = Effect.gen(function* () {
        const log = fs.openSync(`${dir}/log`, "a")
        child = spawn(binary, ["--config", `${dir}/config.toml`], {
          stdio: ["ignore", log, log],
          env: { PATH: `${bin}:${process.env["PATH"]}` },
        })
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
