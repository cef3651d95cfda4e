/**
 * Who keeps a filesystem from being unmounted: processes by what they have
 * open, run or are in, mounts on it or made of it, and other mount namespaces,
 * in which it is mounted as well. proc_pid_fd(5), proc_pid_cwd(5),
 * proc_pid_root(5), proc_pid_exe(5), proc_pid_mountinfo(5).
 */
import * as Effect from "effect/Effect"
import { Kernel } from "../Kernel.ts"
import { type MountedAt, parseMountinfo } from "./mountinfo.ts"

// More tells an operator nothing new, and a node may have thousands.
const MOST = 8

/** Whether the path is the directory or below it. */
const isBelow = (path: string, directory: string): boolean =>
  path === directory || path.startsWith(directory.endsWith("/") ? directory : `${directory}/`)

/** In words, such as `containerd (123) by fd 7 /var/lib/x`. What cannot be read has ended, or is somebody else's. */
export const holdersOf = (mount: MountedAt): Effect.Effect<ReadonlyArray<string>, never, Kernel> =>
  Effect.gen(function* () {
    const kernel = yield* Kernel
    const text = (path: string) => Effect.orElseSucceed(kernel.readText(path), () => "")
    const link = (path: string) => Effect.orElseSucceed(kernel.readLink(path), () => "")
    const list = (path: string) =>
      Effect.orElseSucceed(kernel.readDirectory(path), (): ReadonlyArray<string> => [])
    const own = yield* text("/proc/self/mountinfo")
    const found: Array<string> = []
    for (const other of parseMountinfo(own)) {
      if (other.parent === mount.id) found.push(`the mount at ${other.target}`)
      else if (
        other.id !== mount.id &&
        other.options.split(/[,:=]/u).some((word) => word.startsWith("/") && isBelow(word, mount.target))
      )
        found.push(`the ${other.fstype} at ${other.target}`)
    }
    // One process stands for its namespace.
    const namespaces = new Set([yield* link("/proc/self/ns/mnt")])
    for (const pid of yield* list("/proc")) {
      if (found.length >= MOST) break
      if (!/^\d+$/u.test(pid)) continue
      const directory = `/proc/${pid}`
      const name = `${(yield* text(`${directory}/comm`)).trim()} (${pid})`
      const holds = (how: string, path: string) => {
        if (isBelow(path, mount.target)) found.push(`${name} by ${how} ${path}`)
      }
      for (const how of ["cwd", "root", "exe"]) holds(how, yield* link(`${directory}/${how}`))
      // One is enough: a program maps many files.
      const mapped = (yield* text(`${directory}/maps`))
        .split("\n")
        .map((line) => line.slice(line.indexOf("/")))
        .find((path) => isBelow(path, mount.target))
      if (mapped !== undefined) holds("its map of", mapped)
      for (const fd of yield* list(`${directory}/fd`)) holds(`fd ${fd}`, yield* link(`${directory}/fd/${fd}`))
      const namespace = yield* link(`${directory}/ns/mnt`)
      if (namespace === "" || namespaces.has(namespace)) continue
      namespaces.add(namespace)
      const there = parseMountinfo(yield* text(`${directory}/mountinfo`)).find(
        ({ device }) => device === mount.device,
      )
      if (there !== undefined) found.push(`the mount namespace of ${name}, at ${there.target}`)
    }
    return found.slice(0, MOST)
  })
