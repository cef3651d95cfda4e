import { Context, Effect } from "effect"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { DigestMismatch, SourceUnavailable } from "../ComponentError.ts"
import { Environment } from "../Environment.ts"
import { type FileRule, selectFiles } from "../FileSelection.ts"
import { errnoOf, io, writeStream } from "../Files.ts"
import type { Source } from "../Source.ts"
import { runToolOk } from "../Tools.ts"

/**
 * The function that downloads; a test's own in tests.
 *
 * @example
 * ```ts
 * import { Fetch } from "@kios/distro/components/sources/Download"
 * import { Effect } from "effect"
 *
 * const offline = Effect.provideService(Fetch, () => Promise.reject(new Error("no network")))
 * ```
 */
export const Fetch = Context.Reference<typeof globalThis.fetch>("@kios/distro/components/Fetch", {
  defaultValue: () => globalThis.fetch,
})

/** Milliseconds without a byte (or without an answer) after which a download is given up. */
const SILENCE = 30_000

/** Errors that mean that no connection could be made, and not that the answer was no. */
const OFFLINE = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_SOCKET",
])

const unavailable = (url: string, cause: unknown): SourceUnavailable => {
  const inner = (cause as { readonly cause?: unknown } | undefined)?.cause ?? cause
  const code = errnoOf(inner)
  const silent =
    (inner as Error | undefined)?.name === "AbortError" ||
    (inner as Error | undefined)?.name === "TimeoutError"
  const reason = silent ? `no answer from ${url} within ${SILENCE / 1000} s` : `${url}: ${code}`
  return new SourceUnavailable({ source: url, reason, offline: silent || OFFLINE.has(code) })
}

/**
 * Chunks of a body, each of which must come within the time. `failed` is told
 * what the network did wrong. What the reader of the chunks does wrong (a full
 * disk) arrives here too, thrown at `yield`, and is none of the network's.
 */
async function* chunks(
  body: ReadableStream<Uint8Array>,
  silence: number,
  stop: AbortController,
  failed: (cause: unknown) => void,
): AsyncGenerator<Uint8Array> {
  const reader = body.getReader()
  try {
    for (;;) {
      const timer = setTimeout(() => stop.abort(), silence)
      const { done, value } = await reader
        .read()
        .catch((cause: unknown) => {
          failed(cause)
          throw cause
        })
        .finally(() => clearTimeout(timer))
      if (done) return
      yield value
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

/**
 * A file or archive by its address, pinned by digest.
 *
 * @param options.sha256 Of what is served, hex.
 * @param options.to Path in the component, for a single file.
 * @param options.archive Instead of `to`: what to take out of a tar archive (any compression that `tar` knows).
 * @param options.silence Milliseconds without a byte after which it is given up; 30 000 by default.
 *
 * @example
 * ```ts
 * import * as Download from "@kios/distro/components/sources/Download"
 *
 * const hello = Download.source({
 *   url: "https://example.org/hello",
 *   sha256: "0".repeat(64),
 *   to: "bin/hello",
 *   executable: true,
 * })
 * ```
 */
export const source = (
  options: {
    readonly url: string
    readonly sha256: string
    readonly silence?: number
  } & (
    | { readonly to: string; readonly executable?: boolean }
    | { readonly archive: readonly [FileRule, ...ReadonlyArray<FileRule>] }
  ),
): Source => {
  const { sha256, url } = options
  const shape =
    "archive" in options
      ? { archive: options.archive.map(({ from, to }) => ({ from, to })) }
      : { to: options.to, executable: options.executable ?? false }
  return {
    kind: "download",
    description: `download ${url}`,
    heavy: false,
    fingerprint: Effect.succeed({ url, sha256, ...shape }),
    fetch: ({ component, into, scratch }) =>
      Effect.gen(function* () {
        const fetch = yield* Fetch
        const silence = options.silence ?? SILENCE
        const stop = new AbortController()
        const file = path.join(scratch, "download")
        const response = yield* Effect.tryPromise({
          try: async (signal) => {
            const timer = setTimeout(() => stop.abort(), silence)
            try {
              return await fetch(url, { signal: AbortSignal.any([signal, stop.signal]), redirect: "follow" })
            } finally {
              clearTimeout(timer)
            }
          },
          catch: (cause) => unavailable(url, cause),
        })
        if (!response.ok || response.body === null) {
          const reason = `${url}: HTTP ${response.status} ${response.statusText}`
          return yield* new SourceUnavailable({ source: url, reason, offline: false })
        }
        let network: unknown
        const body = chunks(response.body, silence, stop, (cause) => (network = cause))
        const written = yield* writeStream(`downloading ${component.name}`, body, file).pipe(
          Effect.catchIf(
            () => network !== undefined,
            () => Effect.fail(unavailable(url, network)),
          ),
        )
        if (written.sha256 !== sha256) {
          return yield* new DigestMismatch({
            component: component.name,
            file: path.posix.basename(new URL(url).pathname),
            from: url,
            expected: `sha256:${sha256}`,
            got: `sha256:${written.sha256} (${written.size} bytes)`,
          })
        }
        if ("archive" in options) {
          const root = path.join(scratch, "unpacked")
          yield* io("making a directory", root, () => fsp.mkdir(root))
          yield* runToolOk({
            component: component.name,
            doing: `unpacking ${component.name}`,
            writesTo: root,
            command: "tar",
            args: ["--no-same-owner", "-xf", file, "-C", root],
            env: { ...(yield* Environment), LC_ALL: "C" },
          })
          yield* selectFiles({ component: component.name, source: url, root, into, rules: options.archive })
        } else {
          const to = path.join(into, options.to)
          yield* io("copying", to, async () => {
            await fsp.mkdir(path.dirname(to), { recursive: true })
            await fsp.rename(file, to)
            await fsp.chmod(to, options.executable === true ? 0o755 : 0o644)
          })
        }
        const purl = `pkg:generic/${component.name}@${encodeURIComponent(component.version)}?download_url=${encodeURIComponent(url)}`
        return {
          parts: [{ name: component.name, version: component.version, purl, digest: `sha256:${sha256}` }],
        }
      }),
  }
}
