import { DigestMismatch, SourceUnavailable } from "../ComponentError.ts"
import type { Part } from "../Source.ts"

/** The part of a Go module, for the SBOM. */
export const goPart = (module: string, version: string, sum: string): Part => ({
  name: module,
  version,
  purl: `pkg:golang/${module}@${version}`,
  ...(sum === "" ? {} : { digest: sum }),
})

/**
 * The modules that were linked into a binary, from the text of
 * `go version -m`. A module that is replaced stands as what replaces it, and
 * the standard library is the toolchain's version.
 */
export const parseBuildInfo = (text: string): ReadonlyArray<Part> => {
  const parts: Array<Part> = []
  const toolchain = /: go(\d[\w.]*)\s*$/mu.exec(text)?.[1]
  if (toolchain !== undefined) parts.push(goPart("stdlib", toolchain, ""))
  for (const line of text.split("\n")) {
    const [, kind, module, version = "", sum = ""] = line.split("\t")
    if (module === undefined) continue
    if (kind === "dep") parts.push(goPart(module, version, sum))
    if (kind === "=>") parts.splice(-1, 1, goPart(module, version, sum))
  }
  return parts
}

const NO_CONNECTION =
  /dial tcp|no such host|connection refused|network is unreachable|i\/o timeout|TLS handshake timeout|connection reset|proxyconnect|server misbehaving|module lookup disabled by GOPROXY=off/iu

const NOT_SERVED = /(404 Not Found|410 Gone|unknown revision|403 Forbidden|50\d \w+)/u

/**
 * What a failed go command says, when it says that a module is not the one
 * that go.sum pins or can not be had. Undefined for anything else: a failed build.
 */
export const parseGoFailure = (
  component: string,
  source: string,
  tail: ReadonlyArray<string>,
): DigestMismatch | SourceUnavailable | undefined => {
  const at = tail.findIndex((line) => line.includes("checksum mismatch"))
  if (at >= 0) {
    const file = /(?:verifying|go:)\s+(?:module\s+)?([^\s:]+@[^\s:]+)/u.exec(tail[at]!)?.[1] ?? "a Go module"
    const sums = tail.slice(at + 1, at + 6)
    const got = /downloaded:\s*(\S+)/u.exec(sums.join("\n"))?.[1] ?? "another"
    const expected = /(?:go\.sum|sum\.[\w.]+):\s*(\S+)/u.exec(sums.join("\n"))?.[1] ?? "what go.sum says"
    return new DigestMismatch({ component, file, from: "the Go module proxy", expected, got })
  }
  const offline = tail.find((line) => NO_CONNECTION.test(line))
  if (offline !== undefined) return new SourceUnavailable({ source, reason: offline.trim(), offline: true })
  const refused = tail.find((line) => NOT_SERVED.test(line) && /https?:|reading|module/u.test(line))
  if (refused !== undefined) return new SourceUnavailable({ source, reason: refused.trim(), offline: false })
  return undefined
}
