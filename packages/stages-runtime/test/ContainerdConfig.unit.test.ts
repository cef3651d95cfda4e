import { assert, describe, it } from "@effect/vitest"
import * as ContainerdConfig from "@kios/stages-runtime/ContainerdConfig"

/** As much of TOML as the configuration uses: tables, strings, numbers, booleans and arrays of strings. */
const parse = (text: string): Record<string, Record<string, unknown>> => {
  const tables: Record<string, Record<string, unknown>> = { "": {} }
  let table = ""
  for (const line of text
    .replaceAll(
      /\[\n([^\]]*)\n\]/gu,
      (_, body: string) => `[${body.trim().replace(/,$/u, "").replaceAll("\n", "")}]`,
    )
    .split("\n")) {
    const head = /^\s*\[(.+)\]$/u.exec(line)?.[1]
    const pair = /^\s*(\w+) = (.+)$/u.exec(line)
    if (pair?.[1] !== undefined) (tables[table] ??= {})[pair[1]] = JSON.parse(pair[2] ?? "")
    else if (head !== undefined) {
      table = head.replaceAll('"', "'")
      assert.notProperty(tables, table, "a table that is defined twice is no TOML")
      tables[table] = {}
    } else assert.strictEqual(line.trim(), "", `no TOML: ${line}`)
  }
  return tables
}

describe("containerd's configuration", () => {
  const config = parse(ContainerdConfig.render(ContainerdConfig.reference))
  it("is what was asked for", () => {
    assert.deepInclude(config[""], {
      version: 4,
      root: "/var/lib/containerd",
      state: "/run/containerd",
      oom_score: -999,
    })
    assert.deepStrictEqual(config["plugins.'io.containerd.server.v1.grpc'"], {
      address: "/run/containerd/containerd.sock",
    })
    assert.deepStrictEqual(config["plugins.'io.containerd.cri.v1.images'.pinned_images"], {
      sandbox: ContainerdConfig.reference.sandboxImage,
    })
    assert.deepStrictEqual(config["plugins.'io.containerd.cri.v1.runtime'.cni"], {
      bin_dirs: ["/opt/cni/bin"],
      conf_dir: "/etc/cni/net.d",
    })
    assert.deepInclude(config["plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options"], {
      BinaryName: "/bin/runc",
      SystemdCgroup: false,
    })
  })
  it("lets nobody have the runtime run programs: no NRI, no CDI, no verifiers but the image's", () => {
    assert.deepStrictEqual(config["plugins.'io.containerd.image-verifier.v1.bindir'"], {
      bin_dir: "/lib/kios/image-verifiers",
    })
    assert.include(config[""]?.["disabled_plugins"] as ReadonlyArray<string>, "io.containerd.nri.v1.nri")
    assert.deepStrictEqual(config["plugins.'io.containerd.cri.v1.runtime'"], {
      cdi_spec_dirs: [],
      // Without it idle pods cost the node more than all else that it does: docs/performance.md.
      stats_collect_period: "10s",
    })
  })
  it("a value with quotes, backslashes or newlines stays one value", () => {
    const evil = '/a"b\\c\n[plugins]\nx = "y'
    const hostile = parse(
      ContainerdConfig.render({ ...ContainerdConfig.reference, root: evil, cniBinDir: evil }),
    )
    assert.strictEqual(hostile[""]?.["root"], evil)
    assert.deepStrictEqual(Object.keys(hostile), Object.keys(config))
  })
})
