/**
 * Checks the configuration of a kubelet before a node does: the kubelet merges
 * it without a word about keys that it does not know, and does not start with
 * a value of the wrong type.
 */
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml"
import type { ConfigSchema } from "./ConfigSchema.ts"
import { nearest, placesOf, scalarProblem, wanted } from "./SchemaWords.ts"

/** Something to tell about a place in a file. */
export interface Finding {
  /** An error keeps the kubelet from starting or is not what was meant; a warning has no effect on kiOS. */
  readonly severity: "error" | "warning" | "note"
  /** From 1. */
  readonly line: number
  readonly column: number
  /** `authentication.anonymous.enabled`; empty for the whole file. */
  readonly path: string
  readonly message: string
}

type Leaves = ReadonlyMap<string, unknown>

const leaves = (value: unknown, path = ""): ReadonlyArray<readonly [string, unknown]> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === "" ? key : `${path}.${key}`))
    : [[path, value]]

const given = { containerRuntimeEndpoint: "containerd's socket", staticPodPath: "/etc/kubernetes/manifests" }
const own = (mode: Parameters<typeof KubeletConfig.fixed>[0]): Leaves =>
  new Map(
    leaves(KubeletConfig.fixed(mode, given)).filter(([path]) => path !== "apiVersion" && path !== "kind"),
  )

/** What kiOS sets itself: always, and on a node that is in no cluster. */
const ownAlways = own({ _tag: "Cluster", bootstrap: false })
const ownStandalone = own({ _tag: "Standalone" })

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)

/**
 * Checks a text.
 *
 * @param schema of the kubelet that the image holds
 */
export const check = (text: string, schema: ConfigSchema): ReadonlyArray<Finding> => {
  const counter = new LineCounter()
  // The kubelet reads YAML 1.1, in which `on` and `yes` are booleans.
  const document = parseDocument(text, { lineCounter: counter, version: "1.1", prettyErrors: false })
  const findings: Array<Finding> = []
  const report = (severity: Finding["severity"], offset: number, path: string, message: string) => {
    const { col, line } = counter.linePos(offset)
    findings.push({ severity, line: Math.max(1, line), column: Math.max(1, col), path, message })
  }
  for (const { message, pos } of document.errors) report("error", pos[0], "", `is no YAML: ${message}`)
  if (findings.length > 0) return findings
  if (document.contents === null) report("error", 0, "", "is empty, which the kubelet refuses")
  else walk(document, document.contents, schema, { schema, report }, [])
  return findings.toSorted((a, b) => a.line - b.line || a.column - b.column)
}

interface Walk {
  readonly schema: ConfigSchema
  readonly report: (severity: Finding["severity"], offset: number, path: string, message: string) => void
}

const DEEPEST = 16

const walk = (
  document: Document,
  written: Node,
  schema: ConfigSchema,
  context: Walk,
  keys: ReadonlyArray<string>,
): void => {
  const offset = written.range?.[0] ?? 0
  const path = keys.join(".")
  const node = isAlias(written) ? written.resolve(document) : written
  if (node === undefined) return context.report("error", offset, path, "refers to an anchor that is nowhere")
  // Deeper than any key: an anchor that holds itself.
  if (keys.length > DEEPEST) return context.report("error", offset, path, "is nested too deeply")
  const types = [schema.type ?? []].flat()
  if (isMap(node)) {
    if (schema.const !== undefined || !types.includes("object"))
      return context.report("error", offset, path, mustBe(schema, "a map"))
    for (const { key: keyNode, value } of node.items) {
      const key = isScalar(keyNode) ? String(keyNode.value) : String(keyNode)
      const at = (keyNode as Node).range?.[0] ?? offset
      const below = [...keys, key]
      const inner = schema.properties?.[key] ?? schema.additionalProperties
      if (inner === undefined || inner === false) {
        context.report("error", at, below.join("."), unknown(key, schema, context.schema))
        continue
      }
      let wrong = false
      const report: Walk["report"] = (severity, ...rest) => {
        wrong ||= severity === "error"
        context.report(severity, ...rest)
      }
      if (value !== null) walk(document, value as Node, inner, { ...context, report }, below)
      if (!wrong) owned(context, at, below.join("."), value === null ? null : (value as Node).toJS(document))
    }
    for (const key of schema.required ?? [])
      if (!node.has(key)) {
        const value = schema.properties?.[key]?.const ?? ""
        context.report("error", offset, key, `is missing: ${key}: ${value}`)
      }
    return
  }
  if (isSeq(node)) {
    if (!types.includes("array")) return context.report("error", offset, path, mustBe(schema, "a list"))
    for (const [index, item] of node.items.entries())
      walk(document, item as Node, schema.items ?? {}, context, [
        ...keys.slice(0, -1),
        `${keys.at(-1)}[${index}]`,
      ])
    return
  }
  // Null takes away what was there before: the kubelet's merge.
  if (!isScalar(node) || node.value === null) {
    if (keys.length === 0) context.report("error", offset, path, "is empty, which the kubelet refuses")
    return
  }
  const problem = scalarProblem(schema, node.value)
  if (problem !== undefined) context.report("error", offset, path, problem)
}

const mustBe = (schema: ConfigSchema, found: string) =>
  `must be ${schema.const ?? wanted(schema)}, and is ${found}`

const unknown = (key: string, here: ConfigSchema, all: ConfigSchema): string => {
  const close = nearest(key, Object.keys(here.properties ?? {}))
  if (close !== undefined) return `is no key of it; did you mean ${close}?`
  const places = placesOf(key, all)
  return places.length === 0 ? "is no key of it" : `is no key of it; it belongs to ${places.join(" or ")}`
}

/** Tells what has no effect because kiOS sets it itself. */
const owned = ({ report }: Walk, offset: number, path: string, value: unknown): void => {
  if (ownAlways.has(path)) {
    const fixed = ownAlways.get(path)
    if (!same(fixed, value))
      report(
        "warning",
        offset,
        path,
        `has no effect: kiOS ${fixed === null ? "leaves it out" : `sets it itself, to ${JSON.stringify(fixed)}`}`,
      )
  } else if (ownStandalone.has(path)) {
    const fixed = ownStandalone.get(path)
    if (!same(fixed, value))
      report(
        "note",
        offset,
        path,
        `holds in a cluster; without one kiOS ${fixed === null ? "leaves it out" : `sets it to ${JSON.stringify(fixed)}`}`,
      )
  }
}
