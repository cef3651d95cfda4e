// The reaper as PID 1 of a pid namespace: orphans and supervised children at once. A plain waitpid(-1) lost 14 of 200
// exit codes here.
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { scaled } from "./support/Scale.ts"

const stress = fileURLToPath(new URL("reaperStress.ts", import.meta.url))
const minutes = scaled(5, 30)
const [orphans, children] = scaled([2000, 200], [8000, 1000])

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
      { timeout: minutes * 55_000, killSignal: "SIGKILL" },
      (error, stdout, stderr) =>
        stdout === "" ? reject(new Error(`${error?.message}\n${stderr}`)) : resolve(JSON.parse(stdout)),
    )
  })

describe("no zombie stays and no exit status is lost", () => {
  it(
    `of ${orphans} orphans and ${children} supervised children`,
    async () => {
      const { reused: _, ...told } = await run(String(orphans), String(children))
      // One in ten orphans has a parent that is supervised as well.
      assert.deepStrictEqual(told, { statuses: orphans / 10 + children, wrong: [], zombies: 0, left: 0 })
    },
    minutes * 60_000,
  )

  it(
    "of 1000 orphans and 500 supervised children whose pids come again and again",
    async () => {
      const { reused, ...told } = await run("1000", "500", "reuse")
      assert.deepStrictEqual(told, { statuses: 600, wrong: [], zombies: 0, left: 0 })
      assert.isAtLeast(reused as number, 5)
    },
    minutes * 60_000,
  )
})
