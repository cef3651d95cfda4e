import { Effect } from "effect"
import * as Probe from "@kios/distro/vm/Probe"
import * as fs from "node:fs"
const { port } = JSON.parse(fs.readFileSync("/tmp/tc/boot/a.json", "utf8"))
const script = fs.readFileSync(0, "utf8")
const r = await Effect.runPromise(Effect.scoped(Effect.gen(function* () { const p = yield* Probe.make({ path: port }); yield* p.ready({ timeout: "90 seconds" }); return yield* p.exec(script, { timeout: "60 seconds" }) })))
process.stdout.write(r.stdout); process.stderr.write(r.stderr); console.log(`[exit ${r.exitCode}]`)
