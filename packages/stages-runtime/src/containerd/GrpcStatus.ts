/**
 * gRPC status codes and the one error that every call of the containerd client fails with.
 *
 * Sources: the gRPC "status codes and their use" page and "gRPC over HTTP2" (mapping of HTTP
 * status and of RST_STREAM codes).
 */
import * as Data from "effect/Data"

const names = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const

/** The name of a gRPC status, such as `"UNAVAILABLE"`. */
export type GrpcCode = (typeof names)[number]

/** The name of a numeric `grpc-status`; what is not a known number is `"UNKNOWN"`, as the specification asks. */
export const codeOf = (status: string): GrpcCode =>
  /^\d{1,2}$/.test(status) ? (names[Number(status)] ?? "UNKNOWN") : "UNKNOWN"

/** The code for an HTTP status of a response that is not gRPC (`:status` other than 200). */
export const codeOfHttpStatus = (status: number): GrpcCode => {
  switch (status) {
    case 400:
      return "INTERNAL"
    case 401:
      return "UNAUTHENTICATED"
    case 403:
      return "PERMISSION_DENIED"
    case 404:
      return "UNIMPLEMENTED"
    case 429:
    case 502:
    case 503:
    case 504:
      return "UNAVAILABLE"
    default:
      return "UNKNOWN"
  }
}

/** The code for an HTTP/2 RST_STREAM error code (RFC 9113, section 7). */
export const codeOfReset = (code: number): GrpcCode => {
  switch (code) {
    case 7: // REFUSED_STREAM
      return "UNAVAILABLE"
    case 8: // CANCEL
      return "CANCELLED"
    case 11: // ENHANCE_YOUR_CALM
      return "RESOURCE_EXHAUSTED"
    case 12: // INADEQUATE_SECURITY
      return "PERMISSION_DENIED"
    default:
      return "INTERNAL"
  }
}

// An error message ends up on the console and in the boot report: keep it to a length that fits there.
const maxReason = 2048

/**
 * Decodes `grpc-message`: percent-encoded UTF-8. What is not a valid escape stays as it is (the
 * specification forbids to drop it), and the result is cut at 2048 characters.
 */
export const decodeStatusMessage = (text: string): string => {
  const decoded = text.replaceAll(/(?:%[0-9A-Fa-f]{2})+/g, (run) =>
    Buffer.from(run.replaceAll("%", ""), "hex").toString("utf8"),
  )
  return decoded.length > maxReason ? `${decoded.slice(0, maxReason)}...` : decoded
}

const hints: Partial<Record<GrpcCode, string>> = {
  UNAVAILABLE: "is containerd running and is this its socket?",
  UNIMPLEMENTED: "the server lacks this service: is the plugin in containerd's disabled_plugins?",
  DEADLINE_EXCEEDED: "containerd accepted the call and gave no answer in time",
}

/**
 * A call that failed: either the server said so (`grpc-status`), or the connection or the bytes on it were bad.
 *
 * @example
 * Effect.catchIf((e: GrpcError) => e.code === "NOT_FOUND", () => Effect.succeed(undefined))
 */
export class GrpcError extends Data.TaggedError("GrpcError")<{
  /** Full method path, such as `/grpc.health.v1.Health/Check`. */
  readonly method: string
  /** Path of the unix socket. */
  readonly address: string
  readonly code: GrpcCode
  /** The server's `grpc-message`, or what went wrong below gRPC. */
  readonly reason: string
}> {
  override get message() {
    const hint = hints[this.code]
    return `${this.method} on ${this.address}: ${this.code}: ${this.reason}${hint === undefined ? "" : ` (${hint})`}`
  }
}
