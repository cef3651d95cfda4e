/**
 * Makes the JSON Schema by which `kios config check` checks a kubelet's
 * configuration, from the types of the kubelet that is pinned. Needs Go, and
 * the Go modules of the kubelet, which a build has downloaded. Run it, and
 * commit the result, when the pin has moved:
 *
 *   node_modules/.bin/node --conditions=@kios/source scripts/kubelet-schema.ts
 */
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { pinnedKubelet, schemaFile } from "../distro/src/kubelet/ConfigSchema.ts"

const here = path.dirname(fileURLToPath(import.meta.url))
const pins = path.join(here, "../distro/components/kubelet")

/** The schema of the pinned kubelet, as it belongs into {@link schemaFile}. */
export const makeSchema = (): string => {
  // Not beside the pins: every file there is part of the kubelet's own build.
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kios-kubelet-schema-"))
  try {
    for (const file of ["go.mod", "go.sum"]) fs.copyFileSync(path.join(pins, file), path.join(dir, file))
    fs.copyFileSync(path.join(here, "kubelet-schema/main.go"), path.join(dir, "main.go"))
    return execFileSync("go", ["run", "-mod=mod", "main.go", pinnedKubelet()], {
      cwd: dir,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      maxBuffer: 1 << 24,
      env: { ...process.env, GOFLAGS: "", GOWORK: "off" },
    })
  } finally {
    fs.rmSync(dir, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) fs.writeFileSync(schemaFile, makeSchema())
