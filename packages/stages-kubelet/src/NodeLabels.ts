/**
 * The labels that a node registers with: `/etc/kubernetes/node-labels`, a
 * `key=value` in each line. A line that is wrong is left out, and told.
 *
 * A kubelet may not give itself any label it likes: of Kubernetes' own only
 * those that say what and where it is. The API server's NodeRestriction
 * refuses the others, and the kubelet does not even start with one.
 * `k8s.io/kubelet/pkg/apis/well_known_labels.go`.
 */
import { lines } from "./internal/lines.ts"
import { keyProblem, valueProblem } from "./internal/qualifiedName.ts"
import type { Problem } from "./Kubeconfig.ts"

const ALLOWED = new Set([
  "kubernetes.io/hostname",
  "kubernetes.io/os",
  "kubernetes.io/arch",
  "beta.kubernetes.io/os",
  "beta.kubernetes.io/arch",
  "beta.kubernetes.io/instance-type",
  "node.kubernetes.io/instance-type",
  "topology.kubernetes.io/zone",
  "topology.kubernetes.io/region",
  "failure-domain.beta.kubernetes.io/zone",
  "failure-domain.beta.kubernetes.io/region",
])

const within = (prefix: string, domain: string) => prefix === domain || prefix.endsWith(`.${domain}`)

const mayNotSet = (key: string): boolean => {
  const prefix = key.slice(0, Math.max(0, key.indexOf("/")))
  return (
    (within(prefix, "kubernetes.io") || within(prefix, "k8s.io")) &&
    !within(prefix, "kubelet.kubernetes.io") &&
    !within(prefix, "node.kubernetes.io") &&
    !ALLOWED.has(key)
  )
}

/** What a file holds that can be used, and what is wrong in it. */
export interface NodeLabels {
  readonly labels: Readonly<Record<string, string>>
  readonly problems: ReadonlyArray<Problem>
}

/**
 * Reads the text of such a file. `#` begins a comment line.
 *
 * @example
 * ```ts
 * import * as NodeLabels from "@kios/stages-kubelet/NodeLabels"
 *
 * NodeLabels.parse("topology.kubernetes.io/zone=eu-1a\nnode-role.kubernetes.io/worker=\n").problems[0]?.line // 2
 * ```
 */
export const parse = (text: string): NodeLabels => {
  const labels: Record<string, string> = {}
  const seen = new Map<string, number>()
  const problems: Array<Problem> = []
  for (const [line, entry] of lines(text)) {
    const at = entry.indexOf("=")
    const key = entry.slice(0, Math.max(0, at)).trim()
    const value = entry.slice(at + 1).trim()
    const before = seen.get(key)
    const reason =
      at === -1
        ? `${JSON.stringify(entry)} is no key=value`
        : key === ""
          ? "there is no key before the ="
          : (keyProblem(key) ??
            valueProblem(value) ??
            (mayNotSet(key)
              ? `a kubelet may not set ${key} itself (NodeRestriction); set it by the API: kubectl label node`
              : before === undefined
                ? undefined
                : `${key} was given in line ${before} already`))
    if (reason !== undefined) problems.push({ line, reason })
    else {
      seen.set(key, line)
      labels[key] = value
    }
  }
  return { labels, problems }
}
