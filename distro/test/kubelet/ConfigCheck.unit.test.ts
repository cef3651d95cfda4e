import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { check } from "../../src/kubelet/ConfigCheck.ts"
import { pinnedKubelet, readSchema } from "../../src/kubelet/ConfigSchema.ts"
import { nearest, placesOf } from "../../src/kubelet/SchemaWords.ts"

const schema = readSchema()
const header = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
const told = (text: string) =>
  check(text, schema).map(
    ({ column, line, message, path, severity }) =>
      `${line}:${column} ${severity} ${path === "" ? "" : `${path} `}${message}`,
  )

describe("the schema", () => {
  it("was made from the kubelet that is pinned (scripts/kubelet-schema.ts makes it)", () => {
    assert.match(schema.$comment ?? "", new RegExp(`${pinnedKubelet().replaceAll(".", "\\.")}$`, "u"))
  })
  it("has what the types have", () => {
    const keys = Object.keys(schema.properties ?? {})
    assert.isAbove(keys.length, 100)
    for (const key of ["shutdownGracePeriod", "registerWithTaints", "crashLoopBackOff", "podLogsDir"])
      assert.include(keys, key)
    assert.deepStrictEqual(schema.properties?.["authorization"]?.properties?.["mode"]?.enum, [
      "AlwaysAllow",
      "Webhook",
    ])
  })
})

describe("a kubelet's configuration", () => {
  it("that is right has nothing told of it", () => {
    const text = `${header}
# as kubeadm would
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
maxPods: 50
shutdownGracePeriod: 1m30s
evictionHard: &thresholds
  memory.available: 100Mi
evictionSoft: *thresholds
registerWithTaints:
  - { key: example.com/gpu, value: "yes", effect: NoSchedule }
featureGates: { NodeSwap: true }
systemReserved: { memory: 1Gi, pid: "1000" }
logging: { flushFrequency: 5s, verbosity: 2, vmodule: [{ filePattern: kubelet, verbosity: 4 }] }
tlsMinVersion: null
`
    assert.deepStrictEqual(told(text), [])
  })
  const rows: ReadonlyArray<readonly [what: string, yaml: string, ...findings: ReadonlyArray<string>]> = [
    ["a typing error", "maxPod: 3", "3:1 error maxPod is no key of it; did you mean maxPods?"],
    ["a flag's name", "max-pods: 3", "3:1 error max-pods is no key of it; did you mean maxPods?"],
    [
      "a key in another place",
      "clientCAFile: /x",
      "3:1 error clientCAFile is no key of it; it belongs to authentication.x509",
    ],
    [
      "a key too deep",
      "authentication:\n  maxPods: 3",
      "4:3 error authentication.maxPods is no key of it; it belongs to the top of the file",
    ],
    ["a key of nobody's", "colour: blue", "3:1 error colour is no key of it"],
    ["a number in quotes", 'maxPods: "42"', '3:10 error maxPods must be an integer, and is the string "42"'],
    ["no whole number", "maxPods: 4.2", "3:10 error maxPods must be an integer, and is 4.2"],
    [
      "a number where a string is",
      "systemReserved: { pid: 1000 }",
      '3:24 error systemReserved.pid must be a string, and is 1000: write "1000"',
    ],
    [
      "a word of YAML 1.1 that is a boolean",
      "clusterDomain: on",
      '3:16 error clusterDomain must be a string, and is true: write "true"',
    ],
    [
      "a duration without a unit",
      "syncFrequency: 60",
      "3:16 error syncFrequency must be a duration such as 30s or 1h30m, and is 60",
    ],
    [
      "a duration in words",
      "syncFrequency: 2 minutes",
      '3:16 error syncFrequency must be a duration such as 30s or 1h30m, and is the string "2 minutes"',
    ],
    [
      "a value that there is not",
      "authorization: { mode: RBAC }",
      '3:24 error authorization.mode must be one of "AlwaysAllow", "Webhook", and is the string "RBAC"',
    ],
    ["a list for a map", "evictionHard: [a]", "3:15 error evictionHard must be a map, and is a list"],
    ["a map for a list", "clusterDNS: { a: b }", "3:13 error clusterDNS must be a list, and is a map"],
    [
      "an item that is wrong",
      "clusterDNS:\n- a\n- 5",
      '5:3 error clusterDNS[1] must be a string, and is 5: write "5"',
    ],
    ["a tab", "logging:\n\tverbosity: 1", "4:1 error is no YAML: Tabs are not allowed as indentation"],
    ["a key twice", "maxPods: 1\nmaxPods: 2", "4:1 error is no YAML: Map keys must be unique"],
    ["an alias of nothing", "evictionHard: *none", "3:15 error "],
    [
      "a map in itself",
      "featureGates: &a\n  b: *a",
      "4:6 error featureGates.b must be a boolean, and is a map",
    ],
    [
      "what kiOS sets itself",
      "healthzPort: 1",
      "3:1 warning healthzPort has no effect: kiOS sets it itself, to 10248",
    ],
    [
      "what kiOS leaves out",
      "systemCgroups: /x",
      "3:1 warning systemCgroups has no effect: kiOS leaves it out",
    ],
    ["what kiOS sets to the same", "healthzPort: 10248"],
    [
      "what holds in a cluster",
      "address: 10.0.0.7",
      '3:1 note address holds in a cluster; without one kiOS sets it to "127.0.0.1"',
    ],
  ]
  for (const [what, yaml, ...findings] of rows)
    it(`${what}: ${yaml.split("\n").at(-1)?.trim()}`, () => {
      const found = told(`${header}${yaml}\n`)
      assert.strictEqual(found.length, findings.length, found.join("\n"))
      for (const [index, finding] of findings.entries())
        assert.isTrue(found[index]?.startsWith(finding), `${found[index]}\nexpected ${finding}`)
    })
  it("without what makes it one is told so", () => {
    assert.deepStrictEqual(told("maxPods: 1\n"), [
      "1:1 error apiVersion is missing: apiVersion: kubelet.config.k8s.io/v1beta1",
      "1:1 error kind is missing: kind: KubeletConfiguration",
    ])
    assert.deepStrictEqual(told("apiVersion: v1\nkind: Pod\n"), [
      '1:13 error apiVersion must be kubelet.config.k8s.io/v1beta1, and is the string "v1"',
      '2:7 error kind must be KubeletConfiguration, and is the string "Pod"',
    ])
  })
  it("that is empty is refused, as the kubelet does", () => {
    for (const text of ["", "# nothing\n"])
      assert.deepStrictEqual(told(text), ["1:1 error is empty, which the kubelet refuses"])
    assert.include(told("- a\n")[0], "must be a map, and is a list")
    assert.include(told("text\n")[0], 'must be a map, and is the string "text"')
  })
  it.prop("never throws", [Schema.String], ([text]) => {
    check(text, schema)
    check(`${header}maxPods: ${text}`, schema)
    check(`${header}evictionHard: &a { ${text}: *a }`, schema)
  })
  it("never throws at what looks like an alias", () => {
    for (const text of ["*\0", "*a", "&a *a", "a: *a", "&a [*a]", "&a { a: *a }", "? *a\n: *a"]) {
      check(text, schema)
      check(`${header}authentication: ${text}`, schema)
    }
  })
})

describe("what was meant", () => {
  it("is near, whatever its case and dashes", () => {
    const names = ["maxPods", "podsPerCore", "maxOpenFiles"]
    assert.strictEqual(nearest("MaxPods", names), "maxPods")
    assert.strictEqual(nearest("pods-per-core", names), "podsPerCore")
    assert.strictEqual(nearest("maxOpnFils", names), "maxOpenFiles")
    assert.isUndefined(nearest("colour", names))
  })
  it("may be in several places", () => {
    assert.deepStrictEqual(placesOf("cacheTTL", schema), ["authentication.webhook"])
    assert.deepStrictEqual(placesOf("maxPods", schema), ["the top of the file"])
  })
})
