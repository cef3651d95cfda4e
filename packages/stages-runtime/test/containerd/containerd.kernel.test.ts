// The contract on the real containerd, as root, with its root and state in a temporary directory.
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import { contract } from "./contract.ts"
import { tempDir } from "./support/http2Server.ts"
import { containerdBinary, startContainerd } from "./support/realContainerd.ts"

const binary = containerdBinary()

describe.skipIf(binary === undefined)("real containerd", () => {
  contract(
    Effect.gen(function* () {
      const containerd = yield* startContainerd(binary!, yield* tempDir)
      return { address: containerd.address, restart: containerd.restart }
    }),
  )
})
