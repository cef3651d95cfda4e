/**
 * gRPC over HTTP/2 on a unix socket: what containerd speaks, without a gRPC library (init is a bundle
 * inside a V8 snapshot, so size counts and nothing may be opened or loaded at import time).
 *
 * One connection per client. It is made by the first call, and again by the first call after it was lost:
 * a call that is under way when the connection goes fails with UNAVAILABLE and is not repeated here, since
 * only the caller knows if that is safe.
 *
 * Source: "gRPC over HTTP2" (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
 */
import type * as http2 from "node:http2"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { type GrpcCall, makeCall } from "./GrpcCall.ts"
import { GrpcError } from "./GrpcStatus.ts"

/** Options of one call. */
export interface CallOptions {
  /** Sent as `containerd-namespace`: containerd's services need one, health, version and CRI do not. */
  readonly namespace?: string
  /** Sent as `containerd-lease`: what the call makes belongs to that lease. */
  readonly lease?: string
  /** Longest wait for the whole call; sent as `grpc-timeout` too. No deadline when absent. */
  readonly timeout?: Duration.Input
}

/** A gRPC client for one unix socket. */
export interface Grpc {
  /** Path of the unix socket. */
  readonly address: string
  /** One message there, one back. `decode` may throw on malformed bytes: the call then fails with INTERNAL. */
  readonly unary: <A>(
    method: string,
    request: Uint8Array,
    decode: (message: Uint8Array) => A,
    options?: CallOptions,
  ) => Effect.Effect<A, GrpcError>
  /** One message there, any number back; ends with OK or fails. Reads no faster than it is consumed. */
  readonly serverStream: <A>(
    method: string,
    request: Uint8Array,
    decode: (message: Uint8Array) => A,
    options?: CallOptions,
  ) => Stream.Stream<A, GrpcError>
  /** A call in both directions, cancelled when the scope closes. */
  readonly open: (method: string, options?: CallOptions) => Effect.Effect<GrpcCall, GrpcError, Scope.Scope>
}

interface Connection {
  readonly session: http2.ClientHttp2Session
  usable: boolean
  lost: string | undefined
}

const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const code = (error as NodeJS.ErrnoException).code
  return code !== undefined && !error.message.includes(code) ? `${code}: ${error.message}` : error.message
}

/** The `grpc-timeout` header: at most 8 digits and a unit. */
const timeoutHeader = (timeout: Duration.Input): string => {
  const millis = Math.max(1, Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(timeout))))
  return millis < 1e8 ? `${millis}m` : `${Math.min(Math.ceil(millis / 1000), 99_999_999)}S`
}

const openSession = (address: string) =>
  Effect.callback<Connection, string>((resume) => {
    const { connect } = process.getBuiltinModule("node:http2")
    const net = process.getBuiltinModule("node:net")
    // The authority is what containerd's own client sends on a unix socket.
    const session = connect("http://localhost", {
      createConnection: () => net.connect({ path: address }),
      settings: { enablePush: false },
    })
    const connection: Connection = { session, usable: true, lost: undefined }
    const gone = (reason: string) => {
      connection.usable = false
      connection.lost ??= reason
      resume(Effect.fail(connection.lost))
    }
    // Without a listener an 'error' would be thrown, and PID 1 with it.
    session.on("error", (error) => gone(describe(error)))
    session.on("close", () => gone("connection closed by the server"))
    session.on("goaway", () => {
      connection.usable = false
      if (!session.closed && !session.destroyed) session.close()
    })
    session.on("connect", () => resume(Effect.succeed(connection)))
    return Effect.sync(() => session.destroy())
  })

/**
 * Makes a client for the unix socket at `address`. Opens nothing until the first call; closing the scope
 * closes the connection and fails what is under way.
 *
 * @param options.maxMessageBytes longest message taken from the server, 16 MiB (containerd's own limit) when absent
 *
 * @example
 * const grpc = yield* makeGrpc("/run/containerd/containerd.sock")
 * const status = yield* grpc.unary(Health.check, Health.encodeRequest(""), Health.decodeResponse, { timeout: "1 second" })
 */
export const makeGrpc = (
  address: string,
  options?: { readonly maxMessageBytes?: number },
): Effect.Effect<Grpc, never, Scope.Scope> =>
  Effect.gen(function* () {
    const maxMessageBytes = options?.maxMessageBytes ?? 16 * 1024 * 1024
    const sessions = new Set<http2.ClientHttp2Session>()
    const connecting = yield* Semaphore.make(1)
    let current: Connection | undefined
    let closed = false
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        closed = true
        for (const session of sessions) session.destroy()
      }),
    )

    const failure = (method: string, code: GrpcError["code"], reason: string) =>
      new GrpcError({ method, address, code, reason })

    const connection = (method: string) =>
      Effect.suspend(() => {
        if (closed) return Effect.fail(failure(method, "CANCELLED", "the client is closed"))
        if (current?.usable === true) return Effect.succeed(current)
        return openSession(address).pipe(
          Effect.mapError((reason) => failure(method, "UNAVAILABLE", reason)),
          Effect.tap((made) =>
            Effect.sync(() => {
              current = made
              sessions.add(made.session)
              made.session.once("close", () => sessions.delete(made.session))
              if (closed) made.session.destroy()
            }),
          ),
        )
      }).pipe(connecting.withPermits(1))

    const request = (
      method: string,
      callOptions: CallOptions | undefined,
    ): Effect.Effect<GrpcCall, GrpcError> =>
      Effect.flatMap(connection(method), (made) =>
        Effect.try({
          try: () => {
            const headers: http2.OutgoingHttpHeaders = {
              ":method": "POST",
              ":path": method,
              "content-type": "application/grpc",
              te: "trailers",
              "user-agent": "kios-init",
            }
            if (callOptions?.namespace !== undefined) headers["containerd-namespace"] = callOptions.namespace
            if (callOptions?.lease !== undefined) headers["containerd-lease"] = callOptions.lease
            if (callOptions?.timeout !== undefined)
              headers["grpc-timeout"] = timeoutHeader(callOptions.timeout)
            return makeCall({
              stream: made.session.request(headers),
              method,
              address,
              maxMessageBytes,
              lost: () => {
                if (closed) return "the client was closed"
                return made.lost ?? (made.session.destroyed ? "connection lost" : undefined)
              },
            })
          },
          catch: (error) => {
            made.usable = false
            return failure(method, "UNAVAILABLE", describe(error))
          },
        }),
      )

    const open: Grpc["open"] = (method, callOptions) =>
      Effect.acquireRelease(request(method, callOptions), (call) => call.cancel, { interruptible: true })

    const decoded = <A>(method: string, message: Uint8Array, decode: (message: Uint8Array) => A) =>
      Effect.try({
        try: () => decode(message),
        catch: (error) => failure(method, "INTERNAL", `malformed answer: ${describe(error)}`),
      })

    const ask = (method: string, message: Uint8Array, callOptions: CallOptions | undefined) =>
      Effect.tap(open(method, callOptions), (call) =>
        // A server that refuses the call closes it before it reads our message: its answer says why, not `send`.
        Effect.andThen(Effect.ignore(call.send(message)), call.closeSend),
      )

    const withDeadline =
      (method: string, timeout: Duration.Input | undefined) =>
      <A, R>(effect: Effect.Effect<A, GrpcError, R>) =>
        timeout === undefined
          ? effect
          : Effect.timeoutOrElse(effect, {
              duration: timeout,
              orElse: () => {
                const after = Duration.format(Duration.fromInputUnsafe(timeout))
                return Effect.fail(failure(method, "DEADLINE_EXCEEDED", `no answer within ${after}`))
              },
            })

    const unary: Grpc["unary"] = (method, message, decode, callOptions) =>
      Effect.gen(function* () {
        const call = yield* ask(method, message, callOptions)
        const answer = yield* call.receive
        if (Option.isNone(answer)) return yield* failure(method, "INTERNAL", "the answer holds no message")
        // The status comes after the message: an answer without it is not an answer.
        const more = yield* call.receive
        if (Option.isSome(more))
          return yield* failure(method, "INTERNAL", "more than one message in a unary answer")
        return yield* decoded(method, answer.value, decode)
      }).pipe(Effect.scoped, withDeadline(method, callOptions?.timeout))

    const serverStream: Grpc["serverStream"] = (method, message, decode, callOptions) =>
      Stream.unwrap(
        Effect.map(ask(method, message, callOptions), (call) =>
          Stream.unfold(undefined, () =>
            Effect.flatMap(call.receive, (next) =>
              Option.isNone(next)
                ? Effect.succeed(undefined)
                : Effect.map(decoded(method, next.value, decode), (value) => [value, undefined] as const),
            ),
          ),
        ),
      )

    return { address, unary, serverStream, open }
  })
