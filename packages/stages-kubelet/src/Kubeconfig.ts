/**
 * Whether a kubeconfig can be given to the kubelet, as far as that can be told
 * without a YAML parser, which PID 1 does not have: the keys that it must have
 * are there, and what is written down in base64 is whole. It may be JSON or
 * YAML in block style, which is what every tool writes.
 *
 * `k8s.io/client-go/tools/clientcmd/api/v1`.
 */

import { quoted } from "./internal/klog.ts"

/** What is wrong with a file; `line` is null when it is about all of it. */
export interface Problem {
  readonly line: number | null
  readonly reason: string
}

/** A kubeconfig, looked at. */
export interface Examined {
  /** Why it cannot be used. */
  readonly problem: Problem | undefined
  /** It does not look as if more of it was still to be written. */
  readonly whole: boolean
  /** Files that it names by an absolute path. */
  readonly files: ReadonlyArray<string>
}

const REQUIRED = ["clusters", "contexts", "current-context", "users"]
const EMPTY = new Set(["", "[]", "{}", "null", "~", '""', "''"])

/**
 * Looks at a kubeconfig.
 *
 * @example
 * ```ts
 * import * as Kubeconfig from "@kios/stages-kubelet/Kubeconfig"
 *
 * Kubeconfig.examine("apiVersion: v1\nkind: Config\n").problem
 * // { line: null, reason: "has no clusters, contexts, current-context, users" }
 * ```
 */
export const examine = (text: string): Examined => {
  const inJson = text.trimStart().startsWith("{")
  const problem =
    text.trim() === ""
      ? whole("is empty")
      : ((inJson ? jsonProblem(text) : yamlProblem(text)) ?? valueProblem(text))
  return { problem, whole: inJson || text.endsWith("\n"), files: filesOf(text) }
}

const REFUSAL = /kubeconfig|(?:kubelet|rest) client|client config|client CA|root certificates/u

/**
 * What the kubelet has against its kubeconfig, in a line of its log: only it
 * finds a context that leads nowhere, or a certificate that is none. It ends
 * with such a line (`cmd/kubelet/app/server.go`).
 *
 * @example
 * ```ts
 * import * as Kubeconfig from "@kios/stages-kubelet/Kubeconfig"
 *
 * Kubeconfig.refusal('E1128 run.go:72] "command failed" err="unable to load kubeconfig: invalid configuration"')
 * // "unable to load kubeconfig: invalid configuration"
 * ```
 */
export const refusal = (line: string): string | undefined => {
  if (!line.includes('"command failed"')) return undefined
  const reason = quoted(line, "err") ?? line
  return REFUSAL.test(reason) ? reason.replace(/^failed to run Kubelet: /u, "") : undefined
}

const whole = (reason: string): Problem => ({ line: null, reason })

const missing = (has: (key: string) => boolean): Problem | undefined => {
  const lacking = REQUIRED.filter((key) => !has(key))
  return lacking.length === 0 ? undefined : whole(`has no ${lacking.join(", ")}`)
}

const jsonProblem = (text: string): Problem | undefined => {
  let config: Record<string, unknown>
  try {
    config = JSON.parse(text) as Record<string, unknown>
  } catch (cause) {
    return whole(`begins as JSON and is none: ${(cause as Error).message}`)
  }
  const { kind } = config
  if (kind !== undefined && kind !== "Config") return whole(`is of kind ${String(kind)}, not Config`)
  return missing((key) => {
    const value = config[key]
    return Array.isArray(value) ? value.length > 0 : typeof value === "string" && value !== ""
  })
}

const yamlProblem = (text: string): Problem | undefined => {
  const found = new Set<string>()
  let open = ""
  for (const [index, line] of text.split(/\r?\n/u).entries()) {
    if (/^\s*(#|$)/u.test(line)) continue
    const [, , key, value = ""] = /^(["']?)([A-Za-z][\w-]*)\1\s*:\s*(.*?)\s*(?:\s#.*)?$/u.exec(line) ?? []
    // A list or map begins below its key, at the key's own column too.
    if (key === undefined) {
      if (open !== "") found.add(open)
      continue
    }
    if (key === "kind" && !/^["']?Config["']?$/u.test(value))
      return { line: index + 1, reason: `is of kind ${value}, not Config` }
    open = key
    if (!EMPTY.has(value)) found.add(key)
  }
  return missing((key) => found.has(key))
}

const named = (key: string, value: string) =>
  new RegExp(`(?:^|[\\s{,"'-])(${key})["']?\\s*:\\s*${value}`, "gmu")

// Both notations write these alike, a line each or not.
const valueProblem = (text: string): Problem | undefined => {
  const lineOf = (index: number) => text.slice(0, index).split("\n").length
  for (const { 1: key, 2: value = "", index } of text.matchAll(
    named("[a-z-]{1,32}-data", `["']?([\\w+/=]+)`),
  ))
    if (value.length % 4 !== 0)
      return { line: lineOf(index + 1), reason: `${key} ends in the middle of its base64` }
  return named("server", `["']?[^\\s"']`).test(text) ? undefined : whole("names no server")
}

const filesOf = (text: string): ReadonlyArray<string> => [
  ...new Set(
    Array.from(
      text.matchAll(
        named("certificate-authority|client-certificate|client-key|tokenFile", `["']?(/[^\\s"',}]+)`),
      ),
      (match) => match[2] ?? "",
    ),
  ),
]
