/**
 * Children of the live kernel: started by libuv, so that their exit status is
 * libuv's to collect, and told apart from orphans that PID 1 inherited.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { ExitStatus, KernelShape } from "../Kernel.ts"
import { KernelError } from "../KernelError.ts"
import { toKernelError } from "./files.ts"

interface Wait {
  /** Peeks at a dead child without taking its status. */
  readonly waitid: () => { readonly errno: string; readonly pid: number }
  readonly waitpid: (pid: number) => { readonly value: number; readonly errno: string }
}

// A line that never ends must not fill PID 1's memory.
const MAX_LINE = 4096

/** Cuts a byte stream into lines, bounded. */
const lineReader = (onLine: (line: string) => void) => {
  let rest = ""
  return {
    push: (chunk: string) => {
      const parts = (rest + chunk).split("\n")
      rest = parts.pop() ?? ""
      for (const part of parts) onLine(part.slice(0, MAX_LINE))
      if (rest.length > MAX_LINE) {
        onLine(rest.slice(0, MAX_LINE))
        rest = ""
      }
    },
    end: () => {
      if (rest !== "") onLine(rest)
      rest = ""
    },
  }
}

/** Appends to a file of bounded size. A log that cannot be written loses lines, never the process. */
const logWriter = (path: string, maxBytes: number) => {
  let fd: number | undefined
  let size = 0
  const close = () => {
    if (fd === undefined) return
    const open = fd
    fd = undefined
    try {
      fs.closeSync(open)
    } catch {
      // Nothing more can be done with it.
    }
  }
  return {
    close,
    write: (chunk: string) => {
      try {
        if (fd !== undefined && size > maxBytes) {
          close()
          fs.renameSync(path, `${path}.1`)
        }
        if (fd === undefined) {
          fd = fs.openSync(path, "a", 0o640)
          size = fs.fstatSync(fd).size
        }
        size += fs.writeSync(fd, chunk)
      } catch {
        close()
      }
    },
  }
}

export const make = (wait: Wait): Pick<KernelShape, "spawn" | "kill" | "peekDeadChild" | "reap"> => {
  // Filled in the same tick as the spawn, so that the reaper, which runs on
  // this thread too, can never see a child of ours before its pid is here.
  const supervised = new Map<number, object>()

  const spawn: KernelShape["spawn"] = (spec) =>
    Effect.callback<Effect.Success<ReturnType<KernelShape["spawn"]>>, KernelError>((resume) => {
      const failed = (error: KernelError) => resume(Effect.fail(error))
      // A process is born into its parent's cgroup, so the parent goes there
      // for the moment of the fork: the child never runs outside its limits.
      const home = spec.cgroup === undefined ? undefined : currentCgroup()
      if (spec.cgroup !== undefined) {
        try {
          fs.writeFileSync(`${spec.cgroup}/cgroup.procs`, "0")
        } catch (cause) {
          return failed(toKernelError("write", `${spec.cgroup}/cgroup.procs`, cause))
        }
      }
      const output = spec.onLine === undefined && spec.log === undefined ? "ignore" : "pipe"
      const { spawn: start } = process.getBuiltinModule("node:child_process")
      let child: ReturnType<typeof start>
      try {
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
        if (home !== undefined) {
          try {
            fs.writeFileSync(`${home}/cgroup.procs`, "0")
          } catch {
            // Init stays in the child's group: wrong accounting, not a reason to lose the child.
          }
        }
      }
      const pid = child.pid
      if (pid === undefined) {
        child.once("error", (cause: NodeJS.ErrnoException) =>
          failed(new KernelError({ syscall: "spawn", errno: cause.code ?? "EIO", path: spec.command })),
        )
        return
      }
      if (spec.oomScoreAdj !== undefined) {
        try {
          fs.writeFileSync(`/proc/${pid}/oom_score_adj`, String(spec.oomScoreAdj))
        } catch {
          // The process is gone already; its exit status will say why.
        }
      }
      const log = spec.log === undefined ? undefined : logWriter(spec.log.path, spec.log.maxBytes)
      for (const stream of [child.stdout, child.stderr]) {
        if (stream === null || stream === undefined) continue
        stream.setEncoding("utf8").on("error", () => {})
        if (log !== undefined) stream.on("data", log.write)
        if (spec.onLine !== undefined) {
          const lines = lineReader(spec.onLine)
          stream.on("data", lines.push).on("end", lines.end)
        }
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
      // Not "exit": what is in the pipes comes after it.
      child.once("close", () => log?.close())
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
