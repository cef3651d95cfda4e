/**
 * A registry over TLS for tests: as much of the OCI distribution specification
 * as a pull needs, out of image archives, with a certificate authority of its
 * own. It keeps who asked for what.
 */
import { Effect, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as https from "node:https"
import type { AddressInfo } from "node:net"
import * as path from "node:path"

/** A certificate authority and a certificate of its for 10.0.2.2 (QEMU's name of this machine) and 127.0.0.1. */
export interface Authority {
  /** PEM, and the file that has it. */
  readonly ca: string
  readonly caFile: string
  readonly key: Buffer
  readonly cert: Buffer
}

/** Makes an authority in a directory. */
export const makeAuthority = (directory: string): Authority => {
  const at = (name: string) => path.join(directory, name)
  /** Words, of which `subject` may have blanks; in `directory`, so that files need no path. */
  const openssl = (words: string, ...subject: ReadonlyArray<string>) =>
    execFileSync("openssl", [...words.split(" "), ...subject], { cwd: directory, stdio: "pipe" })
  const key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
  const usage = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
  // Valid from now on: the machines that are tested take their time from this one.
  openssl(
    `req -x509 ${key} -keyout ca.key -out ca.crt -days 30 ${usage} -subj`,
    "/CN=the authority of the test",
  )
  openssl(`req ${key} -keyout server.key -out server.csr -subj`, "/CN=the registry of the test")
  fs.writeFileSync(at("names"), "subjectAltName=IP:10.0.2.2,IP:127.0.0.1\n")
  openssl(
    "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 30 -extfile names",
  )
  return {
    ca: fs.readFileSync(at("ca.crt"), "utf8"),
    caFile: at("ca.crt"),
    key: fs.readFileSync(at("server.key")),
    cert: fs.readFileSync(at("server.crt")),
  }
}

/** The files of an archive, by name. */
const readTar = (tar: Buffer): Map<string, Buffer> => {
  const files = new Map<string, Buffer>()
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const size = Number.parseInt(tar.toString("latin1", at + 124, at + 135), 8)
    files.set(tar.toString("latin1", at, tar.indexOf(0, at)), tar.subarray(at + 512, at + 512 + size))
    at += 512 + Math.ceil(size / 512) * 512
  }
  return files
}

/** What a repository has: blobs and manifests by digest, and the digest of each tag. */
interface Repository {
  readonly blobs: Map<string, Buffer>
  readonly tags: Map<string, string>
}

const readArchive = (file: string, tag: string): Repository => {
  const files = readTar(fs.readFileSync(file))
  const index = JSON.parse(files.get("index.json")?.toString() ?? "") as {
    readonly manifests: ReadonlyArray<{ readonly digest: string }>
  }
  const blobs = new Map(
    [...files].flatMap(([name, bytes]) =>
      name.startsWith("blobs/sha256/") ? [[`sha256:${name.slice("blobs/sha256/".length)}`, bytes]] : [],
    ),
  )
  return { blobs, tags: new Map([[tag, index.manifests[0]?.digest ?? ""]]) }
}

export interface Registry {
  readonly port: number
  /** `METHOD PATH STATUS` of each request. */
  readonly requests: ReadonlyArray<string>
}

/**
 * Starts a registry on a port of all addresses; stopped with the scope.
 *
 * @param repositories Archives by `PATH:TAG`.
 * @param login Wants this user and password (HTTP Basic) for the repositories below `private/`.
 */
export const serve = (
  authority: Authority,
  repositories: Readonly<Record<string, string>>,
  login: { readonly user: string; readonly password: string },
): Effect.Effect<Registry, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Registry & { readonly server: https.Server }>((resume) => {
      const there = new Map(
        Object.entries(repositories).map(([name, file]) => {
          const colon = name.lastIndexOf(":")
          return [name.slice(0, colon), readArchive(file, name.slice(colon + 1))]
        }),
      )
      const expected = `Basic ${Buffer.from(`${login.user}:${login.password}`).toString("base64")}`
      const requests: Array<string> = []
      const server = https.createServer({ key: authority.key, cert: authority.cert }, (request, response) => {
        const url = new URL(request.url ?? "/", "https://registry").pathname
        const answer = (
          status: number,
          headers: Record<string, string> = {},
          body: Buffer = Buffer.alloc(0),
        ) => {
          requests.push(`${request.method} ${url} ${status}`)
          response.writeHead(status, { ...headers, "content-length": body.length })
          response.end(request.method === "HEAD" ? undefined : body)
        }
        const [, name = "", kind = "", reference = ""] =
          /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/u.exec(url) ?? []
        if (name.startsWith("private/") && request.headers.authorization !== expected)
          return answer(401, { "www-authenticate": 'Basic realm="the test\'s registry"' })
        if (url === "/v2/") return answer(200)
        const repository = there.get(name)
        const digest = repository?.tags.get(reference) ?? reference
        const bytes = repository?.blobs.get(digest)
        if (bytes === undefined) return answer(404)
        const type =
          kind === "blobs"
            ? "application/octet-stream"
            : ((JSON.parse(bytes.toString()) as { readonly mediaType?: string }).mediaType ??
              "application/vnd.oci.image.manifest.v1+json")
        return answer(200, { "content-type": type, "docker-content-digest": digest }, bytes)
      })
      server.listen(0, "0.0.0.0", () =>
        resume(Effect.succeed({ server, requests, port: (server.address() as AddressInfo).port })),
      )
    }),
    ({ server }) =>
      Effect.callback<void>((done) => {
        server.close(() => done(Effect.void))
        server.closeAllConnections()
      }),
  )
