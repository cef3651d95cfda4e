/**
 * A static pod manifest that cannot be read is only told in the kubelet's log,
 * which nobody sees on a node without a shell; these lines bring it to the
 * console.
 */

import { quoted } from "./internal/klog.ts"

/** A manifest that the kubelet could not use. */
export interface ManifestError {
  readonly file: string
  readonly reason: string
}

/**
 * Finds a manifest's error in a line of the kubelet's log
 * (`pkg/kubelet/config/file.go`: "Could not process manifest file").
 *
 * @example
 * ```ts
 * import * as ManifestErrors from "@kios/stages-kubelet/ManifestErrors"
 *
 * ManifestErrors.parse('E1122 03:45:12 1 file.go:186] "Could not process manifest file" err="bad" path="/m/a.yaml"')
 * // { file: "/m/a.yaml", reason: "bad" }
 * ```
 */
export const parse = (line: string): ManifestError | undefined => {
  if (!line.includes('"Could not process manifest file"')) return undefined
  const file = quoted(line, "path")
  return file === undefined ? undefined : { file, reason: quoted(line, "err") ?? "no reason given" }
}
