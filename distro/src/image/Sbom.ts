/**
 * The bill of materials of an image: CycloneDX 1.6 in JSON. Same components,
 * same bytes: sorted, no clock, and a serial number that is derived from the
 * content.
 *
 * Source: CycloneDX 1.6 JSON reference (ECMA-424).
 *
 * @module
 */
import { Effect } from "effect"
import { SbomError } from "./ImageError.ts"
import { derivedUuid } from "./internal/Uuid.ts"

/**
 * A file of the image: `path` as on the node, `size` in bytes, `sha256` in
 * hexadecimal.
 */
export interface File {
  readonly path: string
  readonly sha256: string
  readonly size: number
}

/**
 * A part of the image.
 *
 * - `license`: an SPDX expression (`Apache-2.0`, `GPL-2.0-only WITH
 *   Linux-syscall-note`), or else a name.
 * - `source`: where it came from, in words.
 * - `type`: of CycloneDX, `application` unless given.
 * - `purl`: its package URL, if it has one.
 * - `packages`: what it was taken out of, as package URL and digest.
 */
export interface Component {
  readonly name: string
  readonly version: string
  readonly license?: string
  readonly source: string
  readonly type?: "application" | "library" | "operating-system" | "firmware" | "container" | "data"
  readonly purl?: string
  readonly packages?: ReadonlyArray<{ readonly purl: string; readonly digest: string }>
  readonly files: ReadonlyArray<File>
}

/**
 * The image itself. `timestamp` (seconds since 1970) is left out unless given.
 */
export interface Subject {
  readonly name: string
  readonly version: string
  readonly timestamp?: number
  /** The hardware that it is for. */
  readonly profile?: string
}

const SPDX_ID = "(?:(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+|[A-Za-z0-9][A-Za-z0-9.-]*\\+?)"
const SPDX_TERM = `\\(*${SPDX_ID}(?: WITH ${SPDX_ID})?\\)*`
const SPDX = new RegExp(`^${SPDX_TERM}(?: (?:AND|OR) ${SPDX_TERM})*$`, "u")

const balanced = (text: string): boolean => text.split("(").length === text.split(")").length

const licenseOf = (license: string) =>
  SPDX.test(license) && balanced(license) ? { expression: license } : { license: { name: license } }

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

const refOf = (component: Component): string => `${component.name}@${component.version}`

const problem = (component: Component): string | undefined => {
  if (component.name === "" || component.version === "") return "its name or version is empty"
  if (component.source === "") return "it does not say where it came from (source is empty)"
  const bad = component.files.find((f) => !/^[0-9a-f]{64}$/u.test(f.sha256))
  if (bad !== undefined) return `${bad.path}: "${bad.sha256}" is not a SHA-256 in lower-case hexadecimal`
  const sized = component.files.find((f) => !Number.isSafeInteger(f.size) || f.size < 0 || f.path === "")
  if (sized !== undefined) return `file "${sized.path}" of ${sized.size} bytes: empty path or not a size`
  const paths = component.files.map((f) => f.path)
  const twice = paths.find((path, i) => paths.indexOf(path) !== i)
  return twice === undefined ? undefined : `it lists the file ${twice} twice`
}

const describe = (component: Component) => ({
  type: component.type ?? "application",
  "bom-ref": refOf(component),
  name: component.name,
  version: component.version,
  ...(component.license === undefined ? {} : { licenses: [licenseOf(component.license)] }),
  ...(component.purl === undefined ? {} : { purl: component.purl }),
  properties: [
    { name: "kios:source", value: component.source },
    ...(component.packages ?? []).map(({ digest, purl }) => ({
      name: "kios:package",
      value: `${purl} ${digest}`,
    })),
  ],
  ...(component.files.length === 0
    ? {}
    : {
        components: component.files
          .toSorted((a, b) => compare(a.path, b.path))
          .map((file) => ({
            type: "file",
            "bom-ref": `${refOf(component)}#${file.path}`,
            name: file.path,
            hashes: [{ alg: "SHA-256", content: file.sha256 }],
            properties: [{ name: "kios:size", value: String(file.size) }],
          })),
      }),
})

/**
 * The document as text, ending in a newline.
 *
 * Fails with {@link SbomError}: `InvalidComponent` (an empty name, version or
 * source, a digest that is none), `DuplicateComponent` (same name and version).
 *
 * @example
 * ```ts
 * import * as Sbom from "@kios/distro/image/Sbom"
 *
 * const json = Sbom.make({ name: "kios", version: "0.1.0" }, [
 *   {
 *     name: "runc",
 *     version: "1.3.0",
 *     license: "Apache-2.0",
 *     source: "Go module github.com/opencontainers/runc v1.3.0",
 *     files: [{ path: "/bin/runc", sha256: "0".repeat(64), size: 1 }],
 *   },
 * ])
 * ```
 */
export const make = (
  subject: Subject,
  components: ReadonlyArray<Component>,
): Effect.Effect<string, SbomError> =>
  Effect.suspend(() => {
    const seen = new Set<string>()
    for (const component of components) {
      const ref = refOf(component)
      const detail = problem(component)
      if (detail !== undefined) {
        return Effect.fail(new SbomError({ reason: "InvalidComponent", component: ref, detail }))
      }
      if (seen.has(ref)) {
        const twice = "is listed twice; merge its files into one component"
        return Effect.fail(new SbomError({ reason: "DuplicateComponent", component: ref, detail: twice }))
      }
      seen.add(ref)
    }
    const sorted = components.toSorted((a, b) => compare(refOf(a), refOf(b)))
    const self = `${subject.name}@${subject.version}`
    const body = {
      version: 1,
      metadata: {
        ...(subject.timestamp === undefined
          ? {}
          : { timestamp: new Date(subject.timestamp * 1000).toISOString() }),
        component: {
          type: "operating-system",
          "bom-ref": `image:${self}`,
          name: subject.name,
          version: subject.version,
          ...(subject.profile === undefined
            ? {}
            : { properties: [{ name: "kios:profile", value: subject.profile }] }),
        },
      },
      components: sorted.map(describe),
      dependencies: [{ ref: `image:${self}`, dependsOn: sorted.map(refOf) }],
    }
    const document = {
      $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
      bomFormat: "CycloneDX",
      specVersion: "1.6",
      serialNumber: `urn:uuid:${derivedUuid(JSON.stringify(body))}`,
      ...body,
    }
    return Effect.succeed(`${JSON.stringify(document, null, 2)}\n`)
  })
