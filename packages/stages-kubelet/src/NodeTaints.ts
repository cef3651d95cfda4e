/**
 * The taints that a node registers with: `/etc/kubernetes/node-taints`, in
 * each line one as `kubectl taint` writes it, `key=value:Effect` or
 * `key:Effect`. A line that is wrong is left out, and told.
 */
import { lines } from "./internal/lines.ts"
import { keyProblem, valueProblem } from "./internal/qualifiedName.ts"
import type { Problem } from "./Kubeconfig.ts"

const EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]

/** As KubeletConfiguration's `registerWithTaints` has it. */
export interface Taint {
  readonly key: string
  readonly value?: string
  readonly effect: string
}

/**
 * Reads the text of such a file. `#` begins a comment line.
 *
 * @example
 * ```ts
 * import * as NodeTaints from "@kios/stages-kubelet/NodeTaints"
 *
 * NodeTaints.parse("example.com/gpu=yes:NoSchedule\n").taints
 * // [{ key: "example.com/gpu", value: "yes", effect: "NoSchedule" }]
 * ```
 */
export const parse = (
  text: string,
): { readonly taints: ReadonlyArray<Taint>; readonly problems: ReadonlyArray<Problem> } => {
  const taints: Array<Taint> = []
  const problems: Array<Problem> = []
  for (const [line, entry] of lines(text)) {
    const [, key = "", value, effect = ""] = /^([^=:]*)(?:=([^:]*))?:(.*)$/u.exec(entry) ?? []
    const reason =
      effect === ""
        ? `${JSON.stringify(entry)} is no key=value:Effect`
        : (keyProblem(key) ??
          valueProblem(value ?? "") ??
          (EFFECTS.includes(effect)
            ? taints.some((one) => one.key === key && one.effect === effect)
              ? `${key} was given with ${effect} already`
              : undefined
            : `${JSON.stringify(effect)} is no effect: ${EFFECTS.join(", ")}`))
    if (reason !== undefined) problems.push({ line, reason })
    else taints.push({ key, ...(value === undefined ? {} : { value }), effect })
  }
  return { taints, problems }
}
