/**
 * What the node's network sees, as a program that is run in the test's
 * namespace: a scan of all TCP ports, and single requests.
 *
 *   node Outside.ts scan ADDRESS
 *   node Outside.ts ask '{"url": "https://...", "key": "FILE", ...}'
 *
 * Both print one line of JSON. Node's own modules only: it starts at once.
 */
import * as fs from "node:fs"
import * as http from "node:http"
import * as https from "node:https"
import * as net from "node:net"

/** A request. Servers' certificates are not verified: who asks is what matters. */
export interface Question {
  readonly url: string
  /** PEM files of a client's certificate. */
  readonly key?: string
  readonly certificate?: string
  readonly token?: string
}

/** An answer, or why there is none: `ECONNREFUSED`. */
export type Answer = { readonly status: number; readonly body: string } | { readonly error: string }

const CONNECTIONS = 256
const CONNECT_MS = 4000
const ANSWER_MS = 10_000

/** `open`, `closed` (refused), or `silent`. */
const look = (host: string, port: number): Promise<"open" | "closed" | "silent"> =>
  new Promise((resolve) => {
    const socket = net.connect({ host, port, timeout: CONNECT_MS })
    const end = (state: "open" | "closed" | "silent") => {
      socket.destroy()
      resolve(state)
    }
    socket.once("connect", () => end("open"))
    socket.once("timeout", () => end("silent"))
    socket.once("error", (error: NodeJS.ErrnoException) =>
      end(error.code === "ECONNREFUSED" ? "closed" : "silent"),
    )
  })

const scan = async (host: string) => {
  const found: Record<"open" | "silent", Array<number>> = { open: [], silent: [] }
  let next = 1
  const worker = async () => {
    while (next <= 65_535) {
      const port = next++
      const state = await look(host, port)
      // A slow machine may have lost a packet: it is asked once more.
      const sure = state === "silent" ? await look(host, port) : state
      if (sure !== "closed") found[sure].push(port)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, worker))
  return { open: found.open.sort((a, b) => a - b), silent: found.silent.sort((a, b) => a - b) }
}

const ask = ({ certificate, key, token, url }: Question): Promise<Answer> =>
  new Promise((resolve) => {
    const options = {
      timeout: ANSWER_MS,
      rejectUnauthorized: false,
      ...(key === undefined ? {} : { key: fs.readFileSync(key) }),
      ...(certificate === undefined ? {} : { cert: fs.readFileSync(certificate) }),
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    }
    const request = (url.startsWith("https:") ? https : http).get(url, options, (response) => {
      let body = ""
      response
        .setEncoding("utf8")
        .on("data", (text: string) => (body += text))
        .on("end", () => resolve({ status: response.statusCode ?? 0, body }))
        .on("error", (error) => resolve({ error: error.message }))
    })
    request.on("timeout", () => request.destroy(new Error("ETIMEDOUT")))
    request.on("error", (error: NodeJS.ErrnoException) => resolve({ error: error.code ?? error.message }))
  })

if (import.meta.main) {
  const [what, argument = ""] = process.argv.slice(2)
  const result = what === "scan" ? await scan(argument) : await ask(JSON.parse(argument) as Question)
  console.log(JSON.stringify(result))
}
