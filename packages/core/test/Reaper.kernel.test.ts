// The reaper as PID 1 of a pid namespace: orphans and supervised children at once. A plain waitpid(-1) lost 14 of 200
// exit codes here.
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

const stress = fileURLToPath(new URL("reaperStress.ts", import.meta.url))

const run = (...args: ReadonlyArray<string>) =>
  new Promise<Record<string, unknown>>((resolve, reject) => {
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
        ...args,
      ],
      { timeout: 240_000, killSignal: "SIGKILL" },
      (error, stdout, stderr) =>
        stdout === "" ? reject(new Error(`${error?.message}\n${stderr}`)) : resolve(JSON.parse(stdout)),
    )
  })

describe("no zombie stays and no exit status is lost", () => {
  it("of 2000 orphans and 200 supervised children", async () => {
    const { reused: _, ...told } = await run("2000", "200")
    assert.deepStrictEqual(told, { statuses: 400, wrong: [], zombies: 0, left: 0 })
  }, 260_000)

  it("of 1000 orphans and 500 supervised children whose pids come again and again", async () => {
    const { reused, ...told } = await run("1000", "500", "reuse")
    assert.deepStrictEqual(told, { statuses: 600, wrong: [], zombies: 0, left: 0 })
    assert.isAtLeast(reused as number, 5)
  }, 260_000)
})
