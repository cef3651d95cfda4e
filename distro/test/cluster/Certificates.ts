/**
 * The keys and certificates of a cluster, made by openssl(1): Node's crypto
 * verifies certificates and signs none.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"

/** Files of a key and of its certificate, PEM. */
export interface Pair {
  readonly key: string
  readonly certificate: string
}

/** Whom a certificate is for. */
export interface Subject {
  /** User name, or the server's. */
  readonly commonName: string
  /** Groups of the user. */
  readonly organization?: string
  /** A server's names and addresses: `DNS:localhost`, `IP:127.0.0.1`. */
  readonly names?: ReadonlyArray<string>
}

/** An authority whose files are in a directory. */
export interface Authority extends Pair {
  readonly issue: (name: string, subject: Subject) => Effect.Effect<Pair>
  /** A key pair without a certificate, for signatures of tokens. */
  readonly signingKey: Effect.Effect<{ readonly private: string; readonly public: string }>
}

const openssl = (args: ReadonlyArray<string>) =>
  execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] })

// A guest's clock may be behind by as much as its firmware's.
const validity = ["-days", "3650"]
const key = (file: string) =>
  openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file])

/** Makes an authority in `directory`. */
export const authority = (directory: string): Effect.Effect<Authority> =>
  Effect.sync(() => {
    const file = (name: string) => path.join(directory, name)
    const ca: Pair = { key: file("ca.key"), certificate: file("ca.crt") }
    key(ca.key)
    openssl(
      ["req", "-x509", "-new", "-key", ca.key, "-subj", "/CN=kios-test-ca", "-out", ca.certificate].concat(
        validity,
        ["-addext", "basicConstraints=critical,CA:TRUE"],
        ["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"],
      ),
    )
    return {
      ...ca,
      issue: (name, { commonName, names, organization }) =>
        Effect.sync(() => {
          const pair: Pair = { key: file(`${name}.key`), certificate: file(`${name}.crt`) }
          const request = file(`${name}.csr`)
          const extensions = file(`${name}.ext`)
          key(pair.key)
          const subject = `${organization === undefined ? "" : `/O=${organization}`}/CN=${commonName}`
          openssl(["req", "-new", "-key", pair.key, "-subj", subject, "-out", request])
          fs.writeFileSync(
            extensions,
            [
              "basicConstraints=critical,CA:FALSE",
              "keyUsage=critical,digitalSignature",
              `extendedKeyUsage=${names === undefined ? "clientAuth" : "serverAuth"}`,
              ...(names === undefined ? [] : [`subjectAltName=${names.join(",")}`]),
              "",
            ].join("\n"),
          )
          openssl(
            [
              "x509",
              "-req",
              "-in",
              request,
              "-CA",
              ca.certificate,
              "-CAkey",
              ca.key,
              "-CAcreateserial",
            ].concat(validity, ["-extfile", extensions, "-out", pair.certificate]),
          )
          return pair
        }),
      signingKey: Effect.sync(() => {
        const files = { private: file("tokens.key"), public: file("tokens.pub") }
        key(files.private)
        openssl(["pkey", "-in", files.private, "-pubout", "-out", files.public])
        return files
      }),
    } satisfies Authority
  })
