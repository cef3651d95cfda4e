/**
 * The address and the provider's name of a node: files of one line each.
 *
 * `/etc/kubernetes/node-ip`: an IP address, or one of each family with a comma
 * between them; `::` and `0.0.0.0` ask for the default one of that family.
 * `/etc/kubernetes/provider-id`: what a cloud's controller knows the machine
 * by, `aws:///eu-west-1a/i-0abc`.
 */
import { lines } from "./internal/lines.ts"
import type { Problem } from "./Kubeconfig.ts"

/** The value of a file, or what is wrong with it; both undefined when it says nothing. */
export interface OneValue {
  readonly value: string | undefined
  readonly problem: Problem | undefined
}

const single = (text: string, what: string, check: (value: string) => string | undefined): OneValue => {
  const [first, second] = lines(text)
  if (first === undefined) return { value: undefined, problem: undefined }
  const [line, value] = first
  const reason = check(value)
  const problem =
    reason !== undefined
      ? { line, reason }
      : second !== undefined
        ? { line: second[0], reason: `there is ${what} in line ${line} already` }
        : undefined
  return { value: problem === undefined ? value : undefined, problem }
}

/**
 * Reads the text of a `node-ip` file.
 *
 * @example
 * ```ts
 * import * as NodeAddress from "@kios/stages-kubelet/NodeAddress"
 *
 * NodeAddress.parseIp("10.0.0.7,fd00::7\n").value // "10.0.0.7,fd00::7"
 * ```
 */
export const parseIp = (text: string): OneValue => {
  const { isIP } = process.getBuiltinModule("node:net")
  return single(text.replaceAll(/ *, */gu, ","), "an address", (value) => {
    const families = value.split(",").map((ip) => [ip, isIP(ip)] as const)
    const wrong = families.find(([, family]) => family === 0)
    if (wrong !== undefined) return `${JSON.stringify(wrong[0])} is no IP address`
    return families.length > 2 || (families.length === 2 && families[0]?.[1] === families[1]?.[1])
      ? "two addresses must be one of IPv4 and one of IPv6"
      : undefined
  })
}

/**
 * Reads the text of a `provider-id` file.
 *
 * @example
 * ```ts
 * import * as NodeAddress from "@kios/stages-kubelet/NodeAddress"
 *
 * NodeAddress.parseProviderId("aws:///eu-west-1a/i-0abc\n").value // "aws:///eu-west-1a/i-0abc"
 * ```
 */
export const parseProviderId = (text: string): OneValue =>
  single(text, "an identifier", (value) =>
    /^[a-z][a-z0-9+.-]*:\/\/\S+$/u.test(value)
      ? undefined
      : `${JSON.stringify(value)} is no identifier such as aws:///eu-west-1a/i-0abc`,
  )
