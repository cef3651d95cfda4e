/**
 * What is left of a node once its stages have let go: containers and their
 * shims, which outlive containerd on purpose, and the mounts made for them.
 * A filesystem that they hold open cannot be unmounted, and one that is not
 * unmounted has its journal replayed at the next boot. So, before reboot(2):
 *
 *   1. SIGTERM to everybody, and time to end
 *   2. SIGKILL to those who stayed, who are named
 *   3. every mount away, the last made first; of what will not go it is said
 *      who holds it, what lies on a disk becomes read-only, and then it is
 *      detached
 *
 * kill(2) with pid -1, proc_pid_stat(5), proc_pid_mountinfo(5), umount2(2).
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { holdersOf } from "./internal/holders.ts"
import * as Mountinfo from "./internal/mountinfo.ts"
import { Kernel, type Signal } from "./Kernel.ts"
import type { KernelError } from "./KernelError.ts"
import { Shutdown } from "./Shutdown.ts"

export type { MountedAt } from "./internal/mountinfo.ts"

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

/** A process that still runs. */
export interface Survivor {
  readonly pid: number
  /** As the kernel has it: at most 15 characters. */
  readonly name: string
}

/**
 * The processes other than init that still run.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 * import * as Effect from "effect/Effect"
 *
 * const tell = Effect.flatMap(Teardown.survivors, (left) =>
 *   Effect.log(`still running: ${left.map(({ name }) => name).join(", ")}`),
 * )
 * ```
 */
export const survivors: Effect.Effect<ReadonlyArray<Survivor>, KernelError, Kernel> = Effect.gen(
  function* () {
    const kernel = yield* Kernel
    const found: Array<Survivor> = []
    for (const entry of yield* kernel.readDirectory("/proc")) {
      if (!/^\d+$/u.test(entry) || entry === "1") continue
      // It may end while we look.
      const stat = yield* Effect.catch(kernel.readText(`/proc/${entry}/stat`), () => Effect.succeed(""))
      if (stat !== "" && isLiveProcess(stat))
        found.push({ pid: Number(entry), name: stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")")) })
    }
    return found
  },
)

const named = (processes: ReadonlyArray<Survivor>): string =>
  processes.map(({ name, pid }) => `${name} (${pid})`).join(", ")

/** Sends the signal to everybody and waits until nobody is left; returns who is when the time is over. */
const signalAndWait = Effect.fnUntraced(function* (signal: Signal, time: Effect.Effect<void>) {
  const kernel = yield* Kernel
  const left = yield* survivors
  if (left.length === 0) return left
  yield* Effect.catchIf(
    kernel.kill(EVERYBODY, signal),
    (error) => error.errno === "ESRCH",
    () => Effect.void,
  )
  const nobodyIsLeft = Effect.andThen(Effect.sleep("50 millis"), survivors).pipe(
    Effect.repeat({ until: (now: ReadonlyArray<Survivor>) => now.length === 0 }),
  )
  // Where resources are released nothing else is: who loses the race would be waited for.
  return yield* Effect.raceFirst(
    Effect.interruptible(nobodyIsLeft),
    Effect.interruptible(Effect.andThen(time, survivors)),
  )
})

/**
 * Ends every process but init: SIGTERM, `grace` (default 10 seconds, and less
 * when somebody is in a hurry), SIGKILL. Who is killed, and who even then does
 * not end, is told. Only PID 1 may call it: kill(2) spares nobody else.
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
): Effect.Effect<ReadonlyArray<Survivor>, never, Kernel | Shutdown> =>
  Effect.gen(function* () {
    const shutdown = yield* Shutdown
    const stayed = yield* signalAndWait("SIGTERM", shutdown.grace(grace))
    if (stayed.length === 0) return []
    yield* shutdown.remark(`killing ${named(stayed)}`)
    const left = yield* signalAndWait("SIGKILL", Effect.sleep(KILL_DEADLINE))
    if (left.length > 0) yield* shutdown.remark(`not even SIGKILL ends ${named(left)}`)
    return left
  }).pipe(
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`ending what still runs: ${error.message}`), [] as ReadonlyArray<Survivor>),
    ),
  )

/**
 * Reads `/proc/self/mountinfo`, in its order. Lines that are none are left out.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * Teardown.parseMountinfo("36 35 0:32 / /run rw,nosuid shared:1 - tmpfs tmpfs rw,size=64M")
 * // [{ id: "36", parent: "35", device: "0:32", target: "/run", fstype: "tmpfs", source: "tmpfs", options: "rw,size=64M" }]
 * ```
 */
export const parseMountinfo = (text: string): ReadonlyArray<Mountinfo.MountedAt> =>
  Mountinfo.parseMountinfo(text)

// The kernel's own, which hold no data and which init still needs.
const kept = new Set(["proc", "sysfs", "devtmpfs", "rootfs"])
// What they hold is gone with the machine, so who holds them is of no interest.
const inMemory = new Set(
  "bpf cgroup2 debugfs devpts efivarfs hugetlbfs mqueue nsfs pstore ramfs securityfs tmpfs tracefs".split(
    " ",
  ),
)
// A mount may hide another one, or hold it by its layers.
const ROUNDS = 3

/**
 * Unmounts everything except the root and the kernel's own filesystems. Of what
 * will not go, and is not in memory only, it is told who holds it. If it lies
 * on a block device it is made read-only, which writes all of it and leaves the
 * filesystem clean. Then it is detached, so that what is below it may go.
 *
 * @example
 * ```ts
 * import * as Teardown from "@kios/core/Teardown"
 *
 * const before = Teardown.unmountAll // reboot(2) comes next
 * ```
 */
export const unmountAll: Effect.Effect<void, never, Kernel | Shutdown> = Effect.gen(function* () {
  const kernel = yield* Kernel
  const shutdown = yield* Shutdown
  const mounts = Effect.map(kernel.readText("/proc/self/mountinfo"), (text) =>
    parseMountinfo(text)
      .filter(({ fstype, target }) => target !== "/" && !kept.has(fstype))
      .toReversed(),
  )
  let left = yield* mounts
  for (let round = 0; round < ROUNDS && left.length > 0; round++) {
    for (const { target } of left) yield* Effect.ignore(kernel.umount(target))
    left = yield* mounts
  }
  for (const mount of left) {
    const { fstype, source, target } = mount
    if (inMemory.has(fstype)) {
      yield* Effect.ignore(kernel.umount(target, ["MNT_DETACH"]))
      continue
    }
    const holders = yield* holdersOf(mount)
    const onDisk = source.startsWith("/dev/")
    yield* shutdown.remark(
      `${target} is busy, held by ${holders.length === 0 ? "nobody that can be found" : holders.join(", ")}${onDisk ? `: making ${source} read-only` : ""}`,
    )
    if (onDisk)
      yield* kernel
        .mount({ source: "none", target, fstype: "none", flags: ["MS_REMOUNT", "MS_RDONLY"] })
        .pipe(Effect.catch((error) => shutdown.remark(error.message)))
    yield* Effect.catch(kernel.umount(target, ["MNT_DETACH"]), (error) => shutdown.remark(error.message))
  }
}).pipe(Effect.catch((error) => Effect.logWarning(`unmounting: ${error.message}`)))
