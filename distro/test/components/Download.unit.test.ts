import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import { writeStream } from "../../src/components/Files.ts"
import * as Download from "../../src/components/sources/Download.ts"
import { machine, temporaryDirectory, tool } from "./support.ts"

const BODY = "x".repeat(300_000)
const sha256 = createHash("sha256").update(BODY).digest("hex")

/** A server on the loopback interface; its address ends with a slash. */
const serve = (listener: RequestListener) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly close: () => void }>((resume) => {
      const server = createServer(listener)
      server.listen(0, "127.0.0.1", () => {
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
        const close = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ url, close }))
      })
    }),
    ({ close }) => Effect.sync(close),
  )

const get = (url: string, silence?: number) =>
  Effect.gen(function* () {
    const there = machine({ root: yield* temporaryDirectory })
    const options = { url, sha256, to: "bin/tool", executable: true }
    const source = Download.source(silence === undefined ? options : { ...options, silence })
    return { ...there, outcome: yield* Effect.result(there.resolve(tool(source))) }
  })

const failure = (url: string, silence?: number) =>
  Effect.map(get(url, silence), ({ contents, outcome }) => {
    assert.deepStrictEqual(contents(), { components: [], scratch: [], locks: [] })
    if (outcome._tag === "Success") throw new Error("it should have failed")
    return outcome.failure
  })

it.live("keeps what is served when it is what the recipe pins", () =>
  Effect.gen(function* () {
    const { url } = yield* serve((_, response) => response.end(BODY))
    const { outcome } = yield* get(`${url}tool`)
    assert.strictEqual(outcome._tag, "Success")
    if (outcome._tag === "Success") {
      assert.deepStrictEqual(outcome.success.files, [
        { path: "bin/tool", sha256, size: 300_000, mode: 0o755 },
      ])
    }
  }),
)

it.live("refuses anything else, and says what it got", () =>
  Effect.gen(function* () {
    const { url } = yield* serve((_, response) => response.end("<html>"))
    const error = yield* failure(`${url}tool`)
    assert.strictEqual(error._tag, "DigestMismatch")
    assert.match(error.message, /got {6}sha256:[0-9a-f]{64} \(6 bytes\)/u)
  }),
)

it.live("names the status of a refusal, and a refused connection as offline", () =>
  Effect.gen(function* () {
    const { close, url } = yield* serve((_, response) => response.writeHead(404).end())
    assert.match((yield* failure(url)).message, /HTTP 404 Not Found/u)
    close()
    const error = yield* failure(url)
    assert.match(
      error.message,
      /seems to be offline[\s\S]*offline: http:\/\/127\.0\.0\.1:\d+\/: ECONNREFUSED/u,
    )
  }),
)

it.live("gives up on a server that says nothing, before and after the headers", () =>
  Effect.gen(function* () {
    const silent = yield* serve(() => {})
    assert.match((yield* failure(silent.url, 50)).message, /no answer from/u)
    const stalls = yield* serve((_, response) => {
      response.writeHead(200, { "content-length": BODY.length })
      response.write(BODY.slice(0, 1000))
    })
    assert.match((yield* failure(stalls.url, 50)).message, /no answer from/u)
  }),
)

it.live("a connection that breaks in the middle is no file", () =>
  Effect.gen(function* () {
    const { url } = yield* serve((_, response) => {
      response.writeHead(200, { "content-length": BODY.length })
      response.write(BODY.slice(0, 1000), () => response.destroy())
    })
    const error = yield* failure(url)
    assert.strictEqual(error._tag, "NotAvailable")
  }),
)

it.live("a full disk is not taken for a bad connection", () =>
  Effect.gen(function* () {
    const body = (async function* () {
      yield Buffer.from(BODY)
    })()
    // full(4): every write fails with ENOSPC.
    const error = yield* Effect.flip(writeStream("downloading tool", body, "/dev/full"))
    assert.strictEqual(error._tag, "DiskFull")
    assert.match(error.message, /^No space left on device while downloading tool: \/dev\/full/u)
  }),
)
