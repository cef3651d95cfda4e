// The reaper as PID 1: 300 orphans and 80 supervised children at once.
import { assert, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

it("no zombie stays and no exit status is lost", async () => {
  const stress = fileURLToPath(new URL("reaperStress.ts", import.meta.url))
  const output = await new Promise<string>((resolve) => {
    execFile(
      "unshare",
      [
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        process.execPath,
        "--conditions=@kios/source",
        stress,
      ],
      { timeout: 60_000, killSignal: "SIGKILL" },
      (_error, stdout, stderr) => resolve(stdout === "" ? stderr : stdout),
    )
  })
  assert.deepStrictEqual(JSON.parse(output), { statuses: 80, wrong: [], zombies: 0, left: 0 })
})
