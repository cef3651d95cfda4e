import { Effect, Schedule, type Scope } from "effect"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import type { DiskFull, FileFailure } from "./ComponentError.ts"
import { errnoOf, io } from "./Files.ts"
import { report } from "./Progress.ts"

/** Seconds between the signs of life that a holder gives by the lock file's time. */
const HEARTBEAT = 5

/** Seconds without a sign of life after which a lock of a process that can not be seen counts as left behind. */
const ABANDONED = 60

interface Holder {
  readonly pid: number
  /** Start time of the process (field 22 of /proc/pid/stat): a pid alone may be someone else's by now. */
  readonly start: string
  /** The pid namespace that the pid is of: containers may share a cache. */
  readonly namespace: string
  readonly id: string
}

const startTime = (pid: number): string | undefined => {
  try {
    // The command name is in parentheses and may contain anything: count from its end.
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
  } catch {
    return undefined
  }
}

const pidNamespace = (): string => {
  try {
    return fs.readlinkSync("/proc/self/ns/pid")
  } catch {
    return "unknown"
  }
}

/** Whether the process that a lock or a scratch directory names is gone. */
export const isProcessGone = (pid: number, start: string): boolean => startTime(pid) !== start

/** This process as its locks and scratch directories name it. */
export const thisProcess = (): {
  readonly pid: number
  readonly start: string
  readonly namespace: string
} => ({
  pid: process.pid,
  start: startTime(process.pid) ?? "0",
  namespace: pidNamespace(),
})

const parseHolder = (text: string): Holder | undefined => {
  try {
    const value = JSON.parse(text) as Partial<Holder>
    return typeof value.pid === "number" && typeof value.start === "string" ? (value as Holder) : undefined
  } catch {
    return undefined
  }
}

/** The holder of a lock, and whether it left the lock behind. Undefined when there is no lock any more. */
const inspect = async (
  file: string,
  now: number,
): Promise<
  { readonly text: string; readonly holder: Holder | undefined; readonly stale: boolean } | undefined
> => {
  try {
    const [text, stat] = await Promise.all([fsp.readFile(file, "utf8"), fsp.stat(file)])
    const holder = parseHolder(text)
    const visible = holder !== undefined && holder.namespace === pidNamespace()
    const stale = visible ? isProcessGone(holder.pid, holder.start) : (now - stat.mtimeMs) / 1000 > ABANDONED
    return { text, holder, stale }
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return undefined
    throw cause
  }
}

/**
 * Take away a lock that was left behind. It is moved aside first and looked at
 * again: if another process was faster and this is already its fresh lock, it
 * is put back.
 */
const removeStale = async (file: string, seen: string): Promise<void> => {
  const aside = `${file}.${randomUUID()}`
  try {
    await fsp.rename(file, aside)
    if ((await fsp.readFile(aside, "utf8")) !== seen) await fsp.link(aside, file)
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT" && errnoOf(cause) !== "EEXIST") throw cause
  } finally {
    await fsp.rm(aside, { force: true })
  }
}

/** True when it is ours now, else who has it. */
const tryLock = async (file: string, text: string): Promise<true | Holder | undefined> => {
  // A complete file appears by link(2), so nobody ever reads half a lock.
  const mine = `${file}.${randomUUID()}`
  await fsp.mkdir(path.dirname(file), { recursive: true })
  await fsp.writeFile(mine, text)
  try {
    await fsp.link(mine, file)
    return true
  } catch (cause) {
    if (errnoOf(cause) !== "EEXIST") throw cause
    const found = await inspect(file, Date.now())
    if (found?.stale === true) await removeStale(file, found.text)
    return found?.stale === true ? undefined : found?.holder
  } finally {
    await fsp.rm(mine, { force: true })
  }
}

/**
 * Hold a lock file for the life of the scope. While another process holds it,
 * waits and says for whom; a lock whose process is gone is taken over at once.
 * Correctness of the cache does not hang on it (publishing is atomic): it keeps
 * two builds from doing the same work.
 *
 * @param file Path of the lock file; its directory is made.
 * @param component Name for the progress event.
 * @param doing What the lock is for: "building kubelet".
 */
export const lockFile = (
  file: string,
  component: string,
  doing: string,
): Effect.Effect<void, DiskFull | FileFailure, Scope.Scope> =>
  Effect.gen(function* () {
    const text = JSON.stringify({ ...thisProcess(), id: randomUUID() } satisfies Holder)
    let told: number | undefined
    const attempt = Effect.gen(function* () {
      const outcome = yield* io("locking", file, () => tryLock(file, text))
      if (outcome === true) return true
      if (outcome !== undefined && told !== outcome.pid && outcome.pid !== process.pid) {
        told = outcome.pid
        yield* report({ _tag: "Waiting", component, reason: `process ${outcome.pid} is ${doing} (${file})` })
      }
      return false
    })
    const release = Effect.promise(async () => {
      const found = await inspect(file, Date.now()).catch(() => undefined)
      if (found?.text === text) await fsp.rm(file, { force: true })
    })
    yield* Effect.acquireRelease(
      attempt.pipe(Effect.repeat({ until: (mine) => mine, schedule: Schedule.spaced("200 millis") })),
      () => release,
      { interruptible: true },
    )
    yield* Effect.forkScoped(
      Effect.promise(() => fsp.utimes(file, new Date(), new Date()).catch(() => {})).pipe(
        Effect.repeat(Schedule.spaced(`${HEARTBEAT} seconds`)),
      ),
    )
  })
