/**
 * Which images a node may pull, as part of the image.
 *
 * containerd asks a program before each pull. The reference distro has none,
 * and no file more than it needs; with a policy there is one more program and
 * the policy, both read-only.
 */
import { Data, Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { component, local, type Recipe } from "./ImageRecipe.ts"

/** A policy that a node would not understand, and so would pull nothing. */
export class ImagePolicyError extends Data.TaggedError("ImagePolicyError")<{
  readonly file: string
  readonly reason: string
}> {
  override get message() {
    return `image policy ${this.file}: ${this.reason}`
  }
}

const LINE = /^\s*(?:|#.*|require digest|allow [^\s]+)\s*$/u

/**
 * What is wrong with a policy's text, as the node's program would see it;
 * undefined when nothing is.
 *
 * @example
 * ```ts
 * import * as ImagePolicy from "@kios/distro/ImagePolicy"
 *
 * ImagePolicy.objection("require digest\nallow registry.example\n") // undefined
 * ```
 */
export const objection = (text: string): string | undefined => {
  const lines = text.split("\n")
  const wrong = lines.findIndex((line) => !LINE.test(line))
  if (wrong !== -1)
    return `line ${wrong + 1} is neither "require digest" nor "allow REGISTRY[/PATH]": ${lines[wrong]}`
  if (!lines.some((line) => /^\s*(?:require|allow) /u.test(line))) return "it says nothing"
  return Buffer.byteLength(text) > 64 * 1024 ? "it is larger than 64 KiB" : undefined
}

/**
 * The recipe with a policy: what it does not allow is not pulled. A policy of
 * the node, `/etc/kios/image-policy`, can narrow it and not widen it.
 *
 * Fails with {@link ImagePolicyError} when the file cannot be read or says what
 * a node does not understand.
 *
 * @param file The policy; see docs/registries.md for its lines.
 *
 * @example
 * ```ts
 * import * as ImagePolicy from "@kios/distro/ImagePolicy"
 * import { recipe } from "@kios/distro/recipe"
 *
 * const strict = ImagePolicy.withPolicy(recipe, "image-policy.txt")
 * ```
 */
export const withPolicy = (recipe: Recipe, file: string): Effect.Effect<Recipe, ImagePolicyError> =>
  Effect.gen(function* () {
    const text = yield* Effect.try({
      try: () => fs.readFileSync(file, "utf8"),
      catch: (cause) => new ImagePolicyError({ file, reason: (cause as Error).message }),
    })
    const reason = objection(text)
    if (reason !== undefined) return yield* new ImagePolicyError({ file, reason })
    return {
      ...recipe,
      files: [
        ...recipe.files,
        {
          path: "/lib/kios/image-verifiers/image-policy",
          mode: 0o755,
          from: component("image-policy", "bin/image-policy"),
          why: "containerd asks it before each pull",
        },
        {
          path: "/lib/kios/image-policy",
          mode: 0o644,
          from: local(path.resolve(file)),
          why: "which images may be pulled",
        },
      ],
    }
  })
