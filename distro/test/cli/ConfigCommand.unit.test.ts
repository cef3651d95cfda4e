import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { findingsIn } from "../../src/cli/ConfigCommand.ts"

const findings = (name: string, text: string) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kios-config-"))
  fs.writeFileSync(path.join(dir, name), text)
  return findingsIn(path.join(dir, name)).pipe(
    Effect.map((all) => all.map(({ line, message }) => `${line} ${message}`)),
    Effect.ensuring(Effect.sync(() => fs.rmSync(dir, { recursive: true }))),
  )
}

describe("kios config check", () => {
  for (const [name, text, finding] of [
    ["node-labels", "a=b\nkubernetes.io/c=d\n", "2 a kubelet may not set kubernetes.io/c itself"],
    ["node-taints", "a\n", '1 "a" is no key=value:Effect'],
    ["node-ip", "here\n", '1 "here" is no IP address'],
    ["provider-id", "here\n", '1 "here" is no identifier'],
    ["kubelet.conf", "kind: Pod\n", "1 is of kind Pod, not Config"],
    ["bootstrap-kubelet.conf", "", "1 is empty"],
    ["config.yaml", "kind: Pod\n", "1 is missing: apiVersion"],
    ["50-pods.conf", "kind: Pod\n", "1 is missing: apiVersion"],
  ] as const)
    it.effect(`reads ${name} as the node does`, () =>
      Effect.gen(function* () {
        const [first = ""] = yield* findings(name, text)
        assert.isTrue(first.startsWith(finding), first)
      }),
    )
  it.effect("says what it cannot read", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(findingsIn("/no/such/file"))
      assert.include(error.message, "/no/such/file: cannot be read: ENOENT")
    }),
  )
})
