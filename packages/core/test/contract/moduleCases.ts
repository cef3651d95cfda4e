// Modules and what they bring, of the kernel that we ship.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import { group, type K, mountsAt, refused, until } from "./Case.ts"

const { cases, checkMachine } = group()
export { cases }

/** A module's file, and those of what it needs in the order to load them. */
export const fileOf = Effect.fnUntraced(function* (k: K, name: string) {
  const release = (yield* k.readText("/proc/sys/kernel/osrelease")).trim()
  const directory = `/lib/modules/${release}`
  const line = (yield* k.readText(`${directory}/modules.dep`))
    .split("\n")
    .find((one) => one.split(":")[0]?.endsWith(`/${name}.ko`))
  const [path = "", needs = ""] = line?.split(":") ?? []
  assert.notEqual(path, "", `${name} is not in modules.dep`)
  return {
    path: `${directory}/${path}`,
    needs: needs
      .split(" ")
      .filter((need) => need !== "")
      .map((need) => `${directory}/${need}`)
      .toReversed(),
  }
})

/** Loads a module after what it needs, all of which may be in already. */
export const loadWithNeeds = Effect.fnUntraced(function* (k: K, name: string) {
  const { needs, path } = yield* fileOf(k, name)
  for (const file of [...needs, path])
    yield* Effect.catchIf(
      k.loadModule(file),
      (error) => error.errno === "EEXIST",
      () => Effect.void,
    )
})

const isLoaded = (k: K, name: string) =>
  Effect.map(k.readText("/proc/modules"), (text) =>
    text.split("\n").some((line) => line.startsWith(`${name} `)),
  )
const isKnown = (k: K, fstype: string) =>
  Effect.map(k.readText("/proc/filesystems"), (text) =>
    text.split("\n").some((line) => line.split("\t")[1] === fstype),
  )

checkMachine("a filesystem's type is unknown until its module is in", function* (k, dir) {
  for (const name of ["lower", "upper", "work", "merged"]) yield* k.makeDirectory(`${dir}/${name}`)
  yield* k.writeFile(`${dir}/lower/below`, "below")
  yield* k.makeDirectory(`${dir}/lower/kubernetes`)
  const target = `${dir}/merged`
  const options = `lowerdir=${dir}/lower,upperdir=${dir}/upper,workdir=${dir}/work`
  const overlay = k.mount({ source: "overlay", target, fstype: "overlay", flags: [], options })
  assert.equal(yield* isKnown(k, "overlay"), false)
  yield* refused(overlay, "mount ENODEV")
  yield* k.loadModule((yield* fileOf(k, "overlay")).path)
  assert.equal(yield* isLoaded(k, "overlay"), true)
  assert.equal(yield* isKnown(k, "overlay"), true)
  assert.equal((yield* k.stat("/sys/module/overlay"))?.kind, "directory")
  yield* overlay
  assert.equal((yield* mountsAt(k, target))[0]?.fstype, "overlay")
  yield* k.writeFile(`${target}/above`, "above")
  yield* k.unlink(`${target}/below`)
  assert.deepEqual(yield* k.readDirectory(target), ["above", "kubernetes"])
  assert.equal(yield* k.readText(`${dir}/upper/above`), "above")
  assert.equal(yield* k.readText(`${dir}/lower/below`), "below")
  assert.equal((yield* k.stat(`${dir}/upper/below`))?.kind, "character")
  // A directory that only the lower layer has, until the first file is written to it.
  const told: Array<string> = []
  yield* k.watchDirectory(`${target}/kubernetes`, (name) => void told.push(name))
  yield* k.writeFile(`${target}/kubernetes/first`, "x")
  yield* until(Effect.sync(() => told.includes("first")))
  yield* k.writeFile(`${target}/kubernetes/.second`, "x")
  yield* k.rename(`${target}/kubernetes/.second`, `${target}/kubernetes/second`)
  yield* until(Effect.sync(() => told.includes("second")))
  assert.equal(yield* k.readText(`${dir}/upper/kubernetes/second`), "x")
})
checkMachine("a module that is in is refused, and stays", function* (k, dir) {
  const { needs, path } = yield* fileOf(k, "erofs")
  const mount = k.mount({ source: "/dev/null", target: dir, fstype: "erofs", flags: [] })
  yield* refused(mount, "mount ENODEV")
  for (const file of needs) yield* k.loadModule(file)
  // A parameter that it does not know is told in the kernel's log and no error.
  yield* k.loadModule(path, "nosuch=1")
  yield* refused(mount, "mount ENOTBLK")
  for (const file of [...needs, path]) yield* refused(k.loadModule(file), "finit_module EEXIST")
  assert.equal(yield* isLoaded(k, "erofs"), true)
})
checkMachine("a module is refused before what it needs is in", function* (k) {
  const setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
  const { needs, path } = yield* fileOf(k, "br_netfilter")
  yield* refused(k.loadModule(path), "finit_module ENOENT")
  assert.equal(yield* isLoaded(k, "br_netfilter"), false)
  assert.equal(yield* k.stat(setting), undefined)
  for (const file of [...needs, path]) yield* k.loadModule(file)
  assert.equal(yield* isLoaded(k, "br_netfilter"), true)
  assert.equal(yield* k.readText(setting), "1\n")
})
checkMachine("a compressed module is loaded as if it were not", function* (k, dir) {
  const zlib = process.getBuiltinModule("node:zlib")
  const { needs, path } = yield* fileOf(k, "vxlan")
  const zst = yield* Effect.forEach([...needs, path], (file) =>
    Effect.gen(function* () {
      const to = `${dir}/${file.split("/").at(-1)}.zst`
      yield* k.writeFile(to, zlib.zstdCompressSync(yield* k.readFile(file)))
      return to
    }),
  )
  const last = zst.at(-1) ?? ""
  if (needs.length > 0) yield* refused(k.loadModule(last), "init_module ENOENT")
  for (const file of zst) yield* k.loadModule(file)
  assert.equal(yield* isLoaded(k, "vxlan"), true)
  yield* refused(k.loadModule(last), "init_module EEXIST")
  const gz = `${dir}/vxlan.ko.gz`
  yield* k.writeFile(gz, zlib.gzipSync(yield* k.readFile(path)))
  yield* refused(k.loadModule(gz), "init_module EEXIST")
  const bytes = yield* k.readFile(last)
  yield* k.writeFile(`${dir}/half.ko.zst`, bytes.subarray(0, bytes.length >> 1))
  yield* refused(k.loadModule(`${dir}/half.ko.zst`), "init_module ENOEXEC")
  yield* k.writeFile(`${dir}/plain.ko.zst`, yield* k.readFile(path))
  yield* refused(k.loadModule(`${dir}/plain.ko.zst`), "init_module ENOEXEC")
  yield* k.writeFile(`${dir}/text.ko.zst`, zlib.zstdCompressSync(Buffer.from("no module ".repeat(100))))
  yield* refused(k.loadModule(`${dir}/text.ko.zst`), "init_module ENOEXEC")
  yield* refused(k.loadModule(`${dir}/missing.ko.zst`), "open ENOENT")
  yield* k.symlink(last, `${dir}/link.ko.zst`)
  yield* refused(k.loadModule(`${dir}/link.ko.zst`), "open ELOOP")
})
checkMachine("loading refuses: a damaged module, an empty file, a directory", function* (k, dir) {
  const bytes = yield* k.readFile((yield* fileOf(k, "overlay")).path)
  yield* k.writeFile(`${dir}/half.ko`, bytes.subarray(0, bytes.length >> 1))
  yield* refused(k.loadModule(`${dir}/half.ko`), "finit_module ENOEXEC")
  yield* k.writeFile(`${dir}/text.ko`, "no module ".repeat(100))
  yield* refused(k.loadModule(`${dir}/text.ko`), "finit_module ENOEXEC")
  yield* k.writeFile(`${dir}/empty.ko`, "")
  yield* refused(k.loadModule(`${dir}/empty.ko`), "finit_module EINVAL")
  yield* refused(k.loadModule(dir), "finit_module EINVAL")
  yield* refused(k.loadModule(`${dir}/missing.ko`), "open ENOENT")
})
