/** What the kernel says of a cgroup's memory; Documentation/admin-guide/cgroup-v2.rst. */
import * as Effect from "effect/Effect"
import type { KernelShape } from "../Kernel.ts"

/** How often the kernel has ended a process of this group for want of memory; undefined when it does not say. */
export const oomKills = Effect.fnUntraced(function* (kernel: KernelShape, cgroup: string | undefined) {
  if (cgroup === undefined) return undefined
  // Not there without the memory controller; then a death by SIGKILL is just that.
  const text = yield* Effect.orElseSucceed(kernel.readText(`${cgroup}/memory.events`), () => "")
  const found = /^oom_kill (\d+)$/mu.exec(text)?.[1]
  return found === undefined ? undefined : Number(found)
})
