import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as Readiness from "@kios/core/Readiness"

const serve = (answer: (request: number, response: http.ServerResponse) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ url: string; requests: () => number; server: http.Server }>((resume) => {
      let requests = 0
      const server = http.createServer((_, response) => answer(++requests, response))
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/healthz`, requests: () => requests, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.closeAllConnections()
        server.close(() => resume(Effect.void))
      }),
  )

describe("httpOk", () => {
  it.live("is ready at the first 200, and asks again until then", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serve((request, response) => {
        response.statusCode = request < 3 ? 503 : 200
        response.end("x")
      })
      yield* Effect.timeout(Readiness.httpOk(url).await, "10 seconds")
      assert.strictEqual(requests(), 3)
    }),
  )

  it.live("a server that is not there yet is waited for", () =>
    Effect.gen(function* () {
      const { server, url } = yield* serve((_, response) => void response.end())
      yield* Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      const waiting = yield* Effect.forkChild(Readiness.httpOk(url).await, { startImmediately: true })
      const again = http.createServer((_, response) => void response.end())
      yield* Effect.callback<void>(
        (resume) => void again.listen(Number(new URL(url).port), "127.0.0.1", () => resume(Effect.void)),
      )
      yield* Effect.timeout(Fiber.join(waiting), "10 seconds")
      again.closeAllConnections()
      again.close()
    }),
  )

  it.live("a server that never answers is asked again", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serve((request, response) => {
        if (request > 1) response.end()
      })
      yield* Effect.timeout(Readiness.httpOk(url, 50).await, "10 seconds")
      assert.strictEqual(requests(), 2)
    }),
  )

  it.live("asking can be given up", () =>
    Effect.gen(function* () {
      const { url } = yield* serve(() => {})
      const exit = yield* Effect.exit(Effect.timeout(Readiness.httpOk(url).await, "50 millis"))
      assert.strictEqual(exit._tag, "Failure")
    }),
  )

  it("says what it asks", () => {
    assert.strictEqual(Readiness.httpOk("http://127.0.0.1:1/x").description, "GET http://127.0.0.1:1/x")
  })
})
