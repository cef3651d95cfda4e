import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { components } from "../../src/components/catalog.ts"
import * as ImagePolicy from "../../src/ImagePolicy.ts"
import { recipe } from "../../src/recipe.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "kios-policy-"))),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true })),
)

describe("an image policy", () => {
  it("is refused at build when a node would not understand it, or it says nothing", () => {
    assert.isUndefined(
      ImagePolicy.objection("# ours\n\n  require digest\r\nallow registry.example:5000/team/\n"),
    )
    for (const [text, reason] of [
      ["require digest\nallow a b\n", 'line 2 is neither "require digest"'],
      ["deny docker.io\n", "line 1"],
      ["require digests\n", "line 1"],
      ["allow\n", "line 1"],
      ["# only a comment\n", "it says nothing"],
      [`allow a/\n# ${"x".repeat(65_536)}`, "larger than 64 KiB"],
    ] as const)
      assert.include(ImagePolicy.objection(text), reason)
  })

  it.effect(
    "adds the program and the policy to an image, and nothing else; without one there is neither",
    () =>
      Effect.gen(function* () {
        const file = path.join(yield* directory, "policy.txt")
        const missing = yield* Effect.flip(ImagePolicy.withPolicy(recipe, file))
        assert.match(missing.message, /policy\.txt: ENOENT/u)
        fs.writeFileSync(file, "deny all\n")
        assert.include((yield* Effect.flip(ImagePolicy.withPolicy(recipe, file))).message, `${file}: line 1`)
        fs.writeFileSync(file, "require digest\n")
        const strict = yield* ImagePolicy.withPolicy(recipe, file)
        assert.deepStrictEqual(
          strict.files.slice(recipe.files.length).map(({ mode, path: at }) => [at, mode]),
          [
            ["/lib/kios/image-verifiers/image-policy", 0o755],
            ["/lib/kios/image-policy", 0o644],
          ],
        )
        assert.isFalse(recipe.files.some((one) => one.path.includes("image-")))
      }),
  )

  it.effect("its program is the one that the catalog pins", () =>
    Effect.gen(function* () {
      const fingerprint = yield* (yield* components("x86_64"))["image-policy"].sources[0].fingerprint
      const source = path.join(import.meta.dirname, "../../components/image-policy/image-policy.c")
      assert.deepInclude(fingerprint, {
        sha256: createHash("sha256").update(fs.readFileSync(source)).digest("hex"),
      })
    }),
  )
})
