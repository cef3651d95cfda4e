import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Kubeconfig from "@kios/stages-kubelet/Kubeconfig"
import { kubeconfig } from "./life.ts"

const whole = kubeconfig()
const json = {
  apiVersion: "v1",
  kind: "Config",
  clusters: [
    { name: "c", cluster: { server: "https://10.0.0.1:6443", "certificate-authority": "/pki/ca.crt" } },
  ],
  contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
  "current-context": "x",
  users: [{ name: "u", user: { "client-certificate": "/pki/a.pem", "client-key": "/pki/a.pem" } }],
}
const problem = (text: string) => Kubeconfig.examine(text).problem

describe("a kubeconfig", () => {
  it("is taken as YAML, as kubectl writes it", () => {
    assert.deepStrictEqual(Kubeconfig.examine(whole), { problem: undefined, whole: true, files: [] })
  })
  it("is taken as JSON, in a line or in many", () => {
    for (const text of [JSON.stringify(json), JSON.stringify(json, null, 2)])
      assert.deepStrictEqual(Kubeconfig.examine(text), {
        problem: undefined,
        whole: true,
        files: ["/pki/ca.crt", "/pki/a.pem"],
      })
  })
  it("may have comments, quotes, lists that are indented, and carriage returns", () => {
    const text = [
      "# made by hand",
      '"apiVersion": v1',
      "kind: 'Config'   # yes",
      "preferences: {}",
      "clusters:",
      "  - name: c",
      '    cluster: { server: "https://a:1", insecure-skip-tls-verify: true }',
      "contexts:",
      "  - name: x",
      "    context: { cluster: c, user: u }",
      'current-context: "x"',
      "users:",
      "  - name: u",
      "    user: { token: t, client-certificate: /a b }",
      "",
    ].join("\r\n")
    assert.deepStrictEqual(Kubeconfig.examine(text), { problem: undefined, whole: true, files: ["/a"] })
  })
  it("without a newline at its end may not be whole", () => {
    assert.deepInclude(Kubeconfig.examine(whole.trimEnd()), { problem: undefined, whole: false })
  })
  const rows: ReadonlyArray<readonly [what: string, text: string, line: number | null, reason: string]> = [
    ["empty", "", null, "is empty"],
    ["blank", " \n\n", null, "is empty"],
    ["something else", "hello\n", null, "has no clusters, contexts, current-context, users"],
    ["another kind", whole.replace("kind: Config", "kind: Pod"), 13, "is of kind Pod, not Config"],
    [
      "no context chosen",
      whole.replace("current-context: x", 'current-context: ""'),
      null,
      "has no current-context",
    ],
    ["no users", whole.slice(0, whole.indexOf("users:")), null, "has no users"],
    ["an empty list", whole.replace(/users:[\s\S]*/u, "users: []\n"), null, "has no users"],
    ["a key with nothing below it", whole.replace(/users:[\s\S]*/u, "users:\n"), null, "has no users"],
    ["no server", whole.replace(/ +server:.*\n/u, ""), null, "names no server"],
    [
      "base64 that was cut",
      whole.replace("QUJDRA==", "QUJDRA"),
      4,
      "certificate-authority-data ends in the middle of its base64",
    ],
    ["JSON that was cut", JSON.stringify(json).slice(0, -1), null, "begins as JSON and is none: "],
    ["JSON of another kind", JSON.stringify({ ...json, kind: "Pod" }), null, "is of kind Pod, not Config"],
    ["JSON that lacks a key", JSON.stringify({ ...json, users: [] }), null, "has no users"],
  ]
  for (const [what, text, line, reason] of rows)
    it(`${what}: ${reason}`, () => {
      assert.strictEqual(problem(text)?.line, line)
      assert.include(problem(text)?.reason, reason)
    })
  it("is not taken when it is cut anywhere before its last value, or does not look whole", () => {
    for (let end = 0; end < whole.length - 1; end++) {
      const cut = Kubeconfig.examine(whole.slice(0, end))
      assert.isTrue(
        cut.problem !== undefined || !cut.whole || end > whole.indexOf("  user:"),
        `cut at ${end}`,
      )
    }
    const text = JSON.stringify(json, null, 2)
    for (let end = 0; end < text.length; end++) assert.isDefined(problem(text.slice(0, end)), `cut at ${end}`)
  })
  it.prop("never throws", [Schema.String], ([text]) => {
    Kubeconfig.examine(text)
    Kubeconfig.examine(`{${text}`)
  })
})
