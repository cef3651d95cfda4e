import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as TestMachine from "@kios/core/testing/TestMachine"
import type { Problem } from "@kios/stages-kubelet/Kubeconfig"
import * as NodeAddress from "@kios/stages-kubelet/NodeAddress"
import * as NodeIdentity from "@kios/stages-kubelet/NodeIdentity"
import * as NodeLabels from "@kios/stages-kubelet/NodeLabels"
import * as NodeTaints from "@kios/stages-kubelet/NodeTaints"

describe("node-labels", () => {
  it("are a key=value in each line, with comments and blank lines between them", () => {
    const text = [
      "# where it is",
      "topology.kubernetes.io/zone=eu-1a",
      "",
      "  example.com/rack = 7  ",
      "plain=",
      "node.kubernetes.io/instance-type=m5.large",
      "team.node.kubernetes.io/a=b",
      "kubelet.kubernetes.io/x=y",
      `${"k".repeat(63)}=${"v".repeat(63)}`,
      "CASE_and.dots-9=Va_l.ue-0\r",
    ].join("\n")
    assert.deepStrictEqual(NodeLabels.parse(text), {
      labels: {
        "topology.kubernetes.io/zone": "eu-1a",
        "example.com/rack": "7",
        plain: "",
        "node.kubernetes.io/instance-type": "m5.large",
        "team.node.kubernetes.io/a": "b",
        "kubelet.kubernetes.io/x": "y",
        ["k".repeat(63)]: "v".repeat(63),
        "CASE_and.dots-9": "Va_l.ue-0",
      },
      problems: [],
    })
  })

  const may = (key: string) =>
    `a kubelet may not set ${key} itself (NodeRestriction); set it by the API: kubectl label node`
  const characters = "must be of letters, digits, - _ and ., and begin and end with a letter or digit"
  const wrong: ReadonlyArray<readonly [what: string, entry: string, reason: string]> = [
    ["a role", "node-role.kubernetes.io/worker=", may("node-role.kubernetes.io/worker")],
    ["of Kubernetes' own", "kubernetes.io/role=node", may("kubernetes.io/role")],
    ["of a restricted prefix", "node-restriction.kubernetes.io/x=y", may("node-restriction.kubernetes.io/x")],
    ["of k8s.io", "autoscaler.k8s.io/pool=a", may("autoscaler.k8s.io/pool")],
    ["no label", "zone eu-1a", '"zone eu-1a" is no key=value'],
    ["no key", "=eu-1a", "there is no key before the ="],
    ["a bad character in the key", "ra ck=7", `the name "ra ck" ${characters}`],
    ["a bad character in the value", "rack=7/8", `the value "7/8" ${characters}`],
    ["a value that ends badly", "rack=7-", `the value "7-" ${characters}`],
    [
      "a key that is too long",
      `${"k".repeat(64)}=v`,
      `the name "${"k".repeat(64)}" has 64 characters, and may have 63`,
    ],
    [
      "a value that is too long",
      `rack=${"v".repeat(64)}`,
      `the value "${"v".repeat(64)}" has 64 characters, and may have 63`,
    ],
    [
      "a prefix that is too long",
      `${"p".repeat(254)}/x=y`,
      `the prefix of "${"p".repeat(254)}/x" has 254 characters, and may have 253`,
    ],
    [
      "a prefix in capitals",
      "Example.com/x=y",
      'the prefix "Example.com" must be a DNS name in small letters',
    ],
    ["two slashes", "a/b/c=d", `the name "b/c" ${characters}`],
    ["no name after the prefix", "example.com/=d", `the name "" ${characters}`],
    ["the same key again", "before=2", "before was given in line 1 already"],
  ]
  for (const [what, entry, reason] of wrong)
    it(`${what}: ${entry.slice(0, 40)}`, () => {
      assert.deepStrictEqual(NodeLabels.parse(`before=1\n# a comment\n${entry}\nafter=1\n`), {
        labels: { before: "1", after: "1" },
        problems: [{ line: 3, reason }],
      })
    })
  it("every wrong line is told", () => {
    const text = wrong.map(([, entry]) => entry).join("\n")
    assert.deepStrictEqual(
      NodeLabels.parse(`before=1\n${text}`).problems.map(({ line }) => line),
      wrong.map((_, index) => index + 2),
    )
  })
  it.prop("never throw, and give the kubelet nothing that it refuses", [Schema.String], ([text]) => {
    for (const [key, value] of Object.entries(NodeLabels.parse(text).labels))
      assert.match(`${key}=${value}`, /^[\w./-]+=[\w.-]*$/u)
  })
})

describe("node-taints", () => {
  it("are as kubectl writes them", () => {
    assert.deepStrictEqual(
      NodeTaints.parse(
        "# for GPUs\nexample.com/gpu=yes:NoSchedule\nboot:NoExecute\nboot:PreferNoSchedule\nempty=:NoSchedule\n",
      ),
      {
        taints: [
          { key: "example.com/gpu", value: "yes", effect: "NoSchedule" },
          { key: "boot", effect: "NoExecute" },
          { key: "boot", effect: "PreferNoSchedule" },
          { key: "empty", value: "", effect: "NoSchedule" },
        ],
        problems: [],
      },
    )
  })
  for (const [entry, reason] of [
    ["gpu=yes", '"gpu=yes" is no key=value:Effect'],
    ["gpu", '"gpu" is no key=value:Effect'],
    ["gpu=yes:", '"gpu=yes:" is no key=value:Effect'],
    ["gpu=yes:Never", '"Never" is no effect: NoSchedule, PreferNoSchedule, NoExecute'],
    ["gpu=yes:noSchedule", '"noSchedule" is no effect: NoSchedule, PreferNoSchedule, NoExecute'],
    ["g pu:NoSchedule", 'the name "g pu" must be of letters'],
    ["gpu=y y:NoSchedule", 'the value "y y" must be of letters'],
    ["one=other:NoSchedule", "one was given with NoSchedule already"],
  ] as const)
    it(`refuse ${entry}`, () => {
      const { problems, taints } = NodeTaints.parse(`one=1:NoSchedule\n\n${entry}\n`)
      assert.deepStrictEqual(taints, [{ key: "one", value: "1", effect: "NoSchedule" }])
      assert.strictEqual(problems[0]?.line, 3)
      assert.include(problems[0]?.reason, reason)
    })
})

describe("node-ip", () => {
  for (const [text, value] of [
    ["10.0.0.7\n", "10.0.0.7"],
    ["# the second card\n\nfd00::7\n", "fd00::7"],
    ["10.0.0.7, fd00::7", "10.0.0.7,fd00::7"],
    ["fd00::7,10.0.0.7", "fd00::7,10.0.0.7"],
    ["::", "::"],
    ["", undefined],
    ["# nothing\n", undefined],
  ] as const)
    it(`${JSON.stringify(text)} is ${value ?? "no choice"}`, () => {
      assert.deepStrictEqual(NodeAddress.parseIp(text), { value, problem: undefined })
    })
  for (const [text, line, reason] of [
    ["10.0.0\n", 1, '"10.0.0" is no IP address'],
    ["\nnode-7\n", 2, '"node-7" is no IP address'],
    ["10.0.0.7/24", 1, '"10.0.0.7/24" is no IP address'],
    ["10.0.0.7,10.0.0.8", 1, "two addresses must be one of IPv4 and one of IPv6"],
    ["10.0.0.7,fd00::7,fd00::8", 1, "two addresses must be one of IPv4 and one of IPv6"],
    ["10.0.0.7,", 1, '"" is no IP address'],
    ["10.0.0.7\nfd00::7\n", 2, "there is an address in line 1 already"],
  ] as const)
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.deepStrictEqual(NodeAddress.parseIp(text), { value: undefined, problem: { line, reason } })
    })
})

describe("provider-id", () => {
  it("is one line with a scheme", () => {
    const value = "aws:///eu-west-1a/i-0abc"
    assert.deepStrictEqual(NodeAddress.parseProviderId(`${value}\n`), { value, problem: undefined })
    assert.strictEqual(NodeAddress.parseProviderId("i-0abc").problem?.line, 1)
    assert.include(NodeAddress.parseProviderId("a b://c").problem?.reason, "is no identifier such as")
    assert.strictEqual(
      NodeAddress.parseProviderId("a://b\na://c").problem?.reason,
      "there is an identifier in line 1 already",
    )
  })
})

describe("a node's identity", () => {
  const read = (files: TestMachine.TestMachineOptions["files"], fail?: string) =>
    Effect.gen(function* () {
      const machine = TestMachine.make({ files: { "/etc/kubernetes/": "", ...files } })
      if (fail !== undefined) machine.failOn("readText", fail)
      const told: Array<string> = []
      const tell = (file: string, problems: ReadonlyArray<Problem>) =>
        Effect.sync(() => {
          for (const { line, reason } of problems) told.push(`${file}:${line ?? ""} ${reason}`)
        })
      return { ...(yield* NodeIdentity.read(machine.kernel, tell)), told }
    })
  it.effect("is nothing without files", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* read({}), { flags: [], config: {}, told: [] })
    }),
  )
  it.effect("is what the files say", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* read({
          "/etc/kubernetes/node-labels": "a=b\nc=d\n",
          "/etc/kubernetes/node-taints": "x:NoExecute\n",
          "/etc/kubernetes/node-ip": "10.0.0.7\n",
          "/etc/kubernetes/provider-id": "x://y\n",
          "/etc/kubernetes/credential-providers.yaml": "x",
          "/var/lib/kubelet/credential-providers/ecr": "x",
        }),
        {
          flags: [
            "--node-labels=a=b,c=d",
            "--node-ip=10.0.0.7",
            "--image-credential-provider-config=/etc/kubernetes/credential-providers.yaml",
            "--image-credential-provider-bin-dir=/var/lib/kubelet/credential-providers",
          ],
          config: { providerID: "x://y", registerWithTaints: [{ key: "x", effect: "NoExecute" }] },
          told: [],
        },
      )
    }),
  )
  it.effect("is what is right of them, and the rest is told by file and line", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* read({
          "/etc/kubernetes/node-labels": "a=b\nkubernetes.io/x=y\n",
          "/etc/kubernetes/node-taints": "x\n",
          "/etc/kubernetes/node-ip": "here\n",
          "/etc/kubernetes/provider-id": "\n\nthis\n",
          "/etc/kubernetes/credential-providers.yaml": "x",
          "/var/lib/kubelet/credential-providers/": "",
        }),
        {
          flags: ["--node-labels=a=b"],
          config: {},
          told: [
            "/etc/kubernetes/node-labels:2 a kubelet may not set kubernetes.io/x itself (NodeRestriction); set it by the API: kubectl label node",
            '/etc/kubernetes/node-taints:1 "x" is no key=value:Effect',
            '/etc/kubernetes/node-ip:1 "here" is no IP address',
            '/etc/kubernetes/provider-id:3 "this" is no identifier such as aws:///eu-west-1a/i-0abc',
            "/etc/kubernetes/credential-providers.yaml: is not used: there are no programs in /var/lib/kubelet/credential-providers",
          ],
        },
      )
    }),
  )
  it.effect("is not read from what is no small file: a FIFO would stop init", () =>
    Effect.gen(function* () {
      const { told, ...identity } = yield* read({
        "/etc/kubernetes/node-labels": { node: "fifo" },
        "/etc/kubernetes/node-taints/": "",
        "/etc/kubernetes/node-ip": `10.0.0.7\n${"#".repeat(300_000)}`,
        "/etc/kubernetes/provider-id": { symlink: "nowhere" },
      })
      assert.deepStrictEqual(identity, { flags: [], config: {} })
      assert.deepStrictEqual(told, [
        "/etc/kubernetes/node-labels: is a fifo and no file",
        "/etc/kubernetes/node-taints: is a directory and no file",
        "/etc/kubernetes/node-ip: has 300009 bytes, and may have 262144",
      ])
    }),
  )
  it.effect("is nothing when the files cannot be read, which is told", () =>
    Effect.gen(function* () {
      const { told, ...identity } = yield* read({ "/etc/kubernetes/node-ip": "10.0.0.7\n" }, "EIO")
      assert.deepStrictEqual(identity, { flags: [], config: {} })
      assert.strictEqual(told.length, 1)
      for (const line of told) assert.match(line, /: read\(.*\): EIO/u)
    }),
  )
})
