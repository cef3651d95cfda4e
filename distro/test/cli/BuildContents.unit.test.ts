import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { apply, type Contents } from "../../src/cli/BuildContents.ts"
import * as OciArchive from "../../src/image/OciArchive.ts"
import { recipe } from "../../src/recipe.ts"
import { scratch } from "../image/support.ts"

const nothing: Contents = { image: [], manifest: [], without: [] }

const archive = (
  file: string,
  name = "registry.test/team/app:3",
  architecture: OciArchive.Recipe["architecture"] = "amd64",
) =>
  OciArchive.build(
    [
      {
        name,
        architecture,
        files: [{ path: "bin/app", mode: 0o755, source: { bytes: Buffer.from("app") } }],
        config: { entrypoint: ["/bin/app"] },
      },
    ],
    file,
  )

const pod = (image: string, policy = "Never") =>
  `apiVersion: v1\nkind: Pod\nmetadata: { name: app }\nspec: { containers: [{ name: main, image: "${image}", imagePullPolicy: ${policy} }] }\n`

const names = (list: ReadonlyArray<{ readonly name: string }> | undefined) => list?.map(({ name }) => name)

describe("kios build with contents of one's own", () => {
  it.live("an archive and a manifest come on top of the distro's", () =>
    Effect.gen(function* () {
      const dir = yield* scratch
      const [image, manifest] = [path.join(dir, "my app.oci.tar"), path.join(dir, "app.yaml")]
      yield* archive(image)
      fs.writeFileSync(manifest, pod("registry.test/team/app:3"))
      const made = yield* apply(recipe, { ...nothing, image: [image], manifest: [manifest] })
      assert.deepStrictEqual(made.archives, [
        {
          file: "my-app",
          why: "given by --image: registry.test/team/app:3",
          from: { _tag: "Local", file: image },
        },
      ])
      assert.deepStrictEqual(names(made.pods), [...(names(recipe.pods) ?? []), "app"])
      assert.deepStrictEqual(made.images, recipe.images)
    }),
  )

  it.live("a manifest with the name of one of the distro's pods replaces it", () =>
    Effect.gen(function* () {
      const manifest = path.join(yield* scratch, "ntp.yaml")
      fs.writeFileSync(manifest, pod("registry.test/chrony:4", "IfNotPresent"))
      const made = yield* apply(recipe, { ...nothing, manifest: [manifest] })
      assert.strictEqual(made.pods?.length, recipe.pods?.length)
      const ntp = made.pods?.find(({ name }) => name === "ntp")
      assert.deepStrictEqual(ntp?.from, { _tag: "Local", file: manifest })
    }),
  )

  it.live("a pod that is left out takes its own image with it", () =>
    Effect.gen(function* () {
      const made = yield* apply(recipe, { ...nothing, without: ["ntp", "hello"] })
      assert.notIncludeMembers(names(made.pods) ?? [], ["ntp", "hello"])
      assert.include(names(made.pods) ?? [], "dhcp")
      assert.notInclude(names(made.images)?.join(), "/ntp:")
      assert.include(names(made.images)?.join(), "/busybox:")
    }),
  )

  const refused: ReadonlyArray<
    readonly [string, (dir: string) => Effect.Effect<Partial<Contents>, unknown>, RegExp]
  > = [
    [
      "an archive that is not there",
      (dir) => Effect.succeed({ image: [path.join(dir, "absent.tar")] }),
      /absent\.tar: .*no such file/u,
    ],
    [
      "an archive that is cut short",
      (dir) =>
        Effect.gen(function* () {
          const file = path.join(dir, "cut.tar")
          yield* archive(file)
          fs.truncateSync(file, 3000)
          return { image: [file] }
        }),
      /cut\.tar: /u,
    ],
    [
      "an archive for another machine",
      (dir) =>
        Effect.map(archive(path.join(dir, "arm.tar"), "registry.test/a:1", "arm64"), () => ({
          image: [path.join(dir, "arm.tar")],
        })),
      /arm\.tar: has registry\.test\/a:1 for linux\/arm64; the node is linux\/amd64/u,
    ],
    [
      "two archives with one image",
      (dir) =>
        Effect.gen(function* () {
          const files = ["a.tar", "b.tar"].map((file) => path.join(dir, file))
          for (const file of files) yield* archive(file)
          return { image: files }
        }),
      /b\.tar: has the image registry\.test\/team\/app:3, as has .*a\.tar/u,
    ],
    [
      "an archive with the name of the distro's",
      (dir) =>
        Effect.map(archive(path.join(dir, "system.tar")), () => ({ image: [path.join(dir, "system.tar")] })),
      /another archive is called system already/u,
    ],
    [
      "a manifest that is no YAML",
      (dir) => {
        fs.writeFileSync(path.join(dir, "x.yaml"), "kind: Pod\n metadata: [\n")
        return Effect.succeed({ manifest: [path.join(dir, "x.yaml")] })
      },
      /x\.yaml: .*line \d/u,
    ],
    [
      "a manifest of something else",
      (dir) => {
        fs.writeFileSync(path.join(dir, "x.yaml"), "kind: ConfigMap\n")
        return Effect.succeed({ manifest: [path.join(dir, "x.yaml")] })
      },
      /x\.yaml: is of kind "ConfigMap"; a static pod is a Pod/u,
    ],
    [
      "a pod whose image nobody brings",
      (dir) => {
        fs.writeFileSync(path.join(dir, "x.yaml"), pod("registry.test/none:1"))
        return Effect.succeed({ manifest: [path.join(dir, "x.yaml")] })
      },
      /x\.yaml: its container main wants the image registry\.test\/none:1, which nothing brings.*--image/u,
    ],
    [
      "an image that pods need left out",
      () => Effect.succeed({ without: ["busybox"] }),
      /wants the image localhost\/kios\/busybox:1\.37\.0, which nothing brings/u,
    ],
    [
      "a name that there is not",
      () => Effect.succeed({ without: ["dhpc"] }),
      /--without dhpc: there is no such pod or image; there are dhcp, /u,
    ],
    ["pause left out", () => Effect.succeed({ without: ["pause"] }), /every pod needs the pause image/u],
  ]
  for (const [what, given, reason] of refused) {
    it.live(`refuses ${what}`, () =>
      Effect.gen(function* () {
        const contents = yield* given(yield* scratch)
        const error = yield* Effect.flip(apply(recipe, { ...nothing, ...contents }))
        assert.match(error.message, reason)
        assert.notInclude(error.message, "\n")
      }),
    )
  }
})
