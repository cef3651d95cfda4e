/**
 * What is left of a node once its stages have let go: containers and their
 * shims, which outlive containerd on purpose, and the mounts made for them.
 * A filesystem that they hold open cannot be unmounted, and one that is not
 * unmounted has its journal replayed at the next boot. So, before reboot(2):
 *
 *   1. SIGTERM to everybody, and time to end
 *   2. SIGKILL to those who stayed
 *   3. every mount away, the last made first; what will not go and lies on a
 *      disk becomes read-only
 *
 * kill(2) with pid -1, proc_pid_stat(5), proc_pid_mountinfo(5).
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Kernel, type Signal } from "./Kernel.ts"
import type { KernelError } from "./KernelError.ts"

// Enough for a database to write its log; the pod's own grace period is the kubelet's business.
const GRACE = "10 seconds"
// A killed process that is still there waits for a disk that does not answer.
const KILL_DEADLINE = "5 seconds"
const EVERYBODY = -1
// include/linux/sched.h: PF_KTHREAD
const KERNEL_THREAD = 0x0020_0000

/**
 * Whether `/proc/PID/stat` is that of a process that can still do something: no kernel thread, no zombie.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * Teardown.isLiveProcess("7 (containerd) S 1 7 7 0 -1 4194560") // true
 * Teardown.isLiveProcess("7 (containerd) Z 1 7 7 0 -1 4194560") // false
 * ```
 */
export const isLiveProcess = (stat: string): boolean => {
  // The name, in parentheses, may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const [state = "", , , , , , flags = "0"] = fields
  return !["", "Z", "X"].includes(state) && (Number(flags) & KERNEL_THREAD) === 0
}

/**
 * The processes other than init that still run, by pid.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 * import * as Effect from "effect/Effect"
 *
 * const tell = Effect.flatMap(Teardown.survivors, (pids) => Effect.log(`still running: ${pids.join(", ")}`))
 * ```
 */
export const survivors: Effect.Effect<ReadonlyArray<number>, KernelError, Kernel> = Effect.gen(function* () {
  const kernel = yield* Kernel
  const found: Array<number> = []
  for (const name of yield* kernel.readDirectory("/proc")) {
    if (!/^\d+$/u.test(name) || name === "1") continue
    // It may end while we look.
    const stat = yield* Effect.catch(kernel.readText(`/proc/${name}/stat`), () => Effect.succeed(""))
    if (stat !== "" && isLiveProcess(stat)) found.push(Number(name))
  }
  return found
})

/** Sends the signal to everybody and waits until nobody is left; returns who is, after `within`. */
const signalAndWait = Effect.fnUntraced(function* (signal: Signal, within: Duration.Input) {
  const kernel = yield* Kernel
  const deadline =
    (yield* Clock.monotonicTimeNanos) +
    BigInt(Duration.toMillis(Duration.fromInputUnsafe(within))) * 1_000_000n
  let left = yield* survivors
  if (left.length > 0)
    yield* Effect.catchIf(
      kernel.kill(EVERYBODY, signal),
      (error) => error.errno === "ESRCH",
      () => Effect.void,
    )
  while (left.length > 0 && (yield* Clock.monotonicTimeNanos) < deadline) {
    yield* Effect.sleep("50 millis")
    left = yield* survivors
  }
  return left
})

/**
 * Ends every process but init: SIGTERM, `grace` (default 10 seconds), SIGKILL.
 * Returns the pids that even that did not end, which are told. Only PID 1 may
 * call it: kill(2) spares nobody else.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * const left = Teardown.endProcesses("2 seconds")
 * ```
 */
export const endProcesses = (
  grace: Duration.Input = GRACE,
): Effect.Effect<ReadonlyArray<number>, never, Kernel> =>
  Effect.gen(function* () {
    if ((yield* signalAndWait("SIGTERM", grace)).length === 0) return []
    const left = yield* signalAndWait("SIGKILL", KILL_DEADLINE)
    if (left.length > 0) yield* Effect.logWarning(`processes ${left.join(", ")} do not end`)
    return left
  }).pipe(
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`ending what still runs: ${error.message}`), [] as ReadonlyArray<number>),
    ),
  )

/** A mount, as far as taking it down needs to know it. */
export interface MountedAt {
  readonly target: string
  readonly fstype: string
  readonly source: string
}

/**
 * Reads `/proc/self/mountinfo`, in its order. Lines that are none are left out.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * Teardown.parseMountinfo("36 35 0:32 / /run rw,nosuid shared:1 - tmpfs tmpfs rw,size=64M")
 * // [{ target: "/run", fstype: "tmpfs", source: "tmpfs" }]
 * ```
 */
export const parseMountinfo = (text: string): ReadonlyArray<MountedAt> =>
  text.split("\n").flatMap((line) => {
    const [before = "", after] = line.split(" - ", 2)
    const target = before.split(" ")[4]
    if (target === undefined || after === undefined) return []
    const [fstype = "", source = ""] = after.split(" ")
    return [{ target: unescape(target), fstype, source: unescape(source) }]
  })

// Space, tab, newline and backslash are written in octal.
const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/gu, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

// The kernel's own, which hold no data and which init still needs.
const kept = new Set(["proc", "sysfs", "devtmpfs", "rootfs"])
// A mount may hide another one, or hold it by its layers.
const ROUNDS = 3

/**
 * Unmounts everything except the root and the kernel's own filesystems. What
 * lies on a block device and will not go is made read-only, which writes all of
 * it and leaves the filesystem clean, and is told.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * const before = Teardown.unmountAll // reboot(2) comes next
 * ```
 */
export const unmountAll: Effect.Effect<void, never, Kernel> = Effect.gen(function* () {
  const kernel = yield* Kernel
  const mounted = Effect.map(kernel.readText("/proc/self/mountinfo"), (text) =>
    parseMountinfo(text)
      .filter(({ fstype, target }) => target !== "/" && !kept.has(fstype))
      .toReversed(),
  )
  let left = yield* mounted
  for (let round = 0; round < ROUNDS && left.length > 0; round++) {
    for (const { target } of left) yield* Effect.ignore(kernel.umount(target))
    left = yield* mounted
  }
  for (const { source, target } of left) {
    if (!source.startsWith("/dev/")) continue
    yield* Effect.logWarning(`${target} is still in use: making ${source} read-only`)
    yield* kernel
      .mount({ source: "none", target, fstype: "none", flags: ["MS_REMOUNT", "MS_RDONLY"] })
      .pipe(Effect.catch((error) => Effect.logWarning(error.message)))
  }
}).pipe(Effect.catch((error) => Effect.logWarning(`unmounting: ${error.message}`)))
