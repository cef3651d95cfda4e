/** runtime.v1.RuntimeService, the CRI half that the kubelet asks first (k8s.io/cri-api runtime/v1/api.proto). */
import { text, visitFields } from "./Proto.ts"

export const version = "/runtime.v1.RuntimeService/Version"

/** Who serves CRI, such as `{ name: "containerd", version: "v2.4.2" }`. */
export interface CriVersion {
  readonly name: string
  readonly version: string
  readonly apiVersion: string
}

/** VersionResponse: runtime_name = 2, runtime_version = 3, runtime_api_version = 4. */
export const decodeVersionResponse = (message: Uint8Array): CriVersion => {
  let name = ""
  let version = ""
  let apiVersion = ""
  visitFields(message, (f) => {
    if (f.number === 2) name = text(f)
    else if (f.number === 3) version = text(f)
    else if (f.number === 4) apiVersion = text(f)
  })
  return { name, version, apiVersion }
}
