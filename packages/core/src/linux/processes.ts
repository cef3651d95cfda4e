/**
 * Children of the live kernel: started by libuv, so that their exit status is
 * libuv's to collect, and told apart from orphans that PID 1 inherited.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { ExitStatus, KernelShape, ResourceLimits } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import { toKernelError } from "./files.ts"
import type { LiveOutput } from "./output.ts"

interface Wait {
  /** Peeks at a dead child without taking its status. */
  readonly waitid: () => { readonly errno: string; readonly pid: number }
  readonly waitpid: (pid: number) => { readonly value: number; readonly errno: string }
}

/** What a child inherits and init has otherwise: set for the moment of the fork, and then put back. */
interface Inherited {
  /** Sets the limits; returns what puts back those that there were. */
  readonly limit: (limits: ResourceLimits) => () => void
  /** Marks every descriptor but 0, 1 and 2 as one that a new program does not get. */
  readonly closeOnExec: () => void
}

/** Writes to a file of /proc or the cgroup filesystem; returns errno's name, or "". */
const control = (path: string, value: string): string => {
  try {
    fs.writeFileSync(path, value)
    return ""
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code ?? "EIO"
  }
}

const OOM_SCORE_ADJ = "/proc/self/oom_score_adj"

export const make = (
  wait: Wait,
  inherited: Inherited,
): Pick<KernelShape, "spawn" | "kill" | "peekDeadChild" | "reap"> => {
  // Filled in the same tick as the spawn, so that the reaper, which runs on
  // this thread too, can never see a child of ours before its pid is here.
  const supervised = new Map<number, object>()

  const spawn: KernelShape["spawn"] = (spec) =>
    Effect.callback<Effect.Success<ReturnType<KernelShape["spawn"]>>, KernelError>((resume) => {
      const failed = (error: KernelError) => resume(Effect.fail(error))
      // A process is born with its parent's cgroup, OOM score and limits, so
      // the parent takes them on for the moment of the fork: the child never
      // runs without. Init itself is never chosen by the OOM killer.
      const undo: Array<() => void> = []
      const become = () => {
        if (spec.cgroup !== undefined) {
          const home = currentCgroup()
          const errno = control(`${spec.cgroup}/cgroup.procs`, "0")
          if (errno !== "")
            return new KernelError({ syscall: "write", errno, path: `${spec.cgroup}/cgroup.procs` })
          // Init stays in the child's group if it cannot go home: wrong accounting, not a reason to lose the child.
          if (home !== undefined) undo.push(() => void control(`${home}/cgroup.procs`, "0"))
        }
        if (spec.oomScoreAdj !== undefined) {
          const own = ownOomScoreAdj()
          // Refused to who may not lower it; then the process just has no score of its own.
          if (own !== undefined && control(OOM_SCORE_ADJ, String(spec.oomScoreAdj)) === "")
            undo.push(() => void control(OOM_SCORE_ADJ, own))
        }
        if (spec.limits !== undefined) undo.push(inherited.limit(spec.limits))
        return undefined
      }
      const { spawn: start } = process.getBuiltinModule("node:child_process")
      const output = (spec.output as LiveOutput | undefined)?.descriptor ?? "ignore"
      let child: ReturnType<typeof start>
      try {
        // Node opens nothing without O_CLOEXEC; what was handed down to this process may be another matter.
        inherited.closeOnExec()
        const refused = become()
        if (refused !== undefined) return failed(refused)
        child = start(spec.command, [...spec.args], {
          cwd: "/",
          env: { ...spec.env },
          detached: true,
          stdio: ["ignore", output, output],
        })
        if (child.pid !== undefined) supervised.set(child.pid, child)
      } catch (cause) {
        // Node tells ENOENT and EACCES by an event, but throws E2BIG, ENOMEM, ENOEXEC, ETXTBSY.
        const errno = (cause as NodeJS.ErrnoException).code ?? "EIO"
        return failed(new KernelError({ syscall: "spawn", errno, path: spec.command }))
      } finally {
        for (const back of undo.toReversed()) back()
      }
      const pid = child.pid
      if (pid === undefined) {
        child.once("error", (cause: NodeJS.ErrnoException) =>
          failed(new KernelError({ syscall: "spawn", errno: cause.code ?? "EIO", path: spec.command })),
        )
        return
      }
      const waiting: Array<(status: ExitStatus) => void> = []
      let ended: ExitStatus | undefined
      child.once("exit", (code, signal) => {
        ended = signal === null ? { _tag: "Exited", code: code ?? 0 } : { _tag: "Signaled", signal }
        // Pids are reused: only the object tells whether the entry is still this child's.
        if (supervised.get(pid) === child) supervised.delete(pid)
        for (const done of waiting) done(ended)
        // SIGCHLDs merge: an orphan that died together with this child would wait for the next one.
        process.emit("SIGCHLD", "SIGCHLD")
      })
      child.on("error", () => {})
      const exit = Effect.callback<ExitStatus>((done) => {
        if (ended !== undefined) return done(Effect.succeed(ended))
        const tell = (status: ExitStatus) => done(Effect.succeed(status))
        waiting.push(tell)
        return Effect.sync(() => {
          const at = waiting.indexOf(tell)
          if (at >= 0) waiting.splice(at, 1)
        })
      })
      resume(Effect.succeed({ pid, exit, hasEnded: () => ended !== undefined }))
    })

  return {
    spawn,
    kill: (pid, signal) =>
      // A group, or everybody, is for PID 1 to signal: on a developer's machine it would be the developer's session.
      pid <= 0 && process.pid !== 1
        ? Effect.fail(new KernelError({ syscall: "kill", errno: "EPERM", path: String(pid) }))
        : Effect.try({
            try: () => void process.kill(pid, signal),
            catch: (cause) => toKernelError("kill", String(pid), cause),
          }),
    peekDeadChild: Effect.suspend(() => {
      for (;;) {
        const { errno, pid } = wait.waitid()
        if (errno === "EINTR") continue
        if (errno === "ECHILD" || (errno === "" && pid === 0)) return Effect.succeed(undefined)
        if (errno !== "") return Effect.fail(new KernelError({ syscall: "waitid", errno }))
        return Effect.succeed({ pid, supervised: supervised.has(pid) })
      }
    }),
    reap: (pid) =>
      Effect.suspend(() => {
        const result = wait.waitpid(pid)
        return result.value === -1 && result.errno !== "ECHILD"
          ? Effect.fail(new KernelError({ syscall: "waitpid", errno: result.errno, path: String(pid) }))
          : Effect.void
      }),
  }
}

/** As it is to be again after the fork; undefined without /proc. */
const ownOomScoreAdj = (): string | undefined => {
  try {
    return fs.readFileSync(OOM_SCORE_ADJ, "utf8")
  } catch {
    return undefined
  }
}

/** Directory of this process's own cgroup v2 group. */
const currentCgroup = (): string | undefined => {
  try {
    const line = fs
      .readFileSync("/proc/self/cgroup", "utf8")
      .split("\n")
      .find((entry) => entry.startsWith("0::"))
    return line === undefined ? undefined : `/sys/fs/cgroup${line.slice(3)}`
  } catch {
    return undefined
  }
}
