import { assert, it } from "@effect/vitest"
import { measure, MOST_INSTANTIATIONS } from "../tsc-stages.ts"

it("a hundred stages compile, can be recomposed, and cost the compiler no more than they did", () => {
  const [measured] = measure([100], 0)
  assert.isAtMost(measured?.instantiations ?? Number.NaN, MOST_INSTANTIATIONS)
})
