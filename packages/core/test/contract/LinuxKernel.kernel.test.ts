// The contract on Linux, in mount, pid, uts, ipc and network namespaces of its own.
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { all } from "./cases.ts"

const live = fileURLToPath(new URL("live.ts", import.meta.url))
const results = new Map<string, string | undefined>()

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
    const { error, name } = JSON.parse(line) as { name: string; error?: string }
    results.set(name, error)
  }
  if (results.size === 0) throw new Error(`the contract did not run: ${stderr}`)
})

describe("contract: LinuxKernel", () => {
  for (const { name } of all)
    it(name, () => {
      assert.isTrue(results.has(name), "this case did not run")
      if (results.get(name) !== undefined) throw new Error(results.get(name))
    })
  it("runs the cases that TestMachine runs, no more and no fewer", () => {
    assert.deepStrictEqual([...results.keys()].sort(), all.map((one) => one.name).toSorted())
  })
})
