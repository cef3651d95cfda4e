/**
 * The serving certificate of a kubelet that has no cluster to ask for one.
 *
 * Given none, the kubelet makes an RSA pair before it does anything else,
 * which takes seconds on slow machines; a P-256 pair takes milliseconds.
 */
import * as der from "./internal/der.ts"

/** PEM texts. */
export interface CertificatePair {
  readonly certificate: string
  readonly privateKey: string
}

const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes).toString("base64").replaceAll(/.{64}/gu, "$&\n").trimEnd()}\n-----END ${label}-----\n`

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"
const COMMON_NAME = "2.5.4.3"
const KEY_USAGE = "2.5.29.15"
const EXTENDED_KEY_USAGE = "2.5.29.37"
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
const SUBJECT_ALT_NAME = "2.5.29.17"
const BASIC_CONSTRAINTS = "2.5.29.19"

/**
 * Makes a P-256 key and a certificate that it signs itself (RFC 5280).
 *
 * @param hostname common name and DNS name
 * @param notBefore start of its validity; it ends `days` later. A clock that
 *   is wrong at boot is why the start should lie well in the past.
 *
 * @example
 * ```ts
 * import * as SelfSignedCertificate from "@kios/stages-kubelet/SelfSignedCertificate"
 *
 * const pair = SelfSignedCertificate.make("node-1", new Date(0), 36_500)
 * ```
 */
export const make = (hostname: string, notBefore: Date, days: number): CertificatePair => {
  const crypto = process.getBuiltinModule("node:crypto")
  const { privateKey, publicKey } = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
  const algorithm = der.sequence(der.oid(ECDSA_WITH_SHA256))
  const name = der.sequence(der.set(der.sequence(der.oid(COMMON_NAME), der.utf8(hostname))))
  const serial = crypto.randomBytes(16)
  serial[0] = (serial[0] ?? 0) & 0x7f
  const extension = (id: string, critical: boolean, value: Uint8Array) =>
    der.sequence(der.oid(id), ...(critical ? [der.boolean(true)] : []), der.octets(value))
  const toBeSigned = der.sequence(
    der.explicit(0, der.integer(Buffer.from([2]))), // v3
    der.integer(serial),
    algorithm,
    name,
    der.sequence(der.time(notBefore), der.time(new Date(notBefore.getTime() + days * 86_400_000))),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der.explicit(
      3,
      der.sequence(
        extension(BASIC_CONSTRAINTS, true, der.sequence()),
        // digitalSignature: one bit, seven unused.
        extension(KEY_USAGE, true, Buffer.from([0x03, 0x02, 0x07, 0x80])),
        extension(EXTENDED_KEY_USAGE, false, der.sequence(der.oid(SERVER_AUTH))),
        extension(SUBJECT_ALT_NAME, false, der.sequence(der.implicit(2, Buffer.from(hostname)))),
      ),
    ),
  )
  const signature = crypto.sign("sha256", toBeSigned, privateKey)
  const certificate = der.sequence(toBeSigned, algorithm, der.bits(signature))
  return {
    certificate: pem("CERTIFICATE", certificate),
    privateKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  }
}
