// A child that writes as fast as it can, and nobody who reads; started by LinuxOutput.kernel.test.ts.
// `outputFlood.ts SECONDS` prints one line of JSON.
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Kernel } from "@kios/core/Kernel"
import * as LinuxKernel from "@kios/core/linux/LinuxKernel"

const seconds = Number(process.argv[2] ?? 6)
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kios-flood-"))
const fifo = path.join(directory, "fifo")
const log = path.join(directory, "log")
const size = (file: string) => (fs.existsSync(file) ? fs.statSync(file).size : 0)

const main = Effect.gen(function* () {
  const kernel = yield* Kernel
  execFileSync("mkfifo", [fifo])
  const counts = { lines: 0, dropped: 0, told: 0, last: "" }
  const output = yield* kernel.openOutput({
    onLine: (line) => {
      counts.lines++
      counts.last = line
    },
    onDropped: (bytes) => {
      counts.dropped += bytes
      counts.told++
    },
    log: { path: log, maxBytes: 256 * 1024 },
    fifo,
  })
  // Its own count of what it wrote is the last that it says.
  const script = `n=0; end=$(($(date +%s) + ${seconds})); while [ $(date +%s) -lt $end ]; do head -c 8388608 /dev/zero | tr '\\0' '\\n' | sed 's/$/the quick brown fox/' ; n=$((n + 8388608 * 20)); done; echo "wrote $n"`
  const rss = () => process.memoryUsage().rss
  const before = { cpu: process.cpuUsage(), rss: rss(), at: performance.now() }
  const child = yield* kernel.spawn({
    command: "/bin/sh",
    args: ["-c", process.argv[3] ?? script],
    env: { PATH: "/usr/bin:/bin" },
    output,
  })
  // How long others wait for the loop.
  const seen = { worstMs: 0, rss: 0, disk: 0 }
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    seen.worstMs = Math.max(seen.worstMs, now - last - 10)
    last = now
    seen.rss = Math.max(seen.rss, rss())
    seen.disk = Math.max(seen.disk, size(log) + size(`${log}.1`))
  }, 10)
  const ended = yield* Effect.timeoutOption(child.exit, (seconds + 30) * 1000)
  if (ended._tag === "None") yield* Effect.ignore(kernel.kill(-child.pid as never, "SIGKILL"))
  const elapsed = performance.now() - before.at
  const cpu = process.cpuUsage(before.cpu)
  clearInterval(timer)
  output.flush()
  fs.writeSync(
    1,
    `${JSON.stringify({
      ended: ended._tag === "Some" ? ended.value : "blocked",
      wrote: counts.last,
      lines: counts.lines,
      dropped: counts.dropped,
      told: counts.told,
      seconds: elapsed / 1000,
      cpuShare: (cpu.user + cpu.system) / 1000 / elapsed,
      rssGrowthMiB: (seen.rss - before.rss) / 1048576,
      diskKiB: seen.disk / 1024,
      worstLoopDelayMs: seen.worstMs,
    })}\n`,
  )
})
const keepAlive = setInterval(() => {}, 1000)
Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(LinuxKernel.layer()))).finally(() => {
  clearInterval(keepAlive)
  fs.rmSync(directory, { recursive: true })
})
