import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Sbom from "../../src/image/Sbom.ts"
import { failure } from "./support.ts"

const sha = "ab".repeat(32)
const subject = { name: "kios", version: "0.1.0" }
const runc: Sbom.Component = {
  name: "runc",
  version: "1.3.0",
  license: "Apache-2.0",
  source: "Go module, built here",
  files: [
    { path: "/bin/runc", sha256: sha, size: 10 },
    { path: "/a", sha256: sha, size: 0 },
  ],
}
const linux: Sbom.Component = {
  name: "linux",
  version: "6.12",
  license: "GPL-2.0-only WITH Linux-syscall-note",
  source: "Debian package",
  type: "operating-system",
  files: [],
}
const own: Sbom.Component = {
  name: "own",
  version: "1",
  license: "see the file COPYING",
  source: "here",
  files: [],
}

describe("Sbom", () => {
  it.effect("is the same whatever the order, and another when a file differs", () =>
    Effect.gen(function* () {
      const one = yield* Sbom.make(subject, [runc, linux])
      const two = yield* Sbom.make(subject, [linux, { ...runc, files: runc.files.toReversed() }])
      assert.strictEqual(one, two)
      const other = yield* Sbom.make(subject, [
        linux,
        { ...runc, files: [{ path: "/a", sha256: sha, size: 1 }] },
      ])
      assert.notStrictEqual(JSON.parse(one).serialNumber, JSON.parse(other).serialNumber)
    }),
  )

  it.effect("has what CycloneDX 1.6 asks for", () =>
    Effect.gen(function* () {
      const bom = JSON.parse(yield* Sbom.make({ ...subject, timestamp: 0 }, [runc, linux, own]))
      assert.deepInclude(bom, { bomFormat: "CycloneDX", specVersion: "1.6", version: 1 })
      assert.match(
        bom.serialNumber,
        /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u,
      )
      assert.strictEqual(bom.metadata.timestamp, "1970-01-01T00:00:00.000Z")
      const [first, second, third] = bom.components
      assert.deepStrictEqual(first.licenses, [{ expression: "GPL-2.0-only WITH Linux-syscall-note" }])
      assert.strictEqual(first.type, "operating-system")
      assert.notProperty(first, "components")
      assert.deepStrictEqual(second.licenses, [{ license: { name: "see the file COPYING" } }])
      assert.deepStrictEqual(third.properties, [{ name: "kios:source", value: "Go module, built here" }])
      assert.deepStrictEqual(third.components[1], {
        type: "file",
        "bom-ref": "runc@1.3.0#/bin/runc",
        name: "/bin/runc",
        hashes: [{ alg: "SHA-256", content: sha }],
        properties: [{ name: "kios:size", value: "10" }],
      })
      assert.deepStrictEqual(bom.dependencies, [
        { ref: "image:kios@0.1.0", dependsOn: ["linux@6.12", "own@1", "runc@1.3.0"] },
      ])
      const refs = JSON.stringify(bom).match(/"bom-ref":"[^"]*"/gu)!
      assert.strictEqual(new Set(refs).size, refs.length)
    }),
  )

  const refused: ReadonlyArray<readonly [string, ReadonlyArray<Sbom.Component>, string]> = [
    ["a component twice", [runc, runc], "listed twice"],
    ["no version", [{ ...runc, version: "" }], "version is empty"],
    ["no source", [{ ...runc, source: "" }], "source is empty"],
    ["a digest that is none", [{ ...runc, files: [{ path: "/x", sha256: "AB", size: 1 }] }], "/x"],
    ["a file twice", [{ ...runc, files: [...runc.files, ...runc.files] }], "/bin/runc twice"],
    ["a size that is none", [{ ...runc, files: [{ path: "/x", sha256: sha, size: -1 }] }], "not a size"],
  ]
  for (const [name, components, detail] of refused) {
    it.effect(`refuses ${name}`, () =>
      Effect.gen(function* () {
        const error = yield* failure(Sbom.make(subject, components))
        assert.strictEqual(error._tag, "SbomError")
        assert.include(error.message, detail)
      }),
    )
  }
})
