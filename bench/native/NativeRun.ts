/**
 * One start of an init as PID 1 of fresh namespaces on this machine, as fast as
 * its processor is, and how long it took to hand over to containerd.
 */
import { Data, Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import type { NativeTrees } from "./NativeTree.ts"

/** From the moment before init is executed to the first statement of the program that stands in for containerd. */
export interface Handover {
  readonly seconds: number
  /** Processor time of init's threads until then. */
  readonly processorSeconds: number
}

/** A run that did not hand over. */
export class HandoverFailed extends Data.TaggedError("HandoverFailed")<{
  readonly image: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.image} did not hand over to containerd in its namespaces: ${this.reason}`
  }
}

const LIMIT_MS = 30_000

/**
 * A root of its own for each run, because init makes its filesystem read-only. The kernel's log is the machine's, so
 * that /dev/kmsg is /dev/null. The namespaces' cgroup is one whose parent gives no controllers: a group that has some
 * and a process cannot hand them on, except for the real root.
 */
const script = `
set -e
tree=$1 root=$2 launcher=$3 group=$4
echo $$ > "$group/cgroup.procs"
exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child --propagation private sh -c '
  set -e
  mount -t tmpfs -o mode=0755 kios-bench "$1"
  cp -a "$0/." "$1"
  mknod -m 600 "$1/dev/kmsg" c 1 3
  mknod -m 600 "$1/dev/console" c 1 3
  mknod -m 666 "$1/dev/null" c 1 3
  exec "$2" "$1" /init
' "$tree" "$root" "$launcher"
`

/** Where cgroup v2 is mounted on this machine. */
const cgroupRoot = (): string | undefined =>
  fs
    .readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, , fstype]) => fstype === "cgroup2")?.[1]

/** Starts the init of a tree once. Needs root. */
export const run = (trees: NativeTrees, image: "kios" | "floor"): Effect.Effect<Handover, HandoverFailed> =>
  Effect.callback<Handover, HandoverFailed>((resume) => {
    const failed = (reason: string) => resume(Effect.fail(new HandoverFailed({ image, reason })))
    const mounted = cgroupRoot()
    if (mounted === undefined) return failed("cgroup v2 is mounted nowhere on this machine")
    const group = path.join(mounted, `kios-bench-${process.pid}`)
    const inner = path.join(group, "namespace")
    const root = `${trees[image]}.root`
    try {
      fs.mkdirSync(inner, { recursive: true })
      fs.mkdirSync(root, { recursive: true })
    } catch (error) {
      return failed(error instanceof Error ? error.message : String(error))
    }
    const stamps = new Map<string, readonly [nanoseconds: bigint, processor: bigint]>()
    const server = net.createServer((socket) => {
      socket.on("error", () => {})
      socket.setEncoding("utf8").on("data", (line: string) => {
        const [name = "", at = "0", processor = "0"] = line.trim().split(" ")
        stamps.set(name, [BigInt(at), BigInt(processor)])
        if (name !== "containerd") return
        const [start, end] = [stamps.get("start"), stamps.get("containerd")]
        if (start === undefined || end === undefined) return
        settle(() =>
          resume(
            Effect.succeed({
              seconds: Number(end[0] - start[0]) / 1e9,
              // PID 1 was a shell and the launcher before.
              processorSeconds: Number(end[1] - start[1]) / 1e9,
            }),
          ),
        )
      })
    })
    let child: ReturnType<typeof execFile> | undefined
    let ended = false
    let said = ""
    let answer: (() => void) | undefined
    // Answers when all is gone, so that the next run has the machine for itself.
    const settle = (then: () => void) => {
      if (answer !== undefined) return
      answer = then
      clearTimeout(timer)
      server.close()
      if (ended || child === undefined) finish(TRIES)
      else child.kill("SIGKILL")
    }
    let finished = false
    const whenFinished = new Set<() => void>()
    const finish = (left = TRIES) => {
      if (!remove(group) && left > 0) return void setTimeout(finish, BETWEEN_MS, left - 1)
      finished = true
      answer?.()
      for (const done of whenFinished) done()
    }
    const timer = setTimeout(
      () => settle(() => failed(`nothing in ${LIMIT_MS / 1000} s; it said: ${said.slice(-2000)}`)),
      LIMIT_MS,
    )
    server.on("error", (error) => settle(() => failed(error.message)))
    server.listen(`\0${trees.socket}`, () => {
      if (answer !== undefined) return
      const args = ["-c", script, "sh", trees[image], root, trees.launcher, inner]
      child = execFile("sh", args, (error, stdout, stderr) => {
        ended = true
        said += `${stdout}${stderr}`
        if (answer === undefined)
          settle(() => failed(`${error?.message ?? "it ended"}: ${said.slice(-2000)}`))
        else finish(TRIES)
      })
    })
    return Effect.callback<void>((done) => {
      settle(() => {})
      if (finished) done(Effect.void)
      else whenFinished.add(() => done(Effect.void))
    })
  })

// The namespaces' processes end after the one that was killed, and hold their groups until then.
const TRIES = 500
const BETWEEN_MS = 10

/** Removes a cgroup and those below it, if no process is in them any more. */
const remove = (group: string): boolean => {
  try {
    for (const entry of fs.readdirSync(group, { withFileTypes: true }))
      if (entry.isDirectory() && !remove(path.join(group, entry.name))) return false
    fs.rmdirSync(group)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "EBUSY"
  }
}
