/**
 * Processes of an in-memory machine: pids, signals, exit statuses, orphans.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { ChildProcess, DeadChild, ExitStatus, ResourceLimits, Signal, SpawnSpec } from "../Kernel.ts"
import { refuse } from "./TestFiles.ts"
import type { Program, ProgramContext } from "./TestPrograms.ts"

/** A process as a test sees it. */
export interface ProcessEntry {
  readonly pid: number
  readonly parent: number
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  readonly cgroup: string | undefined
  readonly oomScoreAdj: number
  /** Limits that it was started with; what is absent is init's own. */
  readonly limits: ResourceLimits
  /** Undefined while it runs. */
  readonly status: ExitStatus | undefined
}

interface Process extends ProcessEntry {
  parent: number
  cgroup: string | undefined
  oomScoreAdj: number
  status: ExitStatus | undefined
  readonly supervised: boolean
  readonly ended: Deferred.Deferred<ExitStatus>
  readonly handlers: Map<Signal, Effect.Effect<void>>
  fiber: Fiber.Fiber<unknown> | undefined
  /** How often it is still seen dead before libuv collects it. */
  peeks: number
}

const INIT = 1
const ignored = new Set<Signal>(["SIGCHLD", "SIGCONT", "SIGSTOP"])

export interface ProcessesOptions {
  /** Pids start again after this one (`kernel.pid_max`). */
  readonly pidMax: number
  /** How often `peekDeadChild` shows a dead child of init's own before it is collected. */
  readonly lateCollection: number
  /** Tells init of a signal. */
  readonly tellInit: (signal: Signal) => void
}

export class Processes {
  /** Alive, or dead and not waited for. */
  readonly table = new Map<number, Process>()
  /** Pids of init's own children whose status something else than their spawner took. */
  readonly stolen: Array<number> = []
  /** The group of init itself. */
  initCgroup = "/"
  readonly #options: ProcessesOptions
  #last = INIT

  constructor(options: ProcessesOptions) {
    this.#options = options
  }

  #pid(): number {
    for (let tried = 0; tried < this.#options.pidMax; tried++) {
      this.#last = this.#last >= this.#options.pidMax ? INIT + 1 : this.#last + 1
      if (!this.table.has(this.#last)) return this.#last
    }
    return refuse("EAGAIN")
  }

  /** Starts a program; the fiber that runs it keeps the caller's clock. */
  readonly start = (
    program: Program,
    spec: SpawnSpec,
    parent: number,
    print: (line: string) => void,
  ): Effect.Effect<ChildProcess> =>
    Effect.suspend(() => {
      const child: Process = {
        pid: this.#pid(),
        parent,
        command: spec.command,
        args: spec.args,
        env: spec.env,
        cgroup: spec.cgroup,
        oomScoreAdj: spec.oomScoreAdj ?? 0,
        limits: spec.limits ?? {},
        status: undefined,
        supervised: parent === INIT,
        ended: Deferred.makeUnsafe(),
        handlers: new Map(),
        fiber: undefined,
        peeks: this.#options.lateCollection,
      }
      this.table.set(child.pid, child)
      const self: ProgramContext = {
        pid: child.pid,
        command: spec.command,
        args: spec.args,
        env: spec.env,
        print: (line) => Effect.sync(() => print(line)),
        fork: (inner) =>
          Effect.map(
            this.start(inner, { ...spec, command: `${spec.command} (child)` }, child.pid, print),
            ({ pid }) => pid,
          ),
        onSignal: (signal, handler) => Effect.sync(() => void child.handlers.set(signal, handler)),
      }
      return Effect.suspend(() => program(self)).pipe(
        Effect.flatMap((code) => Effect.sync(() => this.#end(child, { _tag: "Exited", code: code & 0xff }))),
        // A program that breaks ends as a crashed one does.
        Effect.catchCause(() => Effect.sync(() => this.#end(child, { _tag: "Signaled", signal: "SIGABRT" }))),
        Effect.forkDetach,
        Effect.map((fiber) => {
          child.fiber = fiber
          return {
            pid: child.pid,
            exit: Deferred.await(child.ended),
            hasEnded: () => Deferred.isDoneUnsafe(child.ended),
          }
        }),
      )
    })

  #end(child: Process, status: ExitStatus): void {
    if (child.status !== undefined) return
    child.status = status
    child.fiber?.interruptUnsafe()
    for (const other of this.table.values()) if (other.parent === child.pid) other.parent = INIT
    if (child.supervised && child.peeks === 0) this.#collect(child)
    this.#options.tellInit("SIGCHLD")
  }

  #collect(child: Process): void {
    this.table.delete(child.pid)
    if (child.status !== undefined) Deferred.doneUnsafe(child.ended, Effect.succeed(child.status))
  }

  /** kill(2). The pid is there, or -1. */
  readonly kill = (pid: number, signal: Signal): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (pid === INIT) return Effect.sync(() => this.#options.tellInit(signal))
      // Every process that one may signal, except init and oneself.
      if (pid === -1)
        return Effect.forEach([...this.table.keys()], (other) => this.kill(other, signal), { discard: true })
      const child = this.table.get(pid)
      if (child === undefined || child.status !== undefined) return Effect.void
      const handler = signal === "SIGKILL" ? undefined : child.handlers.get(signal)
      if (handler !== undefined) return Effect.asVoid(Effect.forkDetach(handler))
      return Effect.sync(() => {
        if (!ignored.has(signal)) this.#end(child, { _tag: "Signaled", signal })
      })
    })

  /** waitid(2), P_ALL with WNOHANG and WNOWAIT. */
  peek(): DeadChild | undefined {
    for (const child of this.table.values()) {
      if (child.parent !== INIT || child.status === undefined) continue
      if (child.supervised && child.peeks-- <= 0) {
        this.#collect(child)
        continue
      }
      return { pid: child.pid, supervised: child.supervised }
    }
    return undefined
  }

  /** waitpid(2). */
  reap(pid: number): void {
    const child = this.table.get(pid)
    if (child === undefined || child.parent !== INIT || child.status === undefined) return
    if (child.supervised) this.stolen.push(pid)
    this.table.delete(pid)
  }
}
