// The schema that is committed is what the types of the pinned kubelet give. Where they were never downloaded, a build
// would have to do so first; there only its version is held to the pin (ConfigCheck.unit.test.ts).
import { assert, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import { makeSchema } from "../../../scripts/kubelet-schema.ts"
import { pinnedKubelet, schemaFile } from "../../src/kubelet/ConfigSchema.ts"

const modulesAreHere = (() => {
  try {
    const cache = execFileSync("go", ["env", "GOMODCACHE"], { encoding: "utf8" }).trim()
    return fs.existsSync(`${cache}/k8s.io/kubernetes@${pinnedKubelet()}`)
  } catch {
    return false
  }
})()

it.skipIf(!modulesAreHere)(
  "the schema is up to date (scripts/kubelet-schema.ts makes it)",
  () => {
    assert.deepStrictEqual(JSON.parse(makeSchema()), JSON.parse(fs.readFileSync(schemaFile, "utf8")))
  },
  900_000,
)
