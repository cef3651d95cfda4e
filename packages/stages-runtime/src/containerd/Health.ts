/** grpc.health.v1.Health, the standard gRPC health service (grpc/health/v1/health.proto). */
import { visitFields, BinaryWriter, writeString } from "./Proto.ts"

export const check = "/grpc.health.v1.Health/Check"

/** HealthCheckResponse.ServingStatus: UNKNOWN = 0, SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3. */
export type ServingStatus = "UNKNOWN" | "SERVING" | "NOT_SERVING" | "SERVICE_UNKNOWN"
const statuses: ReadonlyArray<ServingStatus> = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]

/** HealthCheckRequest: service = 1; the empty service is the whole server. */
export const encodeRequest = (service: string): Uint8Array =>
  writeString(new BinaryWriter(), 1, service).finish()

/** HealthCheckResponse: status = 1. */
export const decodeResponse = (message: Uint8Array): ServingStatus => {
  let status: ServingStatus = "UNKNOWN"
  visitFields(message, (f) => {
    if (f.number === 1) status = statuses[Number(f.varint)] ?? "UNKNOWN"
  })
  return status
}
