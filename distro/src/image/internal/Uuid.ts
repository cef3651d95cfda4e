/**
 * UUIDs that follow from content instead of chance.
 */
import * as crypto from "node:crypto"

/** A version 8 UUID (RFC 9562: "custom") from the SHA-256 of a text. */
export const derivedUuid = (text: string): string => {
  const hash = crypto.createHash("sha256").update(text).digest()
  hash[6] = (hash[6]! & 0x0f) | 0x80
  hash[8] = (hash[8]! & 0x3f) | 0x80
  const hex = hash.toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join(
    "-",
  )
}
