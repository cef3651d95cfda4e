// What init's probes ask: containerd's health on a unix socket, the kubelet's by HTTP; started by idle.ts.
// Prints the port. Every 500 answers it ends all connections, as a restart does.
import { Effect } from "effect"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import { makeFakeContainerd } from "../../../packages/stages-runtime/test/containerd/support/FakeContainerd.ts"

const address = process.argv[2] ?? ""

await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const containerd = yield* makeFakeContainerd(address)
      let answers = 0
      const server = http.createServer((_request, response) => {
        response.end("ok")
        if (++answers % 500 === 0) Effect.runFork(Effect.andThen(containerd.stop, containerd.start))
      })
      server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port))
      return yield* Effect.never
    }),
  ),
)
