/** containerd.services.version.v1.Version (api/services/version/v1/version.proto). */
import { text, visitFields } from "./Proto.ts"

export const method = "/containerd.services.version.v1.Version/Version"

/** What containerd was built as, such as `v2.4.2`; `revision` may be empty. */
export interface ContainerdVersion {
  readonly version: string
  readonly revision: string
}

/** VersionResponse: version = 1, revision = 2. */
export const decodeResponse = (message: Uint8Array): ContainerdVersion => {
  let version = ""
  let revision = ""
  visitFields(message, (f) => {
    if (f.number === 1) version = text(f)
    else if (f.number === 2) revision = text(f)
  })
  return { version, revision }
}
