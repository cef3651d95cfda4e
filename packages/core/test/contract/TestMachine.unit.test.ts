// The contract on the machine in memory. LinuxKernel.kernel.test.ts runs what namespaces can show on the host's
// kernel, and contract.vm.test.ts of the distro all of it on the kernel that we ship.
import { describe, it } from "@effect/vitest"
import { all } from "./cases.ts"
import { runInMemory } from "./memory.ts"

describe("contract: TestMachine", () => {
  for (const one of all) it.live(one.name, () => runInMemory(one))
})
