/**
 * The floor does what kiOS's stages do: the tables of floor.c are read out of
 * the C and compared with the stages' own, so that neither changes alone.
 */
import { order, parse } from "@kios/stages-runtime/ModulesDep"
import * as Cgroups from "@kios/stages-mount/Cgroups"
import * as EphemeralFilesystems from "@kios/stages-mount/EphemeralFilesystems"
import * as PseudoFilesystems from "@kios/stages-mount/PseudoFilesystems"
import * as RootSwitch from "@kios/stages-mount/RootSwitch"
import * as Sysctl from "@kios/stages-runtime/Sysctl"
import { recipe } from "@kios/distro/recipe"
import { assert, it } from "@effect/vitest"
import * as fs from "node:fs"
import { shared } from "../native/pipeline.ts"
import { configuration, kept, moduleOrder } from "../FloorImage.ts"

const text = fs.readFileSync(new URL("../floor.c", import.meta.url), "utf8")
const defined = (name: string) => new RegExp(`#define ${name} "(.*)"`, "u").exec(text)?.[1] ?? ""
const source = text.replaceAll('{"cgroup2", CGROUP,', `{"cgroup2", "${defined("CGROUP")}",`)

/** The strings of each row of the table that begins after `start`. */
const rows = (start: string): ReadonlyArray<ReadonlyArray<string>> => {
  const from = source.indexOf(start)
  assert.isAtLeast(from, 0, `floor.c has no ${JSON.stringify(start)} any more`)
  const body = source.slice(from + start.length, source.indexOf("};", from))
  return [...body.matchAll(/\{(.*?)\}/gsu)].map(([, row = ""]) =>
    [...row.matchAll(/"([^"]*)"|\b(TIGHT|MS_\w+)/gu)].map(([, text, flag]) => text ?? flag ?? ""),
  )
}

const strings = (declaration: string): ReadonlyArray<string> =>
  [...(source.split(declaration)[1]?.split(";")[0] ?? "").matchAll(/"([^"]*)"/gu)].map(
    ([, text = ""]) => text,
  )

it("sets the sysctls that kiOS sets", () => {
  const table = { ...Sysctl.node, ...Sysctl.hardening }
  assert.deepStrictEqual(
    rows("static void set_sysctls(void) {\n    static const char *const table[][2] = {"),
    Object.entries(table).map(([key, value]) => [Sysctl.pathOf(key).slice("/proc/sys/".length), value]),
  )
})

it("mounts what kiOS mounts, with the same flags and options", () => {
  const tight = ["MS_NOSUID", "MS_NODEV", "MS_NOEXEC"]
  const options = (text: string | undefined) => (text ?? "").split(",").sort()
  const own = rows("} table[] = {").map(([fstype, target = "", option, ...flags]) => ({
    target,
    fstype,
    flags: flags.flatMap((flag) => (flag === "TIGHT" ? tight : [flag])),
    options: options(option),
  }))
  const theirs = [...PseudoFilesystems.mounts, ...EphemeralFilesystems.mounts, ...Cgroups.mounts].map(
    (row) => ({
      target: row.target,
      fstype: row.fstype,
      flags: [...row.flags],
      options: options(row.options),
    }),
  )
  assert.deepStrictEqual(own, theirs)
})

it("switches to the same root", () => {
  const absolute = (names: ReadonlyArray<string>) => names.map((name) => `/${name}`)
  assert.deepStrictEqual(absolute(strings("*const shared[] =")), Object.keys(RootSwitch.reference.keep))
  assert.deepStrictEqual(absolute(strings("*const empty[] =")), RootSwitch.reference.directories)
})

it("lists modules in the order in which kiOS loads them", () => {
  const dep = "a.ko:\nb.ko: a.ko\nc.ko:\nd.ko: c.ko b.ko a.ko\n"
  assert.strictEqual(moduleOrder(dep, ["b"], ["d"], "6.12"), "6.12/a.ko\n6.12/b.ko\n\n6.12/c.ko\n6.12/d.ko\n")
  assert.deepStrictEqual(
    order(parse(dep), ["b", "d"]).load.map((entry) => entry.name),
    ["a", "b", "c", "d"],
  )
})

it("has everything of the recipe but what is Node's", () => {
  const files = kept(recipe).map((file) => file.path)
  const left = recipe.files.map((file) => file.path).filter((file) => !files.includes(file))
  assert.include(left, "/init")
  assert.deepStrictEqual(
    left.filter((file) => !/^\/init$|koffi|^\/lib\/lib(m|dl|pthread|stdc\+\+|gcc_s)\.so/u.test(file)),
    [],
  )
  for (const needed of ["/bin/kubelet", "/bin/containerd", "/bin/runc", "/bin/mount", "/lib/libc.so.6"])
    assert.include(files, needed)
})

it("has its configuration where floor.c and the kubelet look for it", () => {
  const files = configuration()
  const kubelet = JSON.parse(files["/lib/kios/floor/kubelet.yaml"] ?? "null") as Record<string, string>
  assert.include(files[kubelet["tlsCertFile"] ?? ""], "BEGIN CERTIFICATE")
  assert.include(files[kubelet["tlsPrivateKeyFile"] ?? ""], "BEGIN PRIVATE KEY")
  assert.isDefined(files[`${defined("CONFIG")}/containerd.toml`])
  assert.strictEqual(kubelet["containerRuntimeEndpoint"], `unix://${defined("SOCKET")}`)
})

it("in namespaces it leaves out what the native pipeline leaves out", () => {
  assert.deepStrictEqual(strings("static const char *const types[] = "), shared)
})
