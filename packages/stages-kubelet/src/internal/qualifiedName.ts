/** The names and values of labels and taints: k8s.io/apimachinery/pkg/util/validation. */

const PART = /^[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?$/u
const PREFIX = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/u
const CHARACTERS = "must be of letters, digits, - _ and ., and begin and end with a letter or digit"

const tooLong = (what: string, text: string, most: number) =>
  `${what} has ${text.length} characters, and may have ${most}`

/** What is wrong with a key, if anything. */
export const keyProblem = (key: string): string | undefined => {
  const slash = key.indexOf("/")
  const prefix = slash === -1 ? undefined : key.slice(0, slash)
  const name = key.slice(slash + 1)
  if (prefix !== undefined) {
    if (prefix.length > 253) return tooLong(`the prefix of ${JSON.stringify(key)}`, prefix, 253)
    if (!PREFIX.test(prefix))
      return `the prefix ${JSON.stringify(prefix)} must be a DNS name in small letters`
  }
  if (name.length > 63) return tooLong(`the name ${JSON.stringify(name)}`, name, 63)
  return PART.test(name) ? undefined : `the name ${JSON.stringify(name)} ${CHARACTERS}`
}

/** What is wrong with a value, if anything; it may be empty. */
export const valueProblem = (value: string): string | undefined => {
  if (value.length > 63) return tooLong(`the value ${JSON.stringify(value)}`, value, 63)
  return value === "" || PART.test(value) ? undefined : `the value ${JSON.stringify(value)} ${CHARACTERS}`
}
