import { assert, it } from "@effect/vitest"
import { parseModule } from "../../../../scripts/DocComments.ts"
import { makeReference, outOfDate } from "../../../../scripts/reference.ts"

it("docs/reference is what the sources say", { timeout: 120_000 }, () => {
  const made = makeReference()
  assert.isAbove(made.size, 50)
  for (const [page, text] of made)
    for (const section of text.split(/^## /mu).slice(1))
      if (page !== "README.md")
        assert.match(section, /^```ts\nexport /mu, `docs/reference/${page}: ${section.split("\n")[0]}`)
  assert.deepStrictEqual(outOfDate(made), [], "run `npm run docs`")
})

const source = `/**
 * What it is about.
 *
 * More.
 */
import * as x from "x"

/** Not exported. */
const inner = 1

export const bare = inner

/**
 * Does it.
 *
 * @param a how often
 *   it is done
 * @example
 * \`\`\`ts
 * doIt(1)
 * \`\`\`
 */
// oxlint-disable-next-line some/rule -- why
export const doIt = (a: number) => a

/** A thing: \`\`\` is no fence here. */
export interface Thing {
  /**
   * @example
   * \`\`\`ts
   * thing.part
   * \`\`\`
   */
  readonly part: string
}

export { other, type Kind } from "./other.ts"
`

it("doc comments are read with the lines of their examples", () => {
  const module = parseModule(
    source,
    () => "/** Another. */\nexport const other = 1\n\nexport type Kind = 1\n",
  )
  assert.strictEqual(module.doc?.description, "What it is about.\n\nMore.")
  const [bare, doIt, thing, other, kind] = module.exports
  assert.deepStrictEqual([bare?.name, bare?.doc], ["bare", undefined])
  assert.deepStrictEqual([doIt?.line, doIt?.doc?.description], [24, "Does it."])
  assert.deepStrictEqual(doIt?.doc?.tags[0], { tag: "param", text: "a how often\n  it is done" })
  assert.deepStrictEqual(doIt?.doc?.examples, [{ code: "doIt(1)", line: 20 }])
  assert.deepStrictEqual([thing?.kind, thing?.doc?.examples], ["interface", []])
  assert.deepStrictEqual([other?.doc?.description, kind?.kind, kind?.doc], ["Another.", "type", undefined])
  // Those of members are examples of the file all the same.
  assert.deepStrictEqual(
    module.examples.map((example) => [example.line, example.code]),
    [
      [20, "doIt(1)"],
      [31, "thing.part"],
    ],
  )
  assert.throws(() => parseModule("export default 1\n", () => ""), /line 1: an export/u)
})
