// Does what init does with a directory of archives, in a process of its own: importer.ts SOCKET DIRECTORY.
import { Effect } from "effect"
import * as fs from "node:fs"
import { make, pinnedImageLabels } from "@kios/stages-runtime/containerd/ContainerdClient"

const [address = "", directory = ""] = process.argv.slice(2)
const memory = () => fs.readFileSync("/proc/self/status", "utf8")
const kilobytes = (field: string) => Number(new RegExp(`^${field}:\\s*(\\d+)`, "mu").exec(memory())?.[1])

await Effect.runPromise(
  Effect.gen(function* () {
    const client = yield* make(address)
    yield* client.images
    const before = kilobytes("VmRSS")
    const started = performance.now()
    let imported = 0
    for (const name of fs.readdirSync(directory).sort()) {
      const archive = `${directory}/${name}`
      const images = yield* client.importImage({ archive, labels: pinnedImageLabels, unlessThere: true })
      imported += images.filter(({ wasThere }) => wasThere !== true).length
    }
    const ms = Math.round(performance.now() - started)
    console.log(JSON.stringify({ imported, ms, before, peak: kilobytes("VmHWM") }))
  }).pipe(Effect.scoped),
)
