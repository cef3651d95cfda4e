/**
 * Values held against a schema, in words; and what somebody may have meant.
 */
import type { ConfigSchema } from "./ConfigSchema.ts"

// time.ParseDuration of Go.
const DURATION = /^[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/u
// k8s.io/apimachinery/pkg/api/resource.
const QUANTITY = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$/u

const shown = (value: unknown) =>
  typeof value === "string" ? `the string ${JSON.stringify(value)}` : `${JSON.stringify(value)}`

const kindOf = (value: unknown): string =>
  typeof value === "number" ? (Number.isInteger(value) ? "integer" : "number") : typeof value

const yaml: Readonly<Record<string, string>> = { object: "a map", array: "a list", integer: "an integer" }

/** What a value must be, in YAML's words. */
export const wanted = ({ format, type }: ConfigSchema): string =>
  format === "go-duration"
    ? "a duration such as 30s or 1h30m"
    : format === "quantity"
      ? "a quantity such as 100Mi or 500m"
      : [type ?? []]
          .flat()
          .map((one) => yaml[one] ?? `a ${one}`)
          .join(" or ")

/** What is wrong with a value that is no list or map; undefined when nothing is. */
export const scalarProblem = (schema: ConfigSchema, value: unknown): string | undefined => {
  if (schema.const !== undefined)
    return value === schema.const ? undefined : `must be ${schema.const}, and is ${shown(value)}`
  const types = [schema.type ?? []].flat()
  const kind = kindOf(value)
  if (!types.includes(kind) && !(kind === "integer" && types.includes("number"))) {
    const quote = schema.type === "string" && schema.format === undefined ? `: write "${String(value)}"` : ""
    return `must be ${wanted(schema)}, and is ${shown(value)}${quote}`
  }
  if (schema.enum !== undefined && !schema.enum.includes(String(value)))
    return `must be one of ${schema.enum.map((one) => JSON.stringify(one)).join(", ")}, and is ${shown(value)}`
  if (schema.format === "go-duration" && !DURATION.test(String(value)))
    return `must be ${wanted(schema)}, and is ${shown(value)}`
  if (schema.format === "quantity" && !QUANTITY.test(String(value)))
    return `must be ${wanted(schema)}, and is ${shown(value)}`
  if (schema.minimum !== undefined && Number(value) < schema.minimum)
    return `must be ${schema.minimum} or more, and is ${shown(value)}`
  return undefined
}

/** How many letters have to be changed, added or left out to make one word of the other (Levenshtein). */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min(
          (row[j] ?? 0) + 1,
          (next[j - 1] ?? 0) + 1,
          (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        ),
      )
    row = next
  }
  return row[b.length] ?? 0
}

/** The name that is most like a word, if one is like it. */
export const nearest = (word: string, names: ReadonlyArray<string>): string | undefined => {
  // Flags are written with dashes, and people write keys in other cases.
  const plain = (text: string) => text.toLowerCase().replaceAll(/[-_]/gu, "")
  return names
    .map((name) => ({ name, far: distance(plain(word), plain(name)) }))
    .filter(({ far, name }) => far <= Math.max(1, Math.floor(name.length / 5)))
    .toSorted((a, b) => a.far - b.far)[0]?.name
}

/** Where a schema has a key, as paths of what it is in. */
export const placesOf = (key: string, schema: ConfigSchema, path = ""): ReadonlyArray<string> => {
  const inner = Object.entries(schema.properties ?? {}).flatMap(([name, one]) =>
    placesOf(key, one, path === "" ? name : `${path}.${name}`),
  )
  return schema.properties?.[key] === undefined
    ? inner
    : [path === "" ? "the top of the file" : path, ...inner]
}
