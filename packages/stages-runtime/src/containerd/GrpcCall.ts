/**
 * One gRPC call over one HTTP/2 stream, for messages in either direction.
 *
 * The states of a call: the HTTP/2 stream is open (messages wait in `inbox`, or a reader waits in
 * `waiter`), then it closes once, which fixes `outcome`: "ok" or a {@link GrpcError}. Readers get the
 * inbox first and the outcome after it. All callbacks of node end in `settle` and none of them throws.
 */
import type * as http2 from "node:http2"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { encodeFrame, makeFrameDecoder } from "./GrpcFrame.ts"
import {
  codeOf,
  codeOfHttpStatus,
  codeOfReset,
  decodeStatusMessage,
  type GrpcCode,
  GrpcError,
} from "./GrpcStatus.ts"

/** A call in progress. */
export interface GrpcCall {
  /**
   * Sends one message and waits until the kernel has taken it, so that a sender holds one message at a time.
   * Fails when the call is over; `receive` then tells why it ended.
   */
  readonly send: (message: Uint8Array) => Effect.Effect<void, GrpcError>
  /** As `send`, for a frame that is complete; its bytes may be used again when this has succeeded. */
  readonly sendFrame: (frame: Uint8Array) => Effect.Effect<void, GrpcError>
  /** Ends our half of the call. */
  readonly closeSend: Effect.Effect<void>
  /** The next message; none after the last one of a call that ended with OK. One reader at a time. */
  readonly receive: Effect.Effect<Option.Option<Uint8Array>, GrpcError>
  /** Gives the call up (RST_STREAM with CANCEL). Does nothing to a call that is over. */
  readonly cancel: Effect.Effect<void>
}

// RFC 9113, section 7
const NO_ERROR = 0
const CANCEL = 8

// Node's own buffer below holds up to one flow-control window more.
const inboxHighWater = 256 * 1024

const header = (headers: http2.IncomingHttpHeaders, name: string): string | undefined => {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** Wraps an HTTP/2 stream that was just requested. `lost` explains a connection that went away, if it did. */
export const makeCall = (options: {
  readonly stream: http2.ClientHttp2Stream
  readonly method: string
  readonly address: string
  readonly maxMessageBytes: number
  readonly lost: () => string | undefined
}): GrpcCall => {
  const { stream, method, address } = options
  const decoder = makeFrameDecoder(options.maxMessageBytes)
  const inbox: Array<Uint8Array> = []
  let inboxBytes = 0
  let outcome: "ok" | GrpcError | undefined
  let waiter: (() => void) | undefined
  const onClosed = new Set<() => void>()
  let status: { readonly code: string; readonly message: string } | undefined
  let fault: GrpcError | undefined
  let streamError: Error | undefined

  const error = (code: GrpcCode, reason: string) => new GrpcError({ method, address, code, reason })
  const wake = () => {
    const resume = waiter
    waiter = undefined
    resume?.()
  }
  const settle = (result: "ok" | GrpcError) => {
    if (outcome !== undefined) return
    outcome = result
    wake()
    for (const resume of onClosed) resume()
    onClosed.clear()
  }
  // A fault that we found in what the server sent: stop listening to it at once.
  const reject = (reason: GrpcError) => {
    fault ??= reason
    settle(fault)
    stream.close(CANCEL)
  }
  const readStatus = (headers: http2.IncomingHttpHeaders) => {
    const code = header(headers, "grpc-status")
    if (code === undefined) return
    status = { code, message: decodeStatusMessage(header(headers, "grpc-message") ?? "") }
  }

  // The server's status ends the call, also when our half is still open: we close it then.
  const concludeByStatus = () => {
    if (status === undefined || outcome !== undefined) return
    const code = codeOf(status.code)
    if (code !== "OK") settle(error(code, status.message === "" ? "no reason given" : status.message))
    else if (decoder.pending() > 0)
      settle(error("INTERNAL", `the answer ends after ${decoder.pending()} bytes of an unfinished message`))
    else settle("ok")
    if (!stream.closed && !stream.destroyed && !stream.writableEnded) stream.close(CANCEL)
  }

  stream.on("response", (headers) => {
    const http = Number(headers[":status"])
    readStatus(headers) // "trailers only": a call that fails at once
    if (status !== undefined) return
    if (http !== 200) reject(error(codeOfHttpStatus(http), `HTTP status ${http} instead of a gRPC answer`))
    else if (!(header(headers, "content-type") ?? "").startsWith("application/grpc")) {
      const type = decodeStatusMessage(header(headers, "content-type") ?? "")
      reject(error("UNKNOWN", `answer with content-type "${type}" instead of application/grpc`))
    }
  })
  stream.on("trailers", (headers) => {
    readStatus(headers)
    if (stream.readableEnded) concludeByStatus()
  })
  stream.on("end", concludeByStatus)
  stream.on("data", (chunk: Buffer) => {
    if (fault !== undefined) return
    const decoded = decoder.push(chunk)
    for (const message of decoded.messages) {
      inbox.push(message)
      inboxBytes += message.length
    }
    if (decoded.error !== undefined) {
      const code = decoded.error.includes("limit") ? "RESOURCE_EXHAUSTED" : "INTERNAL"
      return reject(error(code, `malformed answer: ${decoded.error}`))
    }
    if (inboxBytes > inboxHighWater) stream.pause()
    if (inbox.length > 0) wake()
  })
  stream.on("error", (e: Error) => {
    streamError = e
  })
  stream.on("close", () => {
    if (outcome !== undefined) return
    if (status !== undefined) return concludeByStatus()
    const lost = options.lost()
    if (lost !== undefined) return settle(error("UNAVAILABLE", lost))
    // A dying connection closes its streams before it says that it died: ask once more when it has.
    setImmediate(() => {
      const lost = options.lost()
      if (lost !== undefined) return settle(error("UNAVAILABLE", lost))
      const reset = stream.rstCode ?? NO_ERROR
      if (reset !== NO_ERROR)
        return settle(error(codeOfReset(reset), `stream reset with HTTP/2 error ${reset}`))
      if (streamError !== undefined) return settle(error("UNAVAILABLE", streamError.message))
      settle(error("INTERNAL", "the answer ended without grpc-status"))
    })
  })

  const take = (): Option.Option<Uint8Array> | GrpcError | undefined => {
    const message = inbox.shift()
    if (message !== undefined) {
      inboxBytes -= message.length
      if (inboxBytes <= inboxHighWater && stream.isPaused()) stream.resume()
      return Option.some(message)
    }
    return outcome === "ok" ? Option.none() : outcome
  }
  const receive = Effect.callback<Option.Option<Uint8Array>, GrpcError>((resume) => {
    const attempt = () => {
      const next = take()
      if (next === undefined) waiter = attempt
      else resume(next instanceof GrpcError ? Effect.fail(next) : Effect.succeed(next))
    }
    attempt()
    return Effect.sync(() => {
      if (waiter === attempt) waiter = undefined
    })
  })

  const ended = () =>
    outcome instanceof GrpcError ? outcome : error("CANCELLED", "the server ended the call")
  const sendFrame = (frame: Uint8Array) =>
    Effect.callback<void, GrpcError>((resume) => {
      if (outcome !== undefined || stream.closed || stream.destroyed || stream.writableEnded)
        return resume(Effect.fail(ended()))
      const closed = () => resume(Effect.fail(ended()))
      onClosed.add(closed)
      stream.write(frame, (e) => {
        // On failure "close" follows and knows the reason.
        if (e !== null && e !== undefined) return
        onClosed.delete(closed)
        resume(Effect.void)
      })
      return Effect.sync(() => {
        onClosed.delete(closed)
      })
    })

  return {
    send: (message) => sendFrame(encodeFrame(message)),
    sendFrame,
    receive,
    closeSend: Effect.sync(() => {
      if (!stream.closed && !stream.destroyed && !stream.writableEnded) stream.end()
    }),
    cancel: Effect.sync(() => {
      settle(error("CANCELLED", "given up by the client"))
      // Nobody reads any more: let what is buffered flow off, so that the stream can close.
      inbox.length = 0
      inboxBytes = 0
      stream.resume()
      if (!stream.closed && !stream.destroyed) stream.close(CANCEL)
    }),
  }
}
