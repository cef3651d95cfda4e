// The contract on Linux, in mount, pid, uts, ipc and network namespaces of its own.
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { all } from "./cases.ts"

const live = fileURLToPath(new URL("live.ts", import.meta.url))
const results = new Map<string, string | undefined>()
const notApplicable: Array<string> = []

beforeAll(async () => {
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc", "--net"]
  const { stderr, stdout } = await new Promise<{ stdout: string; stderr: string }>((resolve) => {
    execFile(
      "unshare",
      [...namespaces, process.execPath, "--conditions=@kios/source", live],
      { timeout: 60_000, killSignal: "SIGKILL", maxBuffer: 1 << 24 },
      (_error, stdout, stderr) => resolve({ stdout, stderr }),
    )
  })
  for (const line of stdout.trim().split("\n")) {
    if (!line.startsWith("{")) continue
    const { error, name, needs } = JSON.parse(line) as { name: string; error?: string; needs?: string }
    if (needs === undefined) results.set(name, error)
    else notApplicable.push(name)
  }
  if (results.size === 0) throw new Error(`the contract did not run: ${stderr}`)
})

describe("contract: LinuxKernel", () => {
  const here = all.filter((one) => one.needs === undefined)
  for (const { name } of here)
    it(name, () => {
      assert.isTrue(results.has(name), "this case did not run")
      if (results.get(name) !== undefined) throw new Error(results.get(name))
    })
  it("runs what TestMachine runs, but for what needs a machine of its own, which it lists", () => {
    assert.deepStrictEqual(
      [...results.keys()],
      here.map((one) => one.name),
    )
    assert.deepStrictEqual(
      notApplicable,
      all.filter((one) => one.needs === "machine").map((one) => one.name),
    )
  })
})
