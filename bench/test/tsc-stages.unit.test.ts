import { assert, it } from "@effect/vitest"
import { addedBy, measure, MOST_SECONDS } from "../tsc-stages.ts"

it("a hundred stages compile, can be recomposed, and add little to tsc", { timeout: 120_000 }, () => {
  const added = addedBy(measure([0, 100], 2))
  assert.isAtMost(added, MOST_SECONDS)
})
