// The contract on the in-memory containerd.
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import { contract } from "./contract.ts"
import { makeFakeContainerd } from "./support/FakeContainerd.ts"
import { tempDir } from "./support/http2Server.ts"

describe("fake containerd", () => {
  contract(
    Effect.gen(function* () {
      const fake = yield* makeFakeContainerd(`${yield* tempDir}/c.sock`)
      return { address: fake.address, restart: Effect.andThen(fake.stop, fake.start) }
    }),
  )
})
