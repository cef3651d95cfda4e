/**
 * The JSON Schema of the configuration of the kubelet that the image holds.
 */
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"

const inDistro = (file: string) => fileURLToPath(new URL(`../../${file}`, import.meta.url))

/** Where it is, made by `scripts/kubelet-schema.ts`. */
export const schemaFile = inDistro("components/kubelet-configuration.schema.json")

/** The parts of JSON Schema that it uses. */
export interface ConfigSchema {
  readonly $comment?: string
  readonly description?: string
  readonly type?: string | ReadonlyArray<string>
  readonly format?: string
  readonly const?: string
  readonly enum?: ReadonlyArray<string>
  readonly minimum?: number
  readonly items?: ConfigSchema
  readonly properties?: Readonly<Record<string, ConfigSchema>>
  readonly additionalProperties?: ConfigSchema | false
  readonly required?: ReadonlyArray<string>
}

/** Reads it. */
export const readSchema = (): ConfigSchema => JSON.parse(fs.readFileSync(schemaFile, "utf8")) as ConfigSchema

/** The version of Kubernetes that is pinned: `v1.36.3`. */
export const pinnedKubelet = (): string => {
  const mod = fs.readFileSync(inDistro("components/kubelet/go.mod"), "utf8")
  const version = /^\s*k8s\.io\/kubernetes (v\S+)/mu.exec(mod)?.[1]
  if (version === undefined) throw new Error("components/kubelet/go.mod pins no k8s.io/kubernetes")
  return version
}
